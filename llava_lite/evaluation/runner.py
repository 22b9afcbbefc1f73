"""Ask benchmarks of one model, score the answers and write them down.

OUT/answers.jsonl            normal mode; answers.blind.jsonl and answers.shuffled.jsonl the others
OUT/answers.origin.json      what they are answers to
OUT/reviews.jsonl            what a judge said of them, where its benchmark has one; likewise for the other modes
OUT/review_requests.jsonl    in their place, what a judge is to be asked
OUT/marks.jsonl              what the scorer makes of each answer in normal mode
OUT/scores.json, report.html every mode answered so far
OUT/submission/              what the benchmark's test server takes, where there is one and all is answered
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from llava_lite import distributed
from llava_lite.evaluation.answers import answers_path, marks_path, open_answers, read_answers
from llava_lite.evaluation.benchmark import Benchmark, Question, Scores
from llava_lite.evaluation.comparison import marks_as_lines
from llava_lite.evaluation.files import EvaluationError, write_whole
from llava_lite.evaluation.judge import review
from llava_lite.evaluation.modes import Mode, in_mode
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.progress import progress
from llava_lite.evaluation.report import report
from llava_lite.evaluation.summary import Summary, summarise
from llava_lite.generation.chat_model import ChatModel, Sampling, ScoringModel


def run(
    benchmark: Benchmark,
    model: ChatModel,
    *,
    data: Path,
    out: Path,
    mode: Mode = "normal",
    limit: int | None = None,
    batch_size: int = 16,
    judge: ChatModel | None = None,
) -> Scores:
    """Ask the questions not yet answered in `out`, in one mode, and return that mode's scores.

    judge: reviews the answers where their benchmark has a judge; without one they are not scored
    Raises EvaluationError where `data` lacks a file or `out` holds answers of another model, prompts, data or decoding.
    """
    questions = read_questions(benchmark, data)
    origin = Origin.of(benchmark, questions, model)
    ask(benchmark, questions, model, replace(origin, mode=mode), out=out, limit=limit, batch_size=batch_size)
    review(benchmark, questions, judge, data=data, out=out, batch_size=batch_size)
    return publish(benchmark, questions, origin, out).scores[mode]


def read_questions(benchmark: Benchmark, data: Path) -> list[Question]:
    """Read a benchmark's questions.

    Raises EvaluationError where there are none, two of one id, or one about a picture outside `data`: names of pictures
    come from strangers.
    """
    questions = benchmark.questions(data)
    if not questions:
        raise EvaluationError(f"{benchmark.name}: no questions in {data}; is this the right folder?")
    seen = set()
    folder = os.path.join(os.path.abspath(data), "")
    for question in questions:
        if question.id in seen:
            raise EvaluationError(f"{benchmark.name}: two questions have the id {question.id!r}; repair the file")
        seen.add(question.id)
        for image in question.conversation.images:
            # as it is written: links in the folder may lead anywhere, for people made them
            if isinstance(image.source, Path) and not os.path.abspath(image.source).startswith(folder):
                where = f"question {question.id}: its image {image.source} lies outside {data}"
                raise EvaluationError(f"{benchmark.name}, {where}; repair the file, or give the folder around both")
    return questions


def ask(
    benchmark: Benchmark,
    questions: Sequence[Question],
    model: ChatModel,
    origin: Origin,
    *,
    out: Path,
    limit: int | None,
    batch_size: int,
    chooser: ScoringModel | None = None,
    shared: bool = False,
) -> None:
    """Ask, in the mode of `origin`, what is not yet answered in `out`.

    The longest questions come first, so that a batch too large for the memory fails at once.
    chooser: answers questions that offer options, with the letter that it holds the likeliest
    shared: all processes of the run do so together, each with its share of the questions and its own model
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise EvaluationError(f"batch size {batch_size}, limit {limit}: both start at 1")
    asked = in_mode(questions, origin.mode)[:limit]
    with open_answers(out, origin, shared=shared) as file:
        answered = {answer.question_id for answer in file.answers}
        due = sorted((q for q in asked if q.id not in answered), key=_length, reverse=True)
        num_answered = len(asked) - len(due)
        if shared:
            due = due[distributed.rank() :: distributed.world_size()]
        _check_images(benchmark, due)
        sampling = Sampling(max_new_tokens=benchmark.max_new_tokens)
        with progress(quiet=not distributed.is_main()) as bar:
            shown = f"{benchmark.name} {origin.mode}"
            task = bar.add_task(shown, total=num_answered + len(due), completed=num_answered)
            for batch, texts in _answered(model, chooser, due, batch_size, sampling):
                file.append(zip(batch, texts, strict=True))
                bar.advance(task, len(batch))


def publish(
    benchmark: Benchmark, questions: Sequence[Question], origin: Origin, out: Path, *, strict: bool = False
) -> Summary:
    """Score what stands in `out`, and write scores.json, report.html and the submission there.

    strict: beside the official figures, those of strict scoring.
    """
    summary = summarise(benchmark, questions, out, origin, strict=strict)
    answers = {mode: read_answers(path) for mode in summary.scores if (path := answers_path(out, mode)).exists()}
    for mode, own in summary.marks.items():
        write_whole(marks_path(out, mode), marks_as_lines(own))
    write_whole(out / "scores.json", json.dumps(summary.as_dict(), indent=1) + "\n")
    write_whole(out / "report.html", report(summary, questions, answers))
    if len(answers.get("normal", [])) == len(questions):
        benchmark.submit(questions, answers["normal"], out / "submission")
    return summary


def _answered(
    model: ChatModel, chooser: ScoringModel | None, questions: Sequence[Question], batch_size: int, sampling: Sampling
) -> Iterator[tuple[Sequence[Question], Sequence[str]]]:
    """Have questions answered, batch after batch; those to choose from options first, where there is a chooser."""
    generated = [question for question in questions if chooser is None or not question.options]
    if chooser is not None:
        batches = _batches([question for question in questions if question.options], batch_size)
        offered = ([(q.conversation, [ascii_uppercase[i] for i in range(len(q.options))]) for q in b] for b in batches)
        for batch, scores in zip(batches, chooser.score_options(offered), strict=True):
            yield batch, [ascii_uppercase[own.index(max(own))] for own in scores]
    batches = _batches(generated, batch_size)
    asked = ([question.conversation for question in batch] for batch in batches)
    for batch, texts in zip(batches, model.replies(asked, sampling), strict=True):
        yield batch, [text.strip() for text in texts]


def _batches(questions: Sequence[Question], size: int) -> list[Sequence[Question]]:
    return [questions[start : start + size] for start in range(0, len(questions), size)]


def _check_images(benchmark: Benchmark, questions: Sequence[Question]) -> None:
    for question in questions:
        for image in question.conversation.images:
            if isinstance(image.source, Path) and not image.source.is_file():
                where = f"question {question.id}: its image {image.source}"
                raise EvaluationError(f"{benchmark.name}, {where} is missing; get it from {benchmark.source}")


def _length(question: Question) -> tuple[int, int]:
    """What makes a prompt long: its images before its words."""
    conversation = question.conversation
    return len(conversation.images), sum(len(message.text) for message in conversation.messages)
