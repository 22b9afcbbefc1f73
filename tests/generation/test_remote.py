"""A model behind an endpoint: every answer whole and in its place, or an error that says which and why."""

import base64
import io
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image as PilImage

from llava_lite.checkpoint.parts import CheckpointError
from llava_lite.conversation.message import Conversation, ConversationError, Image, Message
from llava_lite.generation.chat_model import ChatModel, GenerationError, Sampling
from llava_lite.generation.opening import open_checkpoint, open_model
from llava_lite.generation.remote import RemoteChat
from llava_lite.images.loading import FileSlice, ImageError, load_image
from tests.generation.endpoint import Endpoint, Handler, echo, piece, wait_until_gone, whole

PICTURE = PilImage.linear_gradient("L").resize((6, 5)).convert("RGB")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, kind)
    return file.getvalue()


def questions(count: int) -> list[Conversation]:
    return [Conversation().ask(f"question {i}") for i in range(count)]


def ask_once(say: Callable[[Handler], None], *, retries: int = 0, timeout: float = 5.0) -> str:
    with Endpoint(say) as endpoint:
        return RemoteChat(endpoint.url, max_retries=retries, timeout=timeout).reply(questions(1))[0]


def test_answers_keep_the_order_asked_while_many_are_under_way() -> None:
    def later_first(handler: Handler) -> None:
        time.sleep(0.3 - 0.01 * int(handler.question.split()[1]))
        echo(handler)

    with Endpoint(later_first) as endpoint:
        model = RemoteChat(endpoint.url, concurrency=6)
        start = time.monotonic()
        assert model.reply(questions(24)) == [f"question {i}" for i in range(24)]
        assert time.monotonic() - start < 24 * 0.18 / 2
        assert endpoint.most_under_way == 6
        assert model.reply([]) == []


def test_a_conversation_arrives_as_it_was_written() -> None:
    conversation = (
        Conversation(system="Be brief.")
        .ask("What is it?", [PICTURE])
        .answer("A ramp.")
        .ask("And these?", [PICTURE, PICTURE])
        .answer("")
        ._with(Message("user", ("first", Image(PICTURE), "then", Image(PICTURE), "<image>")))
    )
    with Endpoint() as endpoint:
        assert RemoteChat(endpoint.url).reply([conversation]) == ["firstthen<image>"]
        (request,) = endpoint.requests
    messages = request.body["messages"]
    shape = [
        message["content"]
        if isinstance(message["content"], str)
        else [part.get("text", part["type"]) for part in message["content"]]
        for message in messages
    ]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert shape == [
        "Be brief.",
        ["image_url", "What is it?"],
        "A ramp.",
        ["image_url", "image_url", "And these?"],
        "",
        ["first", "image_url", "then", "image_url", "<image>"],
    ]


@pytest.mark.parametrize("system", [None, ""])
def test_no_system_text_and_an_empty_one_are_told_apart(system: str | None) -> None:
    with Endpoint() as endpoint:
        RemoteChat(endpoint.url).reply([Conversation(system=system).ask("Hello.")])
        messages = endpoint.requests[0].body["messages"]
    assert messages == [{"role": "system", "content": ""}] * (system == "") + [{"role": "user", "content": "Hello."}]


PNG, JPEG = encoded("PNG"), encoded("JPEG")


@pytest.mark.parametrize("form", ["path", "string", "bytes", "data URI", "slice"])
@pytest.mark.parametrize("data", [PNG, JPEG], ids=["png", "jpeg"])
def test_a_png_or_jpeg_arrives_byte_for_byte(tmp_path: Path, form: str, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "tar").write_bytes(b"before" + data + b"behind")
    source = {
        "path": tmp_path / "a",
        "string": str(tmp_path / "a"),
        "bytes": data,
        "data URI": f"data:image/x;base64,{base64.b64encode(data).decode()}",
        "slice": FileSlice(tmp_path / "tar", 6, len(data)),
    }[form]
    kind, sent = sent_image(source)
    assert sent == data and kind == ("image/png" if data is PNG else "image/jpeg")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "BMP", "TIFF", "PIL", "PIL with alpha"])
def test_all_else_arrives_as_a_png_of_the_same_pixels(form: str) -> None:
    transparent = PICTURE.copy()
    transparent.putalpha(9)
    source = {"PIL": PICTURE, "PIL with alpha": transparent}.get(form) or encoded(form)
    kind, sent = sent_image(source)
    assert kind == "image/png" and PilImage.open(io.BytesIO(sent)).format == "PNG"
    assert load_image(sent).tobytes() == load_image(source).tobytes()


