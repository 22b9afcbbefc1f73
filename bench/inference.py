"""Tokens a second and the wait for the first one, side by side: this project, transformers' `generate`.

    export OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive
    python bench/inference.py                  # random weights on the CPU, a few minutes
    python bench/inference.py --model FOLDER   # a checkpoint that transformers opens; on the GPU if there is one

Both answer the same questions about the same pictures from the same folder, greedily, in the same dtype, from the file
to the text; whoever says something else stops the bench. They take turns, and each line tells the median of all rounds.

    one           a question about a picture, alone
    together      eight questions of different lengths about eight pictures, in one batch
    one by one    the same, one after the other
    next turn     another question about the picture of `one`
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_up import NUM_PIECES, vocabulary, write_model, write_pictures
from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor, LlavaForConditionalGeneration
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

import llava_lite
from llava_lite import Assistant, Conversation, Sampling, distributed

NUM_TOGETHER = 8
console = Console(width=110)


@dataclass(frozen=True)
class Turn:
    """What one contestant did. first: seconds until the first token, or piece of text; num_tiles: those that its tower
    has seen; num_tokens: those of the answers, where it tells.
    """

    texts: Sequence[str]
    seconds: float
    first: float
    num_tiles: int
    num_tokens: int = 0


class Ours:
    def __init__(self, folder: Path, num_tokens: int) -> None:
        self.assistant: Assistant = llava_lite.load(folder)
        self.sampling = Sampling(max_new_tokens=num_tokens)
        self.tower = Counter(self.assistant.model.vision_tower)

    def answer(self, talks: Sequence[Conversation]) -> Turn:
        """Answer all at once; one alone is streamed."""
        start, before = time.perf_counter(), self.tower.num_tiles
        if len(talks) > 1:
            texts = self.assistant.reply(talks, self.sampling)
            end = time.perf_counter()
            return Turn(texts, end - start, end - start, self.tower.num_tiles - before)
        pieces, first = [], 0.0
        for piece in self.assistant.stream(talks[0], self.sampling):
            first = first or time.perf_counter() - start
            pieces.append(piece)
        return Turn(["".join(pieces)], time.perf_counter() - start, first, self.tower.num_tiles - before)


class Theirs:
    """LlavaForConditionalGeneration and AutoProcessor, padded on the left."""

    def __init__(self, folder: Path, num_tokens: int) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=distributed.dtype())
        self.model: Any = model.to(distributed.device()).eval()
        self.num_tokens = num_tokens
        self.tower = Counter(self.model.model.vision_tower)

    def answer(self, talks: Sequence[Conversation]) -> Turn:
        start, before = time.perf_counter(), self.tower.num_tiles
        inputs = self.processor.apply_chat_template(
            [messages_of(talk) for talk in talks],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        ).to(self.model.device, self.model.dtype)
        watch = FirstToken() if len(talks) == 1 else None
        ids = self.model.generate(**inputs, max_new_tokens=self.num_tokens, streamer=watch)
        new = ids[:, inputs["input_ids"].shape[1] :]
        texts = [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]
        seconds = time.perf_counter() - start
        num_tokens = int((new != self.processor.tokenizer.pad_token_id).sum())
        first = watch.at - start if watch else seconds
        return Turn(texts, seconds, first, self.tower.num_tiles - before, num_tokens)


class Counter:
    """Counts the tiles that a vision tower sees."""

    def __init__(self, tower: torch.nn.Module | None) -> None:
        assert tower is not None
        self.num_tiles = 0
        tower.register_forward_hook(self._add, with_kwargs=True)

    def _add(self, module: object, args: tuple, kwargs: dict, output: object) -> None:
        self.num_tiles += len(args[0] if args else kwargs["pixel_values"])


class FirstToken(BaseStreamer):
    """Notes when the first token comes; what `generate` hands on before it is the prompt."""

    def __init__(self) -> None:
        self.num_seen = 0
        self.at = 0.0

    def put(self, value: torch.Tensor) -> None:
        self.num_seen += 1
        if self.num_seen == 2:
            self.at = time.perf_counter()

    def end(self) -> None:
        pass


def messages_of(talk: Conversation) -> list[dict]:
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "path": str(part.source)}
                for part in message.content
            ],
        }
        for message in talk.messages
    ]


def make_questions(folder: Path) -> list[Conversation]:
    generator = np.random.default_rng(0)
    write_pictures(folder, NUM_TOGETHER, (640, 480), generator)
    words = vocabulary()
    return [
        Conversation().ask(" ".join(generator.choice(words, size=5 + 5 * number)), [picture])
        for number, picture in enumerate(sorted(folder.glob("*.jpg")))
    ]


Story = Callable[[Callable[[Sequence[Conversation]], Turn]], list[Turn]]


def stories(talks: Sequence[Conversation]) -> dict[str, Story]:
    """What each contestant is asked; of several turns the last ones are measured."""

    def next_turn(answer: Callable[[Sequence[Conversation]], Turn]) -> list[Turn]:
        first = answer(talks[:1])
        return [answer([talks[0].answer(first.texts[0]).ask("And what is left of it?")])]

    return {
        "one": lambda answer: [answer(talks[:1])],
        "one by one": lambda answer: [answer([talk]) for talk in talks],
        "together": lambda answer: [answer(talks)],
        "next turn": next_turn,
    }


def compare(model_dir: Path, folder: Path, *, num_tokens: int, rounds: int) -> None:
    ours, theirs = Ours(model_dir, num_tokens), Theirs(model_dir, num_tokens)
    told: dict[str, list[tuple[list[Turn], list[Turn]]]] = {}
    for number in range(rounds + 1):  # the first warms up
        for name, story in stories(make_questions(folder)).items():
            forget(ours)
            pair = (story(ours.answer), story(theirs.answer))
            said = [[text for turn in turns for text in turn.texts] for turns in pair]
            if said[0] != said[1]:
                raise SystemExit(f"{name}: they do not say the same, nothing is reported:\n{said[0]}\n{said[1]}")
            if number:
                told.setdefault(name, []).append(pair)
    show(ours, told)


def forget(ours: Ours) -> None:
    """Let nothing of an earlier round be known; within one, turns may help each other."""
    ours.assistant = Assistant(ours.assistant.model, ours.assistant.processor)


def show(ours: Ours, told: dict[str, list[tuple[list[Turn], list[Turn]]]]) -> None:
    table = Table(
        title=f"{ours.assistant.model.device}, {ours.assistant.model.language_model.dtype}, both say the same"
    )
    for column in ("", "tokens/s", "generate", "ours : generate (rounds)", "first token", "generate", "tiles"):
        table.add_column(column, justify="left" if not column else "right")
    for name, pairs in told.items():
        seconds = [[sum(turn.seconds for turn in turns) for turns in pair] for pair in pairs]
        ratios = sorted(theirs / own for own, theirs in seconds)
        num = sum(turn.num_tokens for turn in pairs[0][1])  # of both: they say the same
        speed = [num / statistics.median(pair[i] for pair in seconds) for i in (0, 1)]
        first = [statistics.median(pair[i][0].first for pair in pairs) * 1000 for i in (0, 1)]
        tiles = [sum(turn.num_tiles for turn in turns) for turns in pairs[0]]
        table.add_row(
            name,
            *(f"{value:,.0f}" for value in speed),
            f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})",
            *(f"{value:,.0f} ms" if name != "together" else "" for value in first),
            f"{tiles[0]}, {tiles[1]}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a whole checkpoint, instead of random weights")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to see that it runs")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_dir = asked.model or write_model(
            folder,
            tile=56 if asked.tiny else 224,
            tower_size=32 if asked.tiny else 256,
            tower_layers=2 if asked.tiny else 8,
            hidden_size=64 if asked.tiny else 512,
            num_layers=1 if asked.tiny else 8,
            vocabulary=NUM_PIECES,
        )
        compare(model_dir, folder, num_tokens=asked.tokens, rounds=1 if asked.tiny else asked.rounds)


if __name__ == "__main__":
    main()
