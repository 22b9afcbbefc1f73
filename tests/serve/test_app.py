"""OpenAI's own client against a real server and model: answers, streams, images, models, keys, metrics, the page."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.batching import Batcher
from llava_lite.generation.chat_model import Sampling
from llava_lite.serve.config import ServerConfig
from tests.serve.running import Address, question, running

LENGTH = 24


def messages(conversation: Conversation, uris: dict[object, str]) -> list[dict[str, object]]:
    """Write a conversation as a client does; uris: of its images."""
    system = [{"role": "system", "content": conversation.system}] if conversation.system is not None else []
    return [*system, *({"role": m.role, "content": content(m, uris)} for m in conversation.messages)]


def content(message: Message, uris: dict[object, str]) -> str | list[dict[str, object]]:
    if not message.images:
        return message.text
    return [
        {"type": "image_url", "image_url": {"url": uris[part.source]}}
        if isinstance(part, Image)
        else {"type": "text", "text": part}
        for part in message.content
    ]


@pytest.fixture
def conversations(pictures: list[Path]) -> list[Conversation]:
    a, b = pictures[:2]
    return [
        Conversation().ask("Hello."),
        Conversation(system="Be brief.").ask("What color is it?", [a]),
        Conversation().ask("Compare them.", [a, b]),
        Conversation().ask("What is it?", [b]).answer("A red circle.").ask("And this?", [a]),
        Conversation().ask("Does <image> or </s> or ASSISTANT: mean anything?"),
    ]


@pytest.fixture
def expected(assistant: Assistant, conversations: list[Conversation]) -> list[str]:
    answers = [assistant.reply([c], Sampling(max_new_tokens=LENGTH))[0] for c in conversations]
    assert len(set(answers)) == len(answers)
    return answers


@pytest.fixture
def asked(conversations: list[Conversation], pictures: list[Path], uris: list[str]) -> list[list[dict[str, object]]]:
    known: dict[object, str] = dict(zip(pictures, uris, strict=True))
    return [messages(conversation, known) for conversation in conversations]


def test_an_answer_is_what_the_assistant_says(client: openai.OpenAI, asked: list, expected: list[str]) -> None:
    for turns, answer in zip(asked, expected, strict=True):
        whole = client.chat.completions.create(model="tiny", messages=turns, max_tokens=LENGTH)
        assert whole.choices[0].message.content == answer
        assert whole.choices[0].message.role == "assistant"
        assert whole.object == "chat.completion"


def test_a_stream_is_the_same_in_pieces(client: openai.OpenAI, asked: list, expected: list[str]) -> None:
    for turns, answer in zip(asked, expected, strict=True):
        stream = client.chat.completions.create(
            model="tiny",
            messages=turns,
            max_tokens=LENGTH,
            stream=True,
            stream_options={"include_usage": True},
        )
        *chunks, last, usage = list(stream)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
        assert len(chunks) > 2
        assert all(chunk.choices[0].finish_reason is None and chunk.usage is None for chunk in chunks)
        assert last.choices[0].finish_reason in ("stop", "length")
        assert usage.choices == []
        assert len({chunk.id for chunk in [*chunks, last, usage]}) == 1
        whole = client.chat.completions.create(model="tiny", messages=turns, max_tokens=LENGTH)
        assert usage.usage.total_tokens == whole.usage.total_tokens
        assert last.choices[0].finish_reason == whole.choices[0].finish_reason


def test_usage_counts_visual_tokens_and_every_token_of_the_answer(
    client: openai.OpenAI, assistant: Assistant, asked: list, conversations: list[Conversation]
) -> None:
    for turns, conversation in zip(asked, conversations, strict=True):
        whole = client.chat.completions.create(model="tiny", messages=turns, max_tokens=3)
        assert whole.usage.prompt_tokens == len(assistant.processor.encode(conversation).input_ids)
        assert whole.usage.completion_tokens == 3
        assert whole.choices[0].finish_reason == "length"


def test_many_ask_at_once_and_each_gets_its_own(server: Address, asked: list, expected: list[str]) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:

            async def ask(turns: list, stream: bool) -> str:
                given = {"model": "tiny", "messages": turns, "max_tokens": LENGTH}
                if not stream:
                    return (await client.chat.completions.create(**given)).choices[0].message.content
                chunks = await client.chat.completions.create(**given, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

            return await asyncio.gather(*[ask(turns, stream) for turns in asked for stream in (False, True)])

    assert asyncio.run(ask_all()) == [answer for answer in expected for _ in range(2)]


def test_stop_texts_and_seeds_are_honoured(client: openai.OpenAI, asked: list, expected: list[str]) -> None:
    stop = expected[0][8:11]
    cut = client.chat.completions.create(model="tiny", messages=asked[0], max_tokens=LENGTH, stop=[stop])
    assert cut.choices[0].message.content == expected[0][: expected[0].index(stop)]
    assert cut.choices[0].finish_reason == "stop"

    def draw(seed: int) -> str:
        given = {"model": "tiny", "messages": asked[0], "max_tokens": LENGTH, "temperature": 2.0, "seed": seed}
        return client.chat.completions.create(**given).choices[0].message.content

    assert draw(1) == draw(1) != draw(2)


def test_files_of_the_allowed_folder_are_read(client: openai.OpenAI, pictures: list[Path], uris: list[str]) -> None:
    answers = [
        client.chat.completions.create(
            model="tiny",
            max_tokens=LENGTH,
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}],
        )
        for url in (pictures[0].as_uri(), uris[0])
    ]
    assert answers[0].choices == answers[1].choices


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "llava_lite"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other/one'"):
        client.models.retrieve("other/one")


def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI, uris: list[str]) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(**{**question(), "model": "gpt-4o"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as image:
        create(**question(messages=user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])))
    assert (image.value.code, image.value.type) == ("invalid_image", "invalid_request_error")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as long:
            create(**question("word " * 5000, stream=stream))
        assert long.value.code == "context_length_exceeded"
        assert len([word for word in str(long.value).replace(",", " ").split() if word.isdecimal()]) >= 2


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_a_truncated_image_is_told(client: openai.OpenAI, uris: list[str]) -> None:
    cut = uris[0][: len(uris[0]) // 2 // 4 * 4 + 2]
    half = cut[: (len(cut) - len("data:image/png;base64,")) // 4 * 4 + len("data:image/png;base64,")]
    with pytest.raises(openai.BadRequestError, match="broken image") as caught:
        client.chat.completions.create(**question(messages=user([{"type": "image_url", "image_url": {"url": half}}])))
    assert caught.value.code == "invalid_image"


def test_the_key_is_asked_for_below_v1_alone(shared: Batcher, config: ServerConfig) -> None:
    with running(shared, replace(config, api_key="s3cret")) as server:
        with openai.OpenAI(base_url=server.url, api_key="s3cret", max_retries=0) as client:
            assert client.chat.completions.create(**question()).choices
        for key in ("s3cre", "s3cret2", "", "S3CRET"):
            with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
                with pytest.raises(openai.AuthenticationError) as caught:
                    client.with_options(default_headers={"Authorization": f"Bearer {key}".strip()}).models.list()
                assert caught.value.code == "invalid_api_key"
        assert server.send("GET", "/v1/models").status == 401
        assert server.send("GET", "/v1/models", authorization="Bearer \xe4").status == 401
        assert server.send("GET", "/v1/models", authorization="Basic s3cret").status == 401
        assert server.send("GET", "/v1/models", authorization="bearer s3cret").status == 200
        assert server.send("GET", "/health").status == 200
    assert "s3cret" not in repr(replace(config, api_key="s3cret"))


def test_health_and_metrics_tell_what_happens(shared: Batcher, config: ServerConfig, uris: list[str]) -> None:
    with running(shared, config) as server:
        image = {"type": "image_url", "image_url": {"url": uris[0]}}
        usage = server.post(question(messages=user([image, {"type": "text", "text": "What?"}]))).json["usage"]
        server.post(question(n=2))
        health = server.send("GET", "/health")
        assert (health.status, health.json["status"]) == (200, "ok")
        metrics = server.send("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    figures = dict(line.rsplit(" ", 1) for line in metrics.body.decode().splitlines() if not line.startswith("#"))
    assert float(figures['llava_lite_requests_total{outcome="refused"}']) == 1
    assert sum(float(figures[f'llava_lite_requests_total{{outcome="{end}"}}']) for end in ("stop", "length")) == 1
    assert float(figures["llava_lite_prompt_tokens_total"]) == usage["prompt_tokens"]
    assert float(figures["llava_lite_answer_tokens_total"]) == usage["completion_tokens"]
    assert float(figures["llava_lite_images_total"]) == 1
    assert float(figures["llava_lite_time_to_first_token_seconds_count"]) == 1
    assert {figures[f"llava_lite_{name}"] for name in ("answering", "waiting", "open_requests")} == {"0.0"}


def test_other_origins_may_ask_only_where_allowed(server: Address, shared: Batcher, config: ServerConfig) -> None:
    origin = {"origin": "https://page.example"}
    preflight = {**origin, "access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    assert "access-control-allow-origin" not in server.post(question(), **origin).headers
    assert server.send("OPTIONS", "/v1/chat/completions", **preflight).status == 405
    with running(shared, replace(config, allow_origins=(origin["origin"],), api_key="k")) as open_server:
        asked_before = open_server.send("OPTIONS", "/v1/chat/completions", **preflight)
        assert asked_before.status == 200
        assert asked_before.headers["access-control-allow-origin"] == origin["origin"]
        answer = open_server.post(question(), authorization="Bearer k", **origin)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin["origin"])
        refused = open_server.post(question(), authorization="Bearer k", origin="https://evil.example")
        assert "access-control-allow-origin" not in refused.headers


def test_no_page_of_documentation_loads_scripts_from_elsewhere(server: Address) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert server.send("GET", path).status == 404


def test_the_stream_is_what_servers_send(server: Address) -> None:
    reply = server.post(question(stream=True))
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, rest = reply.body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    parsed = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(chunk["object"] == "chat.completion.chunk" and "usage" not in chunk for chunk in parsed)
    assert reply.headers["x-request-id"] == parsed[0]["id"]
