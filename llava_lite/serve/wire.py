"""Answers as OpenAI writes them: whole, or in chunks of server-sent events."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from llava_lite.generation.chat_model import Finish
from llava_lite.serve.errors import Refusal, to_json

Json = dict[str, object]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Wire:
    """One answer on the wire: its id and what stands in all its messages.

    include_usage: a stream ends with the numbers of tokens
    """

    model_name: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: Finish) -> bytes:
        """Write an answer in one."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": finish.reason,
        }
        head = self._head("chat.completion")
        return to_json({**head, "choices": [choice], "usage": usage(finish), **_dropped(finish)})

    def opening(self) -> bytes:
        """Write the first chunk, which says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """Write a chunk of text."""
        return self._chunk({"content": text})

    def ending(self, finish: Finish) -> bytes:
        """Write how the answer ended, its usage where that is wanted, and that the stream ends."""
        last = self._chunk({}, finish)
        if self.include_usage:
            last += _event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(finish)})
        return last + DONE

    def _chunk(self, delta: Json, finish: Finish | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish.reason if finish else None}
        head = self._head("chat.completion.chunk")
        rest = {"usage": None} if self.include_usage else {}
        return _event({**head, "choices": [choice], **rest, **(_dropped(finish) if finish else {})})

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model_name}


def error_event(refusal: Refusal) -> bytes:
    """Write an error that comes after a stream has begun; OpenAI's client raises it."""
    return _event(refusal.body)


def usage(finish: Finish) -> Json:
    """Count tokens as OpenAI does."""
    return {
        "prompt_tokens": finish.num_prompt_tokens,
        "completion_tokens": finish.num_answer_tokens,
        "total_tokens": finish.num_prompt_tokens + finish.num_answer_tokens,
        "prompt_tokens_details": {"cached_tokens": finish.num_reused_tokens},
    }


def _dropped(finish: Finish) -> Json:
    """Beyond OpenAI: how many of the first messages were left out, where some were."""
    return {"dropped_turns": finish.num_dropped_turns} if finish.num_dropped_turns else {}


def _event(value: object) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