def sent_image(source: object) -> tuple[str, bytes]:
    with Endpoint() as endpoint:
        RemoteChat(endpoint.url).reply([Conversation().ask("What?", [source])])
        url = endpoint.requests[0].body["messages"][0]["content"][0]["image_url"]["url"]
    header, _, body = url.partition(";base64,")
    return header.removeprefix("data:"), base64.b64decode(body)


@pytest.mark.parametrize(
    "source", ["gone.png", "http://example.com/a.png", b"<html>", PilImage.new("RGB", (10_001, 99))]
)
def test_an_image_that_cannot_be_opened_is_not_sent(source: object) -> None:
    with Endpoint() as endpoint:
        with pytest.raises(ImageError):
            RemoteChat(endpoint.url).reply([Conversation().ask("What?", [source])])
        assert not endpoint.requests


def test_sampling_arrives_and_what_openai_does_not_know_only_where_asked_for() -> None:
    some = Sampling(9, 0.5, 0.9, top_k=7, repetition_penalty=1.1, seed=3, stop=("\n", "END"))
    with Endpoint() as endpoint:
        model = RemoteChat(endpoint.url)
        model.reply(questions(1))
        model.reply(questions(1), some)
        list(model.stream(questions(1)[0], some))
        plain, asked, streamed = [request.body for request in endpoint.requests]
    words = plain.pop("messages")
    assert plain == {"model": "tiny", "max_tokens": 512, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    expected = {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["\n", "END"], "top_k": 7}
    assert asked == {"model": "tiny", "messages": words, **expected, "repetition_penalty": 1.1}
    assert streamed == {**asked, "stream": True}


def test_a_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handler: Handler) -> None:
        handler.send_error_of(401, "no such key")

    with Endpoint(refuse) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        models = [RemoteChat(endpoint.url), RemoteChat(endpoint.url, api_key="given")]
        monkeypatch.delenv("OPENAI_API_KEY")
        for model in [*models, RemoteChat(endpoint.url)]:
            with pytest.raises(
                GenerationError, match=r"401 Unauthorized: no such key; give the server's key"
            ) as caught:
                model.reply(questions(1))
            assert "given" not in str(caught.value) and "environment" not in f"{caught.value}{model.name}"
        sent = [request.headers["Authorization"] for request in endpoint.requests]
    assert sent == ["Bearer from-environment", "Bearer given", "Bearer none"]


# --- what a server may do wrong, and right again


def test_a_refused_request_is_sent_again_until_it_is_answered() -> None:
    def third_time(handler: Handler) -> None:
        if handler.attempt == 1:
            handler.send_error_of(429, "busy", Retry_After="0.01")
        elif handler.attempt == 2:
            handler.send_error_of(503, "still loading", Retry_After="0.01")
        else:
            echo(handler)

    with Endpoint(third_time) as endpoint:
        model = RemoteChat(endpoint.url, max_retries=2)
        assert model.reply(questions(5)) == [f"question {i}" for i in range(5)]
        assert set(endpoint.times.values()) == {3}
        assert "".join(model.stream(Conversation().ask("streamed"))) == "streamed"


def test_the_server_says_how_long_to_wait() -> None:
    def second_time(handler: Handler) -> None:
        if handler.attempt == 1:
            handler.send_error_of(429, "busy", Retry_After="1.2")
        else:
            echo(handler)

    start = time.monotonic()
    assert ask_once(second_time, retries=1) == "question 0"
    assert 1.2 <= time.monotonic() - start < 3  # without the server's word: from 0.4 to 0.5 seconds


def test_a_request_that_stays_refused_names_itself_and_is_counted() -> None:
    def all_but_two(handler: Handler) -> None:
        if handler.question == "question 2":
            handler.send_error_of(500, "out of\nmemory", retry_after_ms="1")
        else:
            echo(handler)

    with Endpoint(all_but_two) as endpoint:
        model = RemoteChat(endpoint.url, max_retries=3)
        told = (
            r"^conversations\[2\]: tiny at http://.*/v1: 500 Internal Server Error: out of memory; see the server's log"
        )
        with pytest.raises(GenerationError, match=told):
            model.reply(questions(4))
        assert endpoint.times["question 2"] == 4


def test_a_mistake_of_the_request_is_not_sent_again() -> None:
    with Endpoint(lambda handler: handler.send_error_of(400, "4096 tokens are too many")) as endpoint:
        with pytest.raises(GenerationError, match="400 Bad Request: 4096 tokens are too many"):
            RemoteChat(endpoint.url).reply(questions(1))
        assert len(endpoint.requests) == 1


