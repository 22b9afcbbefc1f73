"""What lmms-eval asks, read without it: messages, gen_kwargs, batches, and errors that say which document it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llava_lite.conversation.message import Conversation, ConversationError, Image
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import GenerationError, Sampling
from llava_lite.lmms_eval_plugin.request import (
    Request,
    RequestError,
    answer,
    read_conversation,
    read_sampling,
)
from tests.conftest import assemble_lively

SHORT = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def assistant(parts) -> Assistant:
    return Assistant(*assemble_lively(parts))


@pytest.fixture
def asked(world: Path) -> list[Conversation]:
    """Ragged, and not in the order of their lengths."""
    a, b = sorted((world / "images").glob("*.png"))[:2]
    return [
        Conversation().ask("Hello."),
        Conversation().ask("What color is the object at the top left?", [a]),
        Conversation().ask("Same?", [a, b]),
        Conversation().ask("What shape is it?", [b]),
        Conversation().ask("How many objects are there?", [a]),
    ]


def requests(asked: list[Conversation], samplings: list[Sampling]) -> list[Request]:
    return [
        Request(f"t, document {i}", len(conversation.messages[0].text), sampling, partial(lambda c: c, conversation))
        for i, (conversation, sampling) in enumerate(zip(asked, samplings, strict=True))
    ]


def nothing(_: int) -> None:
    pass


def test_answers_are_those_of_asking_alone_in_the_order_asked(assistant: Assistant, asked: list[Conversation]) -> None:
    samplings = [SHORT, SHORT, Sampling(max_new_tokens=3), SHORT, Sampling(max_new_tokens=8, temperature=2.0, seed=1)]
    alone = [assistant.reply([c], sampling)[0] for c, sampling in zip(asked, samplings, strict=True)]
    assert len(set(alone)) > 3
    for batch_size in (1, 2, 9):
        counts: list[int] = []
        assert answer(assistant, requests(asked, samplings), batch_size=batch_size, done=counts.append) == alone
        assert sum(counts) == len(asked) and max(counts) <= batch_size


def test_documents_are_opened_when_their_batch_is_due(assistant: Assistant, asked: list[Conversation]) -> None:
    events: list[object] = []

    def opening(i: int) -> Callable[[], Conversation]:
        return lambda: (events.append(f"open {i}"), asked[i])[1]

    lengths = [1, 9, 2, 7, 5]
    due = [Request("t", lengths[i], SHORT, opening(i)) for i in range(5)]
    answer(assistant, due, batch_size=2, done=events.append)
    assert events == ["open 1", "open 3", 2, "open 4", "open 2", 2, "open 0", 1]


def test_a_document_that_cannot_be_read_is_named(assistant: Assistant) -> None:
    messages = [{"role": "user", "content": [{"type": "video", "video": "clip.mp4"}]}]
    request = Request("t, document 7", 1, SHORT, lambda: read_conversation(messages))
    with pytest.raises(RequestError, match=r"^t, document 7: holds video; models here see texts and images alone$"):
        answer(assistant, [request], batch_size=4, done=nothing)


def test_a_batch_that_cannot_be_answered_is_named(assistant: Assistant, asked: list[Conversation]) -> None:
    bad = Conversation().ask("And this picture, which is not there?", [Path("no.png")])
    with pytest.raises(RequestError, match=r"^t, document 1; t, document 2: no\.png: cannot be read"):
        answer(assistant, requests([*asked[:2], bad], [SHORT] * 3), batch_size=2, done=nothing)


def test_messages_are_read_as_they_stand() -> None:
    a, b = object(), object()
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "image", "image": a}, {"type": "text", "text": "What is <image>?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "First: "},
                {"type": "image", "image": a},
                {"type": "text", "text": " second: "},
                {"type": "image", "image": b},
            ],
        },
    ]
    read = read_conversation(messages)
    assert read.system == "Be brief."
    assert [message.role for message in read.messages] == ["user", "assistant", "user"]
    assert read.messages[0].content == (Image(a), "What is <image>?")
    assert read.messages[2].content == ("First: ", Image(a), " second: ", Image(b))
    blind = read_conversation(messages, blind=True)
    assert blind.images == () and blind.messages[0].text == "What is <image>?" and blind.system == "Be brief."


def test_a_system_text_in_the_middle_is_refused() -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "Hello."}]}
    with pytest.raises(ConversationError, match="system"):
        read_conversation([turn, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}])


@pytest.mark.parametrize(
    ("gen_kwargs", "sampling"),
    [
        ({}, Sampling(max_new_tokens=1024)),
        # what lmms-eval makes of a task that says nothing, and of POPE's
        ({"until": ["\n\n"], "do_sample": False}, Sampling(max_new_tokens=1024)),
        (
            {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "num_beams": 1, "do_sample": False},
            Sampling(max_new_tokens=128),
        ),
        ({"temperature": 0, "top_p": 0, "image_aspect_ratio": "original"}, Sampling(max_new_tokens=1024)),
        ({"temperature": 0.7, "do_sample": False, "top_p": 0.9}, Sampling(max_new_tokens=1024)),
        ({"do_sample": True}, Sampling(max_new_tokens=1024)),
        (
            {"temperature": 0.7, "top_p": None, "top_k": 5, "seed": 3, "repetition_penalty": 1.2},
            Sampling(max_new_tokens=1024, temperature=0.7, top_k=5, seed=3, repetition_penalty=1.2),
        ),
        ({"until": ["ASSISTANT:", "\n\n", "Q:"]}, Sampling(max_new_tokens=1024, stop=("ASSISTANT:", "Q:"))),
        ({"until": "\n"}, Sampling(max_new_tokens=1024, stop=("\n",))),
        ({"until": None}, Sampling(max_new_tokens=1024)),
    ],
)
def test_gen_kwargs_say_how_an_answer_is_drawn(gen_kwargs: dict[str, Any], sampling: Sampling) -> None:
    assert read_sampling(gen_kwargs) == sampling


def test_what_is_asked_again_is_drawn_with_another_seed() -> None:
    seeds = [read_sampling({"temperature": 1.0, "seed": 5}, repetition=i).seed for i in range(3)]
    assert seeds == [5, 6, 7]


@pytest.mark.parametrize(
    ("gen_kwargs", "words"),
    [
        ({"stop_sequences": ["x"], "max_agentic_steps": 8}, "gen_kwargs max_agentic_steps, stop_sequences: not known"),
        ({"num_beams": 5}, "gen_kwargs num_beams: there is no beam search here"),
        ({"max_new_tokens": 0}, "out of range: max_new_tokens=0"),
    ],
)
def test_gen_kwargs_that_cannot_be_followed_are_refused(gen_kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(GenerationError, match=words):
        read_sampling(gen_kwargs)
