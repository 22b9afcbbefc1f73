"""Ask benchmarks of one model, score the answers and write them down.

    OUT/answers.jsonl            normal mode; answers.blind.jsonl and answers.shuffled.jsonl the others
    OUT/answers.origin.json      what they are answers to
    OUT/scores.json, report.html every mode answered so far

Several benchmarks get OUT/<name>/ each; without OUT it is runs/eval/<model>/<name>/.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from llava_lite.evaluation.answers import AnswersFile, answers_path, read_answers, write_whole
from llava_lite.evaluation.benchmark import Benchmark, EvaluationError, Question, Scores
from llava_lite.evaluation.modes import MODES, Mode, in_mode, read_modes
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.page import Table
from llava_lite.evaluation.report import report
from llava_lite.evaluation.summary import Summary, summarise
from llava_lite.generation.chat_model import ChatModel, Sampling


def run(
    benchmark: Benchmark,
    model: ChatModel,
    *,
    data: Path,
    out: Path,
    mode: Mode = "normal",
    limit: int | None = None,
    batch_size: int = 16,
) -> Scores:
    """Ask the questions not yet answered in `out`, in one mode, and return that mode's scores.

    Raises EvaluationError where `data` lacks a file or `out` holds answers of another model, prompts, data or decoding.
    """
    questions = read_questions(benchmark, data)
    origin = Origin.of(benchmark, questions, model)
    ask(benchmark, questions, model, replace(origin, mode=mode), out=out, limit=limit, batch_size=batch_size)
    return publish(benchmark, questions, origin, out).scores[mode]


def evaluate_files(
    paths: list[Path],
    *,
    model: str,
    data: Path,
    out: Path | None,
    modes: Sequence[str] = ("normal",),
    limit: int | None = None,
    batch_size: int = 16,
    load: Callable[[str], ChatModel],
) -> dict[str, dict[str, Any]]:
    """Run the benchmarks of eval files with one model load; print a table each, return the scores.json of each."""
    benchmarks = [load_benchmark(path) for path in paths]
    return _evaluate(
        benchmarks, model=model, data=data, out=out, modes=modes, limit=limit, batch_size=batch_size, load=load
    )


def main(benchmark: type[Benchmark], load: Callable[[str], ChatModel]) -> None:
    """Be the command line of one eval file."""
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(inspect.getmodule(benchmark)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="checkpoint folder, hub id or http://HOST:PORT[#NAME]")
    parser.add_argument("--data", type=Path, required=True, help="folder with the benchmark's files")
    parser.add_argument("--out", type=Path, help="folder for the results; default runs/eval/<model>/<benchmark>")
    parser.add_argument("--mode", default="normal", help=f"one or more of {','.join(MODES)}")
    parser.add_argument("--limit", type=int, help="ask only the first so many questions: a partial result")
    parser.add_argument("--batch-size", type=int, default=16)
    asked = parser.parse_args()
    _evaluate(
        [benchmark()],
        model=asked.model,
        data=asked.data,
        out=asked.out,
        modes=[asked.mode],
        limit=asked.limit,
        batch_size=asked.batch_size,
        load=load,
    )


def load_benchmark(path: Path) -> Benchmark:
    """Import an eval file and make its one Benchmark."""
    spec = importlib.util.spec_from_file_location(f"eval_file_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise EvaluationError(f"{path}: not a Python file; give an eval file such as eval/pope.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass in there looks its module up
    spec.loader.exec_module(module)
    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == spec.name]
    found = [c for c in own if issubclass(c, Benchmark)]
    if len(found) != 1:
        raise EvaluationError(f"{path}: has {len(found)} Benchmark subclasses; an eval file has one")
    return found[0]()


def read_questions(benchmark: Benchmark, data: Path) -> list[Question]:
    """Read a benchmark's questions. Raises EvaluationError where there are none, or two of one id."""
    questions = benchmark.questions(data)
    if not questions:
        raise EvaluationError(f"{benchmark.name}: no questions in {data}; is this the right folder?")
    seen = set()
    for question in questions:
        if question.id in seen:
            raise EvaluationError(f"{benchmark.name}: two questions have the id {question.id!r}; repair the file")
        seen.add(question.id)
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
) -> None:
    """Ask, in the mode of `origin`, what is not yet answered in `out`.

    The longest questions come first, so that a batch too large for the memory fails at once.
    """
    if batch_size < 1 or (limit is not None and limit < 1):
        raise EvaluationError(f"batch size {batch_size}, limit {limit}: both start at 1")
    asked = in_mode(questions, origin.mode)[:limit]
    with AnswersFile(out, origin) as file:
        answered = {answer.question_id for answer in file.answers}
        due = sorted((q for q in asked if q.id not in answered), key=_length, reverse=True)
        _check_images(benchmark, due)
        sampling = Sampling(max_new_tokens=benchmark.max_new_tokens)
        with _progress() as progress:
            task = progress.add_task(
                f"{benchmark.name} {origin.mode}", total=len(asked), completed=len(asked) - len(due)
            )
            for start in range(0, len(due), batch_size):
                batch = due[start : start + batch_size]
                texts = model.reply([question.conversation for question in batch], sampling)
                file.append(zip(batch, (text.strip() for text in texts), strict=True))
                progress.advance(task, len(batch))


def publish(benchmark: Benchmark, questions: Sequence[Question], origin: Origin, out: Path) -> Summary:
    """Score what stands in `out` and write scores.json and report.html there."""
    summary = summarise(benchmark, questions, out, origin)
    answers = {mode: read_answers(answers_path(out, mode)) for mode in summary.scores}
    write_whole(out / "scores.json", json.dumps(summary.as_dict(), indent=1) + "\n")
    write_whole(out / "report.html", report(summary, questions, answers))
    return summary


def _evaluate(
    benchmarks: list[Benchmark],
    *,
    model: str,
    data: Path,
    out: Path | None,
    modes: Sequence[str],
    limit: int | None,
    batch_size: int,
    load: Callable[[str], ChatModel],
) -> dict[str, dict[str, Any]]:
    wanted = read_modes(modes)
    questions = [read_questions(benchmark, data) for benchmark in benchmarks]  # a missing file speaks before the load
    loaded = load(model)
    results = {}
    for benchmark, asked in zip(benchmarks, questions, strict=True):
        folder = _folder(out, model, benchmark, alone=len(benchmarks) == 1)
        origin = Origin.of(benchmark, asked, loaded)
        for mode in wanted:
            ask(benchmark, asked, loaded, replace(origin, mode=mode), out=folder, limit=limit, batch_size=batch_size)
        summary = publish(benchmark, asked, origin, folder)
        results[benchmark.name] = summary.as_dict()
        _print(summary.table(), folder)
    return results


def _folder(out: Path | None, model: str, benchmark: Benchmark, *, alone: bool) -> Path:
    if out is None:
        words = [word for word in re.split(r"[/\\:#]+", model) if word.strip(".")]
        return Path("runs/eval") / "-".join(words) / benchmark.name
    return out if alone else out / benchmark.name


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


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))


def _print(table: Table, folder: Path) -> None:
    console = Console()
    shown = RichTable(title=Text(table.title), title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(Text(column), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    console.print(shown)
    console.print(Text(f"{folder / 'report.html'}"))