def test_a_slow_server_is_given_up_in_time_and_asked_again() -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.6)
        echo(handler)

    with Endpoint(slow) as endpoint:
        start = time.monotonic()
        with pytest.raises(GenerationError, match=r"conversations\[0\]: .*: no answer in time"):
            RemoteChat(endpoint.url, timeout=0.2, max_retries=1).reply(questions(1))
        assert len(endpoint.requests) == 2 and time.monotonic() - start < 3


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(GenerationError, match=r"^x at http://127\.0\.0\.1:1/v1: .*check that the server runs"):
        list(RemoteChat("http://127.0.0.1:1", "x", max_retries=0).stream(questions(1)[0]))
    with pytest.raises(GenerationError, match=r"^http://127\.0\.0\.1:1/v1/models: the connection failed"):
        RemoteChat("http://127.0.0.1:1", max_retries=0)


def say_json(body: object) -> Callable[[Handler], None]:
    return lambda handler: handler.send_json(body)


def say_text(text: str, status: int = 200, kind: str = "text/html") -> Callable[[Handler], None]:
    return lambda handler: handler.send_text(text, status, kind)


def cut_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.cut()


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (say_json(whole(None)), "no words in the answer"),
        (say_json(whole(["words"])), "no words in the answer"),
        (say_json(whole(None, refusal="I can't help with that.")), "refuses to answer: I can't help with that."),
        (say_json(whole("So I", "content_filter")), "the answer ended with finish_reason 'content_filter'"),
        (say_json(whole(None, "tool_calls")), "the answer ended with finish_reason 'tool_calls'"),
        (say_json(whole("So I", None)), "the answer was cut off"),
        (say_json({"choices": []}), 'no answer in {"choices": \\[\\]}'),
        (say_json({"choices": None}), "no answer in"),
        (say_json({"choices": ["text"]}), "no answer in"),
        (say_json({"object": "error", "message": "odd"}), "no answer in .*odd"),
        (say_json([1, 2]), r"no answer in \[1, 2\]"),
        (say_json(None), "no answer in null"),
        (say_text('{"choices": [', kind="application/json"), r'no JSON but {"choices": \['),
        (say_text("<html>\n<b>Welcome</b>"), "no JSON but <html> <b>Welcome</b>; check the address, /v1 included"),
        (say_text("", kind="application/json"), "no JSON but"),
        (say_text(f"<html>{'x' * 5000}", 502), "502 Bad Gateway: <html>xxx.*xxx\\.\\.\\.; see the server's log"),
        (say_text("nothing here", 404), "404 Not Found: nothing here; check the address, /v1 included, and the model"),
        (say_text('{"detail": "Not Found"}', 404, "application/json"), '404 Not Found: {"detail": "Not Found"}'),
        (say_text("\x1b[2J\a no", 500), r"500 Internal Server Error: \[2J no; see"),
        (lambda handler: handler.cut(), "the connection failed"),
        (cut_body, "the connection failed"),
    ],
)
def test_a_bad_answer_is_an_error_that_names_it(say: Callable[[Handler], None], message: str) -> None:
    with pytest.raises(GenerationError, match=rf"^conversations\[0\]: tiny at http://[^ ]*/v1: {message}") as caught:
        ask_once(say)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("content", "finish"), [("", "stop"), ("cut at", "length"), ("", "length")])
def test_an_empty_answer_and_one_of_full_length_are_answers(content: str, finish: str) -> None:
    assert ask_once(say_json(whole(content, finish))) == content

    def stream(handler: Handler) -> None:
        handler.open_stream()
        for event in (piece(""), piece(content), piece(None, finish), "[DONE]"):
            handler.send_event(event)
        handler.end_stream()

    with Endpoint(stream) as endpoint:
        assert "".join(RemoteChat(endpoint.url).stream(questions(1)[0])) == content


# --- streams


def test_streamed_equals_whole_in_as_many_pieces_as_were_sent() -> None:
    with Endpoint() as endpoint:
        model = RemoteChat(endpoint.url)
        asked = Conversation().ask("日本 🦙 \n end ")
        assert list(model.stream(asked)) == list("日本 🦙 \n end ")
        assert model.reply([asked]) == ["日本 🦙 \n end "]


