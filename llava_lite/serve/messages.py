"""The messages of a request -> a Conversation."""

from __future__ import annotations

from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal
from llava_lite.serve.fields import Object, is_one_of, missing, take, typed, unknown
from llava_lite.serve.pictures import read_picture

_EMPTY_IN_MESSAGES: dict[str, tuple[object, ...]] = {
    "refusal": (),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
    "annotations": ([],),
}
"""What OpenAI's client adds, empty, to an answer that is sent back as a turn."""


def read_conversation(fields: Object, config: ServerConfig) -> Conversation:
    """Read `messages`; images that are to be fetched stay addresses. Raises Refusal or ConversationError."""
    messages = take(fields, "messages", list)
    if messages is None:
        raise missing("messages")
    if not messages:
        raise _bad_messages("messages", "empty; ask something")
    if len(messages) > config.max_messages:
        raise _bad_messages("messages", f"{len(messages)} messages; this server takes {config.max_messages}")
    turns: list[Message] = []
    system: str | None = None
    left = config.max_images
    for i, value in enumerate(messages):
        where = f"messages[{i}]"
        message = typed(value, dict, where)
        role = _role(message, where)
        content = _content(message, where, config, left)
        left -= sum(isinstance(part, Image) for part in content)
        if role in ("system", "developer"):
            if i > 0:
                raise _bad_messages(f"{where}.role", f"a {role} message stands first, or not at all")
            system = _system(content, where)
            continue
        if role != ("assistant" if len(turns) % 2 else "user"):
            due = "assistant" if len(turns) % 2 else "user"
            raise _bad_messages(f"{where}.role", f"a message of the {role} where one of the {due} is due")
        turns.append(_turn(role, content, where))
    if not turns or turns[-1].role != "user":
        raise _bad_messages("messages", "the last message should be the user's")
    length = len(system or "") + sum(len(turn.text) for turn in turns)
    if length > config.max_characters:
        raise _bad_messages("messages", f"{length} characters; this server takes {config.max_characters}")
    return Conversation(tuple(turns), system)


def _role(message: Object, where: str) -> str:
    for name, value in message.items():
        if name in ("role", "content") or value is None:
            continue
        if name not in _EMPTY_IN_MESSAGES:
            raise unknown(f"{where}.{name}"[:200], [])
        if not is_one_of(value, _EMPTY_IN_MESSAGES[name]):
            raise Refusal(
                f"{where}.{name} is not supported by this server", param=f"{where}.{name}", code="unsupported_parameter"
            )
    role = typed(message.get("role"), str, f"{where}.role")
    if role not in ("system", "developer", "user", "assistant"):
        raise _bad_messages(f"{where}.role", f"{role[:50]!r} is not a role here; use system, user or assistant")
    return role


def _content(message: Object, where: str, config: ServerConfig, images_left: int) -> list[str | Image]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise _bad_messages(f"{where}.content", "should be a string or a list of parts")
    if len(content) > config.max_messages:
        raise _bad_messages(f"{where}.content", f"{len(content)} parts; this server takes {config.max_messages}")
    parts: list[str | Image] = []
    for i, value in enumerate(content):
        inner = f"{where}.content[{i}]"
        part = typed(value, dict, inner)
        kind = typed(part.get("type"), str, f"{inner}.type")
        if kind not in ("text", "image_url"):
            raise _bad_messages(f"{inner}.type", f"{kind[:50]!r} is not supported; use text or image_url")
        for name in part:
            if name not in ("type", kind) and part[name] is not None:
                raise unknown(f"{inner}.{name}"[:200], [f"{inner}.{kind}"])
        if kind == "text":
            parts.append(typed(part.get("text"), str, f"{inner}.text"))
        elif images_left == 0:
            raise Refusal(
                f"{inner}: more than {config.max_images} images; this server takes so many in a request",
                param="messages",
                code="too_many_images",
            )
        else:
            parts.append(_picture(part, f"{inner}.image_url", config))
            images_left -= 1
    return parts


def _picture(part: Object, where: str, config: ServerConfig) -> Image:
    picture = typed(part.get("image_url"), dict, where)
    for name in picture:
        if name not in ("url", "detail"):
            raise unknown(f"{where}.{name}"[:200], [f"{where}.url", f"{where}.detail"])
    if picture.get("detail") not in (None, "auto", "low", "high"):
        raise _bad_messages(f"{where}.detail", "should be auto, low or high; images are seen as the model was trained")
    return read_picture(typed(picture.get("url"), str, f"{where}.url"), config, f"{where}.url")


def _system(content: list[str | Image], where: str) -> str:
    if any(isinstance(part, Image) for part in content):
        raise _bad_messages(f"{where}.content", "an image in a system message; images belong to the user's")
    return "".join(part for part in content if isinstance(part, str))


def _turn(role: str, content: list[str | Image], where: str) -> Message:
    if role == "assistant":  # an empty answer is one: a model may have nothing to say
        return Message("assistant", tuple(content) if any(content) else ("",))
    if not any(isinstance(part, Image) or part.strip() for part in content):
        raise _bad_messages(f"{where}.content", "neither words nor an image; ask something")
    return Message("user", tuple(content))


def _bad_messages(param: str, problem: str) -> Refusal:
    return Refusal(f"{param}: {problem}", param=param, code="invalid_messages")
