"""A body of /v1/chat/completions -> a Conversation and how to answer it. Nothing in it is ignored without saying so.

By hand and not by a schema, so that each error names the field in the client's words, and the first one ends the
reading: a schema's list of all that is wrong can be many times larger than the body.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from llava_lite.conversation.message import Conversation
from llava_lite.generation.chat_model import GenerationError, Sampling
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal, no_model
from llava_lite.serve.fields import Object, known_fields, missing, take, typed, unknown
from llava_lite.serve.messages import read_conversation

MAX_STOPS = 16
MAX_STOP_LENGTH = 1000  # each is looked for at every token


@dataclass(frozen=True)
class Question:
    """What is asked: a conversation, whose images may still be addresses, and how to answer it."""

    conversation: Conversation
    sampling: Sampling
    stream: bool
    include_usage: bool


def read_question(body: bytes, config: ServerConfig, model_name: str) -> Question:
    """Read the body of a request. Raises Refusal, which names the field at fault."""
    fields = known_fields(_parse(body))
    model = take(fields, "model", str)
    if model is None:
        raise missing("model")
    if model != model_name:
        raise no_model(model, model_name)
    stream = take(fields, "stream", bool) or False
    sampling = _sampling(fields, config)
    include_usage = _include_usage(fields, stream)
    return Question(read_conversation(fields, config), sampling, stream, include_usage)


def _parse(body: bytes) -> Object:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise Refusal("the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:  # also a broken encoding, and numbers of thousands of digits
        raise Refusal(f"the body is not JSON ({str(error)[:200]})", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal("the body should be a JSON object", code="invalid_json")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _sampling(fields: Object, config: ServerConfig) -> Sampling:
    """Read how to answer. Greedy where no temperature is given, as the checkpoints are evaluated."""
    seed = take(fields, "seed", int)
    if seed is None:
        seed = secrets.randbits(63)  # asked twice, a drawn answer may differ
    elif not -(2**63) <= seed < 2**63:
        raise Refusal("seed should be an integer of 64 bits", param="seed", code="invalid_value")
    top_k = take(fields, "top_k", int)
    try:
        return Sampling(
            max_new_tokens=_max_new_tokens(fields, config),
            temperature=take(fields, "temperature", float, 0.0),
            top_p=take(fields, "top_p", float, 1.0),
            top_k=0 if top_k is None or top_k == -1 else top_k,  # vLLM's way to say all
            repetition_penalty=take(fields, "repetition_penalty", float, 1.0),
            seed=seed,
            stop=_stops(fields),
        )
    except GenerationError as error:
        raise Refusal(str(error), param=_named_in(str(error), fields), code="invalid_value") from None


def _named_in(text: str, fields: Object) -> str | None:
    return next((name for name in fields if f"{name}=" in text), None)


def _max_new_tokens(fields: Object, config: ServerConfig) -> int:
    given = {name: take(fields, name, int) for name in ("max_tokens", "max_completion_tokens") if name in fields}
    if not given:
        return config.max_new_tokens
    if len(set(given.values())) > 1:
        raise Refusal(
            "max_tokens and max_completion_tokens differ; give one of them", param="max_tokens", code="invalid_value"
        )
    name, number = next(iter(given.items()))
    if number is None or not 1 <= number <= config.max_new_tokens:
        raise Refusal(
            f"{name} is {number}; this server allows 1 to {config.max_new_tokens}", param=name, code="invalid_value"
        )
    return number


def _stops(fields: Object) -> tuple[str, ...]:
    stop = fields.get("stop", [])
    stops = [stop] if isinstance(stop, str) else typed(stop, list, "stop")
    if len(stops) > MAX_STOPS:
        raise Refusal(f"{len(stops)} stop texts; at most {MAX_STOPS}", param="stop", code="invalid_value")
    texts = tuple(typed(text, str, f"stop[{i}]") for i, text in enumerate(stops))
    if any(len(text) > MAX_STOP_LENGTH for text in texts):
        raise Refusal(
            f"a stop text of more than {MAX_STOP_LENGTH} characters; give a shorter one",
            param="stop",
            code="invalid_value",
        )
    return texts


def _include_usage(fields: Object, stream: bool) -> bool:
    options = take(fields, "stream_options", dict)
    if options is None:
        return False
    if not stream:
        raise Refusal(
            "stream_options goes with stream: true; leave it out", param="stream_options", code="invalid_value"
        )
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation"):
            raise unknown(f"stream_options.{name}"[:200], ["stream_options.include_usage"])
        typed(value, bool, f"stream_options.{name}")
    if options.get("include_obfuscation"):
        raise Refusal(
            "stream_options.include_obfuscation is not supported by this server; leave it out",
            param="stream_options.include_obfuscation",
            code="unsupported_parameter",
        )
    return bool(options.get("include_usage"))
