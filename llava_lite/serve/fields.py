"""The fields of a request: which are read, which change nothing, which cannot be honoured; and their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from llava_lite.config import nearest
from llava_lite.serve.errors import Refusal

T = TypeVar("T")
Object = Mapping[str, Any]

_WORDS: dict[type, str] = {
    str: "a string",
    float: "a number",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}

READ = frozenset(
    {
        *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k"),
        *("repetition_penalty", "seed", "stop", "stream", "stream_options"),
    }
)
WITHOUT_EFFECT = frozenset(
    {
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("prompt_cache_retention", "parallel_tool_calls"),
    }
)
"""Fields that change no answer here: who asks, what a company keeps and bills, and how tools would be called."""

UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "min_p": (0,),
    "min_tokens": (0,),
    "best_of": (1,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "echo": (False,),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
"""Fields of OpenAI and vLLM that would change the answer, and the values with which they do not."""


def known_fields(fields: Object) -> Object:
    """Leave out what is null or without effect; refuse what is unknown or would change the answer."""
    known: dict[str, object] = {}
    for name, value in fields.items():
        if name in READ:
            if value is not None:
                known[name] = value
        elif name in UNSUPPORTED:
            if value is not None and not is_one_of(value, UNSUPPORTED[name]):
                allowed = " or ".join(json.dumps(neutral) for neutral in UNSUPPORTED[name])
                remedy = f"leave it out{f', or say {allowed}' if allowed else ''}"
                raise Refusal(
                    f"{name} is not supported by this server; {remedy}", param=name, code="unsupported_parameter"
                )
        elif name not in WITHOUT_EFFECT:
            raise unknown(name, [*READ, *UNSUPPORTED, *WITHOUT_EFFECT])
    return known


def is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    # to Python, true is 1
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def take(fields: Object, name: str, kind: type[T], default: Any = None) -> Any:
    """Return a field as the type that it should have, or the default where it is not given."""
    return typed(fields[name], kind, name) if name in fields else default


def typed(value: object, kind: type[T], param: str) -> T:
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:  # JSON gives exactly these types, and true is no integer
        raise Refusal(f"{param} should be {_WORDS[kind]}", param=param, code="invalid_type")
    return value


def missing(param: str) -> Refusal:
    return Refusal(f"{param} is missing", param=param, code="missing_required_parameter")


def unknown(param: str, names: list[str]) -> Refusal:
    word = nearest(param[:200], names)
    hint = f"; did you mean {word}?" if word else ""
    return Refusal(f"unknown field {param[:200]!r}{hint}", param=param[:200], code="unknown_parameter")
