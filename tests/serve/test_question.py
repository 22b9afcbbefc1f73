"""A body becomes a conversation and a way to answer it, or an error that names the field."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llava_lite.conversation.message import Conversation, Image
from llava_lite.generation.chat_model import Sampling
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal
from llava_lite.serve.question import Question, read_question
from tests.serve.running import question

PIXEL = "data:image/gif;base64,R0lGODdhAQABAIABAAAAAP///ywAAAAAAQABAAACAkQBADs="


LIMITS = ServerConfig(max_new_tokens=64, max_images=2, max_messages=6, max_characters=5000)


def read(body: Any, config: ServerConfig | None = None) -> Question:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_question(data, config or LIMITS, "tiny")


def asked(*messages: tuple[str, object], **fields: object) -> dict[str, object]:
    """A body of messages given as (role, content)."""
    given = [{"role": role, "content": content} for role, content in messages]
    return {"model": "tiny", "messages": given, **fields}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


def picture(url: str = PIXEL, **fields: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def test_turns_become_a_conversation() -> None:
    body = asked(
        ("system", [text("Be "), text("short.")]),
        ("user", [text("What is"), picture(detail="low"), text(" it?")]),
        ("assistant", "A cat."),
        ("user", "Its color?"),
    )
    expected = Conversation(system="Be short.").ask("What is it?", [PIXEL]).answer("A cat.").ask("Its color?")
    assert read(body).conversation == expected
    assert read(asked(("developer", "Be short."), ("user", "Hi"))).conversation.system == "Be short."


def test_an_answer_goes_back_as_the_client_holds_it() -> None:
    answer = {
        **{"role": "assistant", "content": "", "refusal": None, "annotations": [], "audio": None},
        **{"function_call": None, "tool_calls": None},
    }
    body = question(messages=[{"role": "user", "content": "Hi"}, answer, {"role": "user", "content": "Well?"}])
    assert [message.text for message in read(body).conversation.messages] == ["Hi", "", "Well?"]


def test_an_answer_is_greedy_and_as_long_as_may_be_where_nothing_is_asked() -> None:
    read_sampling = read(asked(("user", "Hi"), temperature=None)).sampling
    assert read_sampling == Sampling(max_new_tokens=64, seed=read_sampling.seed)
    assert read_sampling.temperature == 0


def test_how_to_answer_is_read() -> None:
    sampling = read(
        question(
            **{"max_tokens": None, "max_completion_tokens": 5, "temperature": 1, "top_p": 0.5, "top_k": 3},
            **{"repetition_penalty": 1.5, "seed": -7, "stop": ["a", "b"]},
        )
    ).sampling
    assert sampling == Sampling(5, 1.0, 0.5, 3, 1.5, -7, ("a", "b"))
    assert read(question(stop="END", top_k=-1)).sampling.stop == ("END",)


def test_two_drawn_answers_have_other_seeds() -> None:
    assert read(question()).sampling.seed != read(question()).sampling.seed


def test_fields_that_change_nothing_are_taken() -> None:
    body = question(
        **{"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "parallel_tool_calls": True},
        **{"n": 1, "logprobs": False, "tools": [], "tool_choice": "auto", "response_format": {"type": "text"}},
        **{"presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}, "reasoning_effort": None},
    )
    assert read(body).conversation == Conversation().ask("What is it?")


def test_streaming_is_read() -> None:
    both = read(question(stream=True, stream_options={"include_usage": True}))
    assert (both.stream, both.include_usage) == (True, True)
    assert not read(question(stream=True)).include_usage


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({"n": 2}, "n", "unsupported_parameter", "leave it out, or say 1"),
        ({"n": True}, "n", "unsupported_parameter", "n is not supported"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter", "or say false"),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter", "or say"),
        ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter", "or say 0"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter", "logit_bias"),
        ({"temprature": 1}, "temprature", "unknown_parameter", "did you mean temperature?"),
        ({"model": "gpt-4o"}, "model", "model_not_found", "this server has 'tiny'"),
        ({"model": None}, "model", "missing_required_parameter", "model is missing"),
        ({"model": 3}, "model", "invalid_type", "model should be a string"),
        ({"max_tokens": 65}, "max_tokens", "invalid_value", "max_tokens is 65; this server allows 1 to 64"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value", "allows 1 to 64"),
        ({"max_tokens": 2.0}, "max_tokens", "invalid_type", "should be an integer"),
        ({"max_tokens": True}, "max_tokens", "invalid_type", "should be an integer"),
        ({"max_completion_tokens": 9}, "max_tokens", "invalid_value", "differ; give one of them"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "should be a number"),
        ({"temperature": -1}, "temperature", "invalid_value", "temperature=-1.0"),
        ({"temperature": 10**400}, "temperature", "invalid_type", "should be a number"),
        ({"top_p": 0}, "top_p", "invalid_value", "top_p=0.0"),
        ({"top_k": -2}, "top_k", "invalid_value", "top_k=-2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value", "repetition_penalty"),
        ({"seed": 2**63}, "seed", "invalid_value", "64 bits"),
        ({"seed": "x"}, "seed", "invalid_type", "seed should be an integer"),
        ({"stop": 5}, "stop", "invalid_type", "stop should be a list"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type", "should be a string"),
        ({"stop": ""}, "stop", "invalid_value", "stop=('',)"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value", "at most 16"),
        ({"stream": "yes"}, "stream", "invalid_type", "true or false"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value", "goes with stream"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter", "mean"),
        (
            {"stream": True, "stream_options": {"include_usage": 1}},
            *("stream_options.include_usage", "invalid_type", "true or false"),
        ),
        ({"messages": None}, "messages", "missing_required_parameter", "missing"),
        ({"messages": {}}, "messages", "invalid_type", "should be a list"),
        ({"messages": []}, "messages", "invalid_messages", "empty"),
        ({"messages": ["Hi"]}, "messages[0]", "invalid_type", "should be an object"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], param: str, code: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read({**question(), **fields})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert words in str(caught.value)
    assert caught.value.status == (404 if code == "model_not_found" else 400)


@pytest.mark.parametrize(
    ("messages", "param", "words"),
    [
        ([("assistant", "Hi")], "messages[0].role", "one of the user is due"),
        ([("user", "Hi"), ("user", "Hi")], "messages[1].role", "a message of the user where one of the assistant"),
        ([("user", "Hi"), ("assistant", "Hi")], "messages", "the last message should be the user's"),
        ([("system", "Hi")], "messages", "the last message should be the user's"),
        ([("user", "Hi"), ("system", "Hi")], "messages[1].role", "stands first"),
        ([("system", "Hi"), ("developer", "Hi"), ("user", "Hi")], "messages[1].role", "stands first"),
        ([("tool", "Hi")], "messages[0].role", "'tool' is not a role here"),
        ([(None, "Hi")], "messages[0].role", "should be a string"),
        ([("user", None)], "messages[0].content", "a string or a list of parts"),
        ([("user", "")], "messages[0].content", "neither words nor an image"),
        ([("user", " \n")], "messages[0].content", "neither words nor an image"),
        ([("user", [])], "messages[0].content", "neither words nor an image"),
        ([("user", ["Hi"])], "messages[0].content[0]", "should be an object"),
        ([("user", [{"text": "Hi"}])], "messages[0].content[0].type", "should be a string"),
        ([("user", [{"type": "text"}])], "messages[0].content[0].text", "should be a string"),
        ([("user", [{"type": "input_audio"}])], "messages[0].content[0].type", "use text or image_url"),
        ([("user", [{**text("Hi"), "cache": 1}])], "messages[0].content[0].cache", "unknown field"),
        ([("user", [{"type": "image_url", "image_url": PIXEL}])], "messages[0].content[0].image_url", "an object"),
        ([("user", [picture(detail="ultra")])], "messages[0].content[0].image_url.detail", "auto, low or high"),
        ([("user", [picture(size=3)])], "messages[0].content[0].image_url.size", "unknown field"),
        ([("user", [picture()] * 3)], "messages", "messages[0].content[2]: more than 2 images"),
        ([("user", [picture()] * 2), ("assistant", "A"), ("user", [picture()])], "messages", "more than 2 images"),
        ([("system", [picture()]), ("user", "Hi")], "messages[0].content", "images belong to the user's"),
        ([("user", "Hi"), ("assistant", "Hi")] * 4, "messages", "8 messages; this server takes 6"),
        ([("user", [text("Hi")] * 7)], "messages[0].content", "7 parts; this server takes 6"),
        ([("system", "x" * 2500), ("user", "y" * 2501)], "messages", "5001 characters; this server takes 5000"),
    ],
)
def test_wrong_messages_are_named(messages: list[tuple[str, object]], param: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(asked(*messages))
    assert caught.value.param == param
    assert words in str(caught.value)


def test_a_field_of_a_message_that_would_count_is_refused() -> None:
    for name, value in (("name", "Bob"), ("tool_calls", [{"id": "1"}]), ("weight", 0)):
        with pytest.raises(Refusal, match=rf"messages\[0\]\.{name}"):
            read(question(messages=[{"role": "user", "content": "Hi", name: value}]))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b'{"model": NaN}', b'{"seed": ' + b"9" * 5000 + b"}"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"\x00" * 50, b"{'model': 'tiny'}"),
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read(body)
    assert caught.value.code == "invalid_json"
    assert len(str(caught.value)) < 400


def test_an_image_comes_from_the_request_alone_unless_more_is_allowed(world: Path) -> None:
    for url, words in (
        ("http://127.0.0.1/a.png", "fetches no addresses"),
        ("HTTPS://example.com/a.png", "fetches no addresses"),
        ((world / "images").as_uri(), "reads no files"),
        ("/etc/passwd", "no known kind"),
        ("ftp://example.com/a.png", "no known kind"),
        ("", "no known kind"),
        ("data:image/png;base64,AAAA", "not an image"),
        ("data:image/png;base64,?", "broken base64"),
        ("data:text/plain,Hi", "without base64"),
    ):
        with pytest.raises(Refusal, match=words) as caught:
            read(asked(("user", [text("What?"), picture(url)])))
        assert (caught.value.status, caught.value.code) == (400, "invalid_image")
        assert caught.value.param == "messages[0].content[1].image_url.url"


def test_an_address_waits_to_be_fetched_where_that_is_allowed() -> None:
    body = asked(("user", [picture("https://example.com/a.png")]))
    images = read(body, ServerConfig(allow_fetch=True)).conversation.images
    assert images == (Image("https://example.com/a.png"),)


def test_files_are_read_below_their_folder_alone(world: Path, tmp_path: Path) -> None:
    folder, outside = tmp_path / "open house", tmp_path / "outside.png"
    (folder / "deep").mkdir(parents=True)
    data = next((world / "images").glob("*.png")).read_bytes()
    for path in (folder / "deep" / "ä b.png", outside, folder / "words.txt"):
        path.write_bytes(data if path.suffix == ".png" else b"secret")
    (folder / "link.png").symlink_to(outside)
    (folder / "inner.png").symlink_to(folder / "deep" / "ä b.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    config = ServerConfig(files_dir=folder)

    def read_file(url: str) -> object:
        return read(asked(("user", [picture(url)])), config).conversation.images[0].source

    good = (folder / "deep" / "ä b.png").as_uri()
    assert read_file(good) == data
    assert read_file(good.replace("file://", "file://localhost")) == data
    assert read_file((folder / "inner.png").as_uri()) == data
    base = folder.as_uri()
    for url in (
        *(outside.as_uri(), f"{base}/../outside.png", f"{base}/%2e%2e/outside.png", f"{base}/link.png"),
        *(f"{base}/circle.png", f"{base}/missing.png", f"{base}/deep", base, f"{base}/a%00b", f"{base}/{'x' * 5000}"),
        *(
            "file://elsewhere" + good.removeprefix("file://"),
            "file:outside.png",
            "file://",
            "file://[/a",
            f"{base}/%ff",
        ),
    ):
        with pytest.raises(Refusal, match="no such file below the folder"):
            read_file(url)
    with pytest.raises(Refusal, match="not an image"):
        read_file((folder / "words.txt").as_uri())


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refusal, match="no such file"):
        read(asked(("user", [picture((tmp_path / "pipe").as_uri())])), ServerConfig(files_dir=tmp_path))


def test_images_keep_their_order_and_place() -> None:
    parts = [text("A"), picture(), text("B"), picture(), text("C")]
    (message,) = read(asked(("user", parts))).conversation.messages
    assert message.content == ("A", Image(PIXEL), "B", Image(PIXEL), "C")
