"""Stopping an answer, and how fast it came."""

import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llava_lite.chat.screen import Screen
from llava_lite.chat.talk import Talk
from llava_lite.conversation.message import Conversation
from llava_lite.generation.chat_model import Sampling


class Interrupted:
    """A ChatModel that is interrupted so many times before each piece, as if Ctrl-C were pressed."""

    name = "interrupted"

    def __init__(self, *times: int) -> None:
        self.times = times
        self.closed = False

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        raise NotImplementedError

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        try:
            for number, times in enumerate(self.times):
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
                yield f"{number} "
        finally:
            self.closed = True


def talk(model: Interrupted, *, interactive: bool = True) -> Talk:
    return Talk(model, Screen(interactive=interactive, environ={}), sampling=Sampling(), verbose=True)


def test_a_stopped_answer_is_kept_as_far_as_it_came(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Interrupted(0, 1, 0)
    dialogue = talk(model)
    dialogue.attach([next((world / "images").glob("*.png"))])
    asked = Conversation().ask("What?", dialogue.images)
    dialogue.ask("What?")
    assert model.closed and dialogue.conversation == asked.answer("0 1 ") and dialogue.images == ()
    assert capsys.readouterr().out.endswith("stopped; what was said is kept\n")


def test_a_second_interruption_does_not_wait_for_the_model(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dialogue = talk(Interrupted(2, 0))
    dialogue.attach([next((world / "images").glob("*.png"))])
    dialogue.ask("What?")
    assert dialogue.conversation == Conversation() and len(dialogue.images) == 1
    assert capsys.readouterr().out.endswith("stopped; the question is not kept\n")
    later = talk(Interrupted(0, 2))
    later.ask("What?")
    assert later.conversation == Conversation().ask("What?").answer("0 ")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_ends_all_where_nobody_types() -> None:
    with pytest.raises(KeyboardInterrupt):
        talk(Interrupted(0, 1, 0), interactive=False).ask("What?")


def test_it_is_told_how_fast_an_answer_came(capsys: pytest.CaptureFixture[str]) -> None:
    for pieces in (3, 1, 0):
        talk(Interrupted(*[0] * pieces)).ask("What?")
    number = r"\d+\.\d\d s"
    told = [line for line in capsys.readouterr().out.splitlines() if "first" in line or "no text" in line]
    assert re.fullmatch(rf"first token after {number}, then \d+\.\d tokens/s; 3 in {number}", told[0])
    assert re.fullmatch(rf"first token after {number}; 1 in {number}", told[1])
    assert told[2] == "no text"
