"""A dialogue under way: what was said, which images wait for the next message, how answers are drawn.

A question is kept once it is answered. Where answering fails it is not, and its images go on waiting. Where the user
stops an answer, what was said of it until then is the answer.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType

from llava_lite.chat.preview import VIEW_SIZE
from llava_lite.chat.screen import Screen
from llava_lite.conversation.message import Conversation
from llava_lite.generation.chat_model import ChatModel, Sampling
from llava_lite.images.loading import load_image


class Talk:
    """The state of a chat, and what can be done with it. What goes wrong is raised and leaves it as it was."""

    def __init__(
        self, model: ChatModel, screen: Screen, *, sampling: Sampling, system: str | None = None, verbose: bool = False
    ) -> None:
        self.model = model
        self.screen = screen
        self.sampling = sampling
        self.verbose = verbose
        self.conversation = Conversation(system=system)
        self.images: tuple[Path, ...] = ()
        self.over = False

    def attach(self, paths: Sequence[Path]) -> None:
        """Let images wait for the next message: all of them or, where one cannot be opened, none. Raises ImageError."""
        views = []
        for path in paths:
            image = load_image(path)
            views.append((image, f"{path}, {image.width} x {image.height}"))
            image.thumbnail(VIEW_SIZE)  # large ones need not all be held
        for view in views:
            self.screen.picture(*view)
        self.images += tuple(paths)

    def ask(self, text: str) -> None:
        """Ask about the images that wait, print the answer as it comes, and keep both."""
        if self._answer(self.conversation.ask(text, self.images), self.sampling):
            self.images = ()

    def ask_again(self) -> bool:
        """Draw another answer to the last question, with the next seed; return whether there was one."""
        asked = replace(self.conversation, messages=self.conversation.messages[:-1])
        sampling = replace(self.sampling, seed=self.sampling.seed + 1)
        if asked.awaits_answer and self._answer(asked, sampling):
            self.sampling = sampling
        return asked.awaits_answer

    def take_back(self) -> str:
        """Drop the images that wait or, where none does, the last question and its answer; return what was dropped."""
        if self.images:
            self.images = ()
            return "the attached images"
        if not self.conversation.messages:
            return "nothing"
        self.conversation = replace(self.conversation, messages=self.conversation.messages[:-2])
        return "the last question and its answer"

    def start_anew(self) -> None:
        """Forget all but the system text."""
        self.conversation, self.images = Conversation(system=self.conversation.system), ()

    def _answer(self, asked: Conversation, sampling: Sampling) -> bool:
        """Print the answer as it comes and keep it; return False where the user stopped it before it began."""
        said: list[str] = []
        times = [time.perf_counter()]
        stop, ended = _Stop(), False
        try:
            with stop if self.screen.interactive else nullcontext():
                for piece in self.model.stream(asked, sampling):
                    times.append(time.perf_counter())
                    said.append(piece)
                    self.screen.piece(piece)
                    if stop.asked:
                        break
            ended = True
        except KeyboardInterrupt:
            if not self.screen.interactive:
                raise
            stop.asked = True
        finally:
            if said or ended or stop.asked:
                self.screen.piece("\n")
        if self.verbose:
            self.screen.note(_pace(times))
        if stop.asked:
            self.screen.note("stopped; what was said is kept" if said else "stopped; the question is not kept")
        if stop.asked and not said:
            return False
        self.conversation = asked.answer("".join(said))
        return True


class _Stop:
    """Within `with`, a first Ctrl-C asks to stop after the next piece, so that no model is torn out of its work.

    A second one interrupts at once: a model far away may never send another piece.
    """

    asked = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._ask)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _pace(times: Sequence[float]) -> str:
    """Tell how fast an answer came; times: when it was asked for, and of each piece, which is mostly one token."""
    count = len(times) - 1
    if not count:
        return "no text"
    rate = f", then {(count - 1) / (times[-1] - times[1]):.1f} tokens/s" if times[-1] > times[1] else ""
    return f"first token after {times[1] - times[0]:.2f} s{rate}; {count} in {times[-1] - times[0]:.2f} s"
