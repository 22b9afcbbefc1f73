"""How a benchmark has its answers judged: what a judge is asked of each, and which of its reviews can be read.

A judged benchmark's scorer marks reviews, the judge's own words, in place of the answers. Whoever wrote them: a model
asked here (`judge.py`), or one asked elsewhere, whose replies are read here.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Question, QuestionId
from llava_lite.evaluation.files import EvaluationError, read_rows
from llava_lite.generation.chat_model import Sampling


@dataclass(frozen=True)
class Reply:
    """A review made elsewhere.

    judge:   who made it, where its file says so
    request: which request it answers, as `request_key` names it, where its file says so
    """

    question_id: QuestionId
    content: str
    judge: str = ""
    request: str = ""


class Judging(ABC):
    """Stands in its benchmark's file, beside it.

    official: the judge of the published figures
    tries:    how often it is asked for one review: when it has said nothing readable by then, its last words stay
    """

    official: ClassVar[str]
    tries: ClassVar[int]

    def needed(self, question: Question, answer: str) -> bool:
        """Decide whether the answer needs a judge; by default every one does."""
        return True

    @abstractmethod
    def request(self, question: Question, answer: str, attempt: int) -> Conversation:
        """Write what the judge is asked, in words alone; attempt 0 is the first.

        Raises EvaluationError where the file is missing that holds the benchmark's own words for it.
        """

    @abstractmethod
    def sampling(self, attempt: int) -> Sampling:
        """Say how the judge draws its review."""

    @abstractmethod
    def readable(self, review: str) -> bool:
        """Decide whether the scorer can make anything of a review."""

    def read_replies(self, path: Path) -> list[Reply]:
        """Read reviews made elsewhere; empty where the file holds none, so that it must hold answers.

        By default as `read_replies` says. Raises EvaluationError for a broken file.
        """
        return read_replies(path)

    def as_json(self, question: Question, answer: str) -> dict[str, Any]:
        """The first request in plain JSON, as it is recorded."""
        asked = self.request(question, answer, 0)
        sampling = json.loads(json.dumps(asdict(self.sampling(0))))  # as on disk
        return {"system": asked.system, "prompt": asked.messages[-1].text, "sampling": sampling}


def request_key(request: dict[str, Any]) -> str:
    """Name a request in a few letters, so that a reply tells what it replies to."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def read_replies(path: Path) -> list[Reply]:
    """Read replies in JSON Lines: ours and LLaVA's ({"question_id", "content"}), or what a batch of requests gave.

    The latter is OpenAI's format, {"custom_id", "response"}, which vLLM writes as well. A request that failed has no
    reply. Raises EvaluationError for two reviews of one question.
    """
    if path.suffix != ".jsonl" or not path.is_file():
        return []
    found: dict[QuestionId, Reply] = {}
    for number, row in enumerate(read_rows(path, {}), start=1):
        if isinstance(row.get("custom_id"), str) and "response" in row:
            reply = _batch_reply(row)
        elif "content" in row and isinstance(row.get("question_id"), (int, str)):
            reply = _own_reply(row)
        elif not found:
            return []
        else:
            raise EvaluationError(f"{path}, row {number}: no review as those before; is the file whole?")
        if reply is not None:
            if reply.question_id in found:
                raise EvaluationError(f"{path}: two reviews of question {reply.question_id!r}; keep one of them")
            found[reply.question_id] = reply
    return list(found.values())


def _own_reply(row: dict[str, Any]) -> Reply | None:
    judge = row.get("judge")
    if not isinstance(row["content"], str):
        return None
    return Reply(row["question_id"], row["content"], judge if isinstance(judge, str) else "")


def _batch_reply(row: dict[str, Any]) -> Reply | None:
    id, _, key = row["custom_id"].rpartition("#")
    match row["response"]:
        case {"body": {"choices": [{"message": {"content": str(content)}}, *_], **more}}:
            judge = more.get("model")
            return Reply(id or key, content, judge if isinstance(judge, str) else "", key if id else "")
    return None