def events(*bodies: object, end: bool = True) -> Callable[[Handler], None]:
    def say(handler: Handler) -> None:
        handler.open_stream()
        for body in bodies:
            handler.send_event(body)
        if end:
            handler.end_stream()
        else:
            handler.cut()

    return say


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (events(piece("So"), end=False), "the connection failed"),
        (events(piece("So")), "the answer was cut off"),
        (events(piece("So"), "[DONE]"), "the answer was cut off"),
        (events(piece("So"), piece(None, "abort"), "[DONE]"), "the answer ended with finish_reason 'abort'"),
        (
            events(piece("So"), {"error": {"message": "out of memory", "code": 500}}),
            "out of memory; see the server's log",
        ),
        (events(piece("So"), '{"choices": ['), "broken JSON"),
        (events(piece("So"), [1]), r"no answer in \[1\]"),
        (events(piece("So"), "3"), "no answer in 3"),
        (events(piece("So"), {"choices": [3]}), "no answer in"),
        (events(piece("So"), {"choices": [{"delta": {"refusal": "No."}}]}), "refuses to answer: No."),
        (say_text("<html>"), "the answer was cut off"),
    ],
)
def test_a_stream_that_breaks_is_an_error_and_not_a_short_answer(say: Callable[[Handler], None], message: str) -> None:
    heard = []
    with Endpoint(say) as endpoint:
        with pytest.raises(GenerationError, match=rf"^tiny at http://[^ ]*/v1: {message}"):
            heard.extend(RemoteChat(endpoint.url, max_retries=0).stream(questions(1)[0]))
    assert heard in ([], ["So"])


def test_a_stream_that_stops_coming_is_given_up_in_time() -> None:
    def stall(handler: Handler) -> None:
        handler.open_stream()
        handler.send_event(piece("So"))
        time.sleep(1)

    with Endpoint(stall) as endpoint:
        with pytest.raises(GenerationError, match="no answer in time"):
            list(RemoteChat(endpoint.url, timeout=0.3, max_retries=0).stream(questions(1)[0]))


def test_a_reader_that_leaves_closes_the_connection() -> None:
    def endless(handler: Handler) -> None:
        handler.open_stream()
        for _ in range(500):
            handler.send_event(piece("word "))
            time.sleep(0.01)

    with Endpoint(endless) as endpoint:
        stream = RemoteChat(endpoint.url).stream(questions(1)[0])
        assert next(stream) == "word "
        assert not endpoint.gone.is_set()
        stream.close()
        assert endpoint.gone.wait(2)


def test_one_failure_gives_the_others_up_and_closes_their_connections() -> None:
    def one_fails(handler: Handler) -> None:
        if handler.question == "question 1":
            time.sleep(0.2)
            handler.send_error_of(400, "no")
        else:
            wait_until_gone(handler)

    before = threading.active_count()
    with Endpoint(one_fails) as endpoint:
        with pytest.raises(GenerationError, match=r"conversations\[1\]: .* no"):
            RemoteChat(endpoint.url, concurrency=3).reply(questions(9))
        assert endpoint.gone.wait(2)
        assert len(endpoint.requests) <= 4  # the place that came free may have been taken
    time.sleep(0.1)
    assert threading.active_count() <= before + 1


