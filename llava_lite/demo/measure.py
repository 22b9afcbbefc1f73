"""What the demo taught: held-out questions of each kind, with and without eyes, POPE, and the caption loss."""

from __future__ import annotations

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation
from llava_lite.data.collate import collate
from llava_lite.data.mixture import Source, SourceConfig
from llava_lite.evaluation.answers import answers_path, read_answers
from llava_lite.evaluation.benchmark import Answer, Benchmark, Question, Scores
from llava_lite.evaluation.command import find_benchmark
from llava_lite.evaluation.modes import Mode
from llava_lite.evaluation.runner import read_questions, run
from llava_lite.generation.assistant import Assistant, load
from llava_lite.images.loading import load_image

BATCH_SIZE = 50
NUM_CAPTIONS = 64
NUM_CONVERSATIONS = 3


@dataclass(frozen=True)
class Turn:
    """One question of an example conversation, what was answered and what is correct."""

    question: str
    answer: str
    correct: str


@dataclass(frozen=True)
class Measured:
    """Everything measured. scores: by column of the report: aligned, finetuned, blind, shuffled."""

    scores: dict[str, Scores]
    pope: Scores
    caption_loss: dict[str, float]
    conversations: list[tuple[Path, list[Turn]]]
    questions: list[Question]
    answers: list[Answer]
    seconds: float


def measure(out: Path, *, fingerprint: str) -> Measured:
    """Evaluate `out`/align and `out`/finetune on the held-out scenes; answers of former weights are thrown away."""
    began = time.perf_counter()
    results = out / "eval"
    stamp = results / "fingerprint"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != fingerprint:
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        stamp.write_text(fingerprint, encoding="utf-8")
    data = out / "world"
    shapes, pope = (find_benchmark(name) for name in ("shapes", "pope"))
    aligned, finetuned = load(out / "align"), load(out / "finetune")

    def score(benchmark: Benchmark, model: Assistant, folder: str, mode: Mode = "normal") -> Scores:
        return run(benchmark, model, data=data, out=results / folder, mode=mode, batch_size=BATCH_SIZE)

    scores = {
        "aligned": score(shapes, aligned, "aligned"),
        "finetuned": score(shapes, finetuned, "finetuned"),
        "blind": score(shapes, finetuned, "finetuned", "blind"),
        "shuffled": score(shapes, finetuned, "finetuned", "shuffled"),
    }
    return Measured(
        scores=scores,
        pope=score(pope, finetuned, "pope"),
        caption_loss=caption_loss(aligned, data / "test_captions.json", data / "images"),
        conversations=converse(finetuned, read_questions(shapes, data)),
        questions=read_questions(shapes, data),
        answers=read_answers(answers_path(results / "finetuned", "normal")),
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def caption_loss(assistant: Assistant, path: Path, image_dir: Path) -> dict[str, float]:
    """Mean loss of held-out captions with their own image, and with the next caption's."""
    processor = assistant.processor.with_template(find_template("plain"))
    source = Source(SourceConfig(path=path, image_dir=image_dir))
    samples = [source.sample(number) for number in range(min(NUM_CAPTIONS, len(source.records)))]
    true = [processor.encode(sample.conversation) for sample in samples]
    shuffled = [
        replace(example, pixel_values=other.pixel_values)
        for example, other in zip(true, true[1:] + true[:1], strict=True)
    ]
    losses = {}
    for name, examples in (("true_image", true), ("shuffled_image", shuffled)):
        batch = collate(examples, num_patches=processor.num_patches, packed=True, tile_size=0)
        tensors = cast("dict[str, torch.Tensor]", batch)
        loss = assistant.model(**{key: value.to(assistant.model.device) for key, value in tensors.items()})
        losses[name] = float(loss.sum / loss.count)
    return losses


def converse(assistant: Assistant, questions: Sequence[Question]) -> list[tuple[Path, list[Turn]]]:
    """Hold a conversation of several turns about each of a few held-out images."""
    by_image: dict[Path, list[Question]] = defaultdict(list)
    for question in questions:
        by_image[Path(str(question.conversation.images[0].source))].append(question)
    chosen = sorted(by_image, key=lambda image: (-len({q.kind for q in by_image[image]}), image))
    conversations = []
    for image in chosen[:NUM_CONVERSATIONS]:
        conversation, turns = Conversation(), []
        for question in by_image[image][:4]:
            text = question.conversation.messages[0].text
            conversation = conversation.ask(text, [] if conversation.messages else [load_image(image)])
            answer = assistant.reply([conversation])[0]
            conversation = conversation.answer(answer or "...")
            turns.append(Turn(text, answer, " ".join(question.correct)))
        conversations.append((image, turns))
    return conversations


def as_json(measured: Measured) -> dict[str, object]:
    """The figures, as report.json has them."""
    headline = {name: scores.figures["accuracy"] for name, scores in measured.scores.items()}
    kinds = {
        name: {kind: figures["accuracy"] for kind, figures in scores.kinds.items()}
        for name, scores in measured.scores.items()
    }
    return json.loads(
        json.dumps(
            {
                "accuracy": headline,
                "by_kind": kinds,
                "pope_f1": measured.pope.figures["f1"],
                "caption_loss": measured.caption_loss,
            }
        )
    )
