"""Questions a second of an evaluation, by how it asks, on one process.

    export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive           # the CPU's other cores open images
    python bench/evaluation.py                                 # random weights on the CPU, a few minutes
    python bench/evaluation.py --model runs/demo/finetune --data runs/demo/world       # what `llava-lite demo` leaves

The same questions about the same pictures, from the file to the line in answers.jsonl, through the evaluation's own
runner; whoever answers otherwise than one at a time does stops the bench. They take turns, and each line tells the
median of all rounds.

    one at a time   each question alone, its image opened when it is due
    batched         questions of like length together
    ahead           batched, and the images of the next batch are opened meanwhile: how `llava-lite eval` asks
    likelihood      the letter that is held likeliest, in one forward for a batch
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from made_up import NUM_PIECES, vocabulary, write_model, write_pictures
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

import llava_lite
from llava_lite import Assistant, Conversation
from llava_lite.evaluation.answers import answers_path, read_answers
from llava_lite.evaluation.benchmark import Benchmark, Question, QuestionId
from llava_lite.evaluation.command import find_benchmark
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.runner import ask
from llava_lite.generation.chat_model import ChatModel, Sampling, ScoringModel

console = Console(width=110)


class Plain(ChatModel):
    """An Assistant that does nothing ahead."""

    def __init__(self, assistant: Assistant) -> None:
        self.assistant = assistant

    @property
    def name(self) -> str:
        return self.assistant.name

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        return self.assistant.reply(conversations, sampling)

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        return self.assistant.stream(conversation, sampling)


@dataclass(frozen=True)
class Way:
    """How to ask. like: the way that has to give the same answers"""

    model: ChatModel
    batch_size: int
    like: str
    chooser: ScoringModel | None = None


def ways(assistant: Assistant, batch_size: int) -> dict[str, Way]:
    plain = Plain(assistant)
    return {
        "one at a time": Way(plain, 1, "one at a time"),
        "batched": Way(plain, batch_size, "one at a time"),
        "ahead": Way(assistant, batch_size, "one at a time"),
        "likelihood, one at a time": Way(plain, 1, "likelihood, one at a time", assistant),
        "likelihood": Way(plain, batch_size, "likelihood, one at a time", assistant),
    }


def write_questions(folder: Path, count: int) -> None:
    """Write made-up questions about made-up pictures, laid out as those of the demo's world."""
    generator, words = np.random.default_rng(0), vocabulary()
    (folder / "images").mkdir()
    write_pictures(folder / "images", min(count, 64), (640, 480), generator)
    with (folder / "shapes.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join(generator.choice(words, size=5 + number % 40))
            row = {"question_id": number, "image": f"{number % 64:012}.jpg", "text": text, "answer": "", "kind": ""}
            file.write(json.dumps(row) + "\n")


def compare(
    benchmark: Benchmark, questions: Sequence[Question], assistant: Assistant, *, batch_size: int, rounds: int
) -> None:
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds + 1):  # the first warms up
            said: dict[str, dict[QuestionId, str]] = {}
            for way_name, way in ways(assistant, batch_size).items():
                out = Path(name) / str(number) / way_name
                origin = Origin.of(benchmark, questions, assistant, by_likelihood=way.chooser is not None)
                how = {"out": out, "limit": None, "batch_size": way.batch_size, "chooser": way.chooser}
                start = time.perf_counter()
                ask(benchmark, questions, way.model, origin, **how)
                if number:
                    seconds.setdefault(way_name, []).append(time.perf_counter() - start)
                answers = read_answers(answers_path(out, "normal"))
                said[way_name] = {answer.question_id: answer.text for answer in answers}
                if said[way_name] != said[way.like]:
                    raise SystemExit(f"{way_name} answers otherwise than {way.like}; nothing is reported")
    show(assistant, questions, seconds)


def show(assistant: Assistant, questions: Sequence[Question], seconds: Mapping[str, Sequence[float]]) -> None:
    model = assistant.model
    table = Table(title=f"{len(questions)} questions, {model.device}, {model.language_model.dtype}, the same answers")
    for column in ("", "questions/s", "to one at a time (rounds)"):
        table.add_column(column, justify="right" if column else "left")
    for name, own in seconds.items():
        ratios = sorted(one / mine for one, mine in zip(seconds["one at a time"], own, strict=True))
        told = f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        table.add_row(name, f"{len(questions) / statistics.median(own):,.1f}", told)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a whole checkpoint, instead of random weights")
    parser.add_argument("--data", type=Path, help="the demo's world, instead of made-up questions")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer, at most")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to see that it runs")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_dir = asked.model or write_model(
            folder,
            tile=56 if asked.tiny else 224,
            tower_size=32 if asked.tiny else 128,
            tower_layers=2 if asked.tiny else 4,
            hidden_size=64 if asked.tiny else 256,
            num_layers=1 if asked.tiny else 4,
            vocabulary=NUM_PIECES,
        )
        if asked.data is None:
            write_questions(folder, asked.questions)
        benchmark = find_benchmark("shapes")
        benchmark.max_new_tokens = asked.tokens
        questions = benchmark.questions(asked.data or folder)[: asked.questions]
        offered = [replace(question, options=("a", "b", "c", "d")) for question in questions]
        rounds = 1 if asked.tiny else asked.rounds
        compare(benchmark, offered, llava_lite.load(model_dir), batch_size=asked.batch_size, rounds=rounds)


if __name__ == "__main__":
    main()