INTERRUPTED = """
import sys
from llava_lite.conversation.message import Conversation
from llava_lite.generation.remote import RemoteChat
model = RemoteChat(sys.argv[1])
try:
    model.reply([Conversation().ask(str(i)) for i in range(20)])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interruption_ends_all_that_is_under_way() -> None:
    with Endpoint(wait_until_gone) as endpoint:
        script = [sys.executable, "-c", INTERRUPTED, endpoint.url]
        with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while len(endpoint.requests) < 8:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=5)
        assert (out, error) == ("interrupted\n", "")
        assert endpoint.gone.wait(2)
        assert len(endpoint.requests) == 8


def test_a_notebook_with_a_loop_of_its_own_can_ask() -> None:
    import asyncio

    with Endpoint() as endpoint:

        async def cell() -> list[str]:
            return RemoteChat(endpoint.url).reply(questions(2))

        assert asyncio.run(cell()) == ["question 0", "question 1"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llava_lite.serve") is None, reason="no server yet")
def test_our_own_server_answers_as_the_checkpoint_does(llava_dir: Path, world: Path) -> None:
    pictures = sorted((world / "images").glob("*.png"))[:2]
    asked = [
        Conversation().ask("Hello."),
        Conversation().ask("Compare them.", pictures),
        Conversation().ask("What is it?", pictures[:1]).answer("A red circle.").ask("Are there two?", pictures[1:]),
    ]
    short = Sampling(max_new_tokens=10)
    expected = open_model(str(llava_dir)).reply(asked, short)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = "from llava_lite.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", script, "serve", str(llava_dir), "--port", str(port)]) as server:
        try:
            model = wait_for(lambda: open_model(f"http://127.0.0.1:{port}"), server)
            assert model.reply(asked, short) == expected
            assert ["".join(model.stream(conversation, short)) for conversation in asked] == expected
        finally:
            server.terminate()


def wait_for(open_it: Callable[[], ChatModel], server: subprocess.Popen) -> ChatModel:
    """Try until the server is there."""
    while True:
        try:
            return open_it()
        except GenerationError:
            assert server.poll() is None
            time.sleep(0.2)


# --- which model, and what it cannot


def test_the_only_model_of_an_endpoint_needs_no_name() -> None:
    with Endpoint() as endpoint:
        host = endpoint.url.removesuffix("/v1")
        for where in (endpoint.url, f"{endpoint.url}/", host, f"{host}/", f"{host}#other/model", f"{endpoint.url}#m"):
            model = open_model(where)
            name = where.partition("#")[2] or "tiny"
            assert model.name == f"{name} at {endpoint.url}"
            assert model.reply(questions(1)) == ["question 0"]
            assert endpoint.requests[-1].body["model"] == name


def test_what_is_no_address_is_opened_as_a_checkpoint(llava_dir: Path, tmp_path: Path) -> None:
    assert open_model(str(llava_dir)).name == str(llava_dir)
    with pytest.raises(CheckpointError, match="nothing"):
        open_model(str(tmp_path / "nothing"))


def test_how_a_checkpoint_is_held_and_what_it_forgets_is_no_matter_of_an_endpoint(llava_dir: Path) -> None:
    for wrong in ({"quantize": "4bit"}, {"drop_oldest": True}):
        with Endpoint() as endpoint, pytest.raises(GenerationError, match="an endpoint's server is told of them"):
            open_model(endpoint.url, **wrong)
    with pytest.raises(GenerationError, match="no quantize '3bit'; there are: 4bit, 8bit"):
        open_model(str(llava_dir), quantize="3bit")
    assert open_checkpoint(str(llava_dir), drop_oldest=True).drop_oldest


@pytest.mark.parametrize(("models", "told"), [(("a", "b/c"), "serves a, b/c"), ((), "serves none")])
def test_several_models_are_listed(models: tuple[str, ...], told: str) -> None:
    with Endpoint(models=models) as endpoint:
        with pytest.raises(GenerationError, match=rf"/v1/models: {told}; name one: {endpoint.url}#MODEL$"):
            RemoteChat(endpoint.url)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:8000", "localhost:8000: not an address; give http://HOST:PORT/v1"),
        ("ftp://host/v1", "not an address"),
        ("http://", "not an address"),
        ("http://host:port/v1", "not an address"),
        ("http://me:secret@[::1/v1", "not an address"),
        ("http://me:secret@host:8000/v1", "http://host: an endpoint's address has no user, password, query or #"),
        ("http://host:8000/v1?key=secret", "http://host: an endpoint's address has no user, password, query or #"),
    ],
)
def test_a_wrong_address_is_told_without_its_secrets(address: str, message: str) -> None:
    with pytest.raises(GenerationError, match=message) as caught:
        RemoteChat(address, "m")
    assert "secret" not in str(caught.value)


def test_options_out_of_range_are_named() -> None:
    for options in ({"timeout": 0}, {"max_retries": -1}, {"concurrency": 0}):
        with pytest.raises(GenerationError, match="out of range: timeout="):
            RemoteChat("http://127.0.0.1:1", "m", **options)


def test_scores_are_refused_with_the_way_to_have_them() -> None:
    with pytest.raises(GenerationError, match=r"does not tell how likely .*; open the checkpoint's folder instead"):
        RemoteChat("http://127.0.0.1:1", "m").score([Conversation().ask("a").answer("b")])
    with pytest.raises(GenerationError, match=r"open the checkpoint's folder instead"):
        RemoteChat("http://127.0.0.1:1", "m").score_options([])


def test_a_conversation_that_awaits_no_answer_is_refused() -> None:
    model = RemoteChat("http://127.0.0.1:1", "m")
    for ask in (lambda asked: model.reply([asked]), model.stream):
        with pytest.raises(ConversationError, match="ends with an answer"):
            ask(Conversation().ask("a").answer("b"))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(GenerationError, match=r"pip install 'llava-lite\[remote\]'"):
        RemoteChat("http://127.0.0.1:1", "m")


def test_asking_an_endpoint_imports_no_torch() -> None:
    script = (
        "import sys\nfrom llava_lite.generation.opening import open_model\nopen_model('http://127.0.0.1:1#m')\n"
        "sys.exit('imported: ' + ' '.join({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr.strip() == "imported:"
