"""The command `llava-lite eval`, and each eval file as a command of its own: the same options, read in two ways.

Several benchmarks get OUT/NAME/ each; without OUT it is runs/eval/MODEL/NAME/.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llava_lite import distributed
from llava_lite.evaluation.answers import write_foreign
from llava_lite.evaluation.benchmark import Benchmark, Question
from llava_lite.evaluation.files import EvaluationError, read_json
from llava_lite.evaluation.judge import review
from llava_lite.evaluation.modes import MODES, Mode, in_mode, read_modes
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.page import Table
from llava_lite.evaluation.reviews import take_replies
from llava_lite.evaluation.runner import ask, publish, read_questions
from llava_lite.generation.chat_model import ChatModel, ScoringModel
from llava_lite.recipes import find

Load = Callable[[str], ScoringModel]


@dataclass(frozen=True)
class Request:
    """What is to be evaluated: a model, or answers made elsewhere.

    data:    may be left out where answers tell their questions
    model:   a checkpoint folder, a hub id or http://HOST:PORT[#NAME]
    answers: a file or folder of answers, to be scored without a model, or of a judge's reviews of answers
    judge:   spelled as `model`; it reviews the answers of benchmarks that need one
    strict:  score as official, and strictly beside it
    by_likelihood: choose among a question's options by how likely the model holds each letter
    """

    data: Path | None = None
    model: str | None = None
    answers: Path | None = None
    judge: str | None = None
    out: Path | None = None
    modes: Sequence[Mode] = ("normal",)
    limit: int | None = None
    batch_size: int = 16
    strict: bool = False
    by_likelihood: bool = False

    def __post_init__(self) -> None:
        """Raises EvaluationError for what does not go together."""
        if (self.model is None) == (self.answers is None):
            raise EvaluationError("give either --model, which is asked, or --answers, which are scored")
        asking = list(self.modes) != ["normal"] or self.limit is not None or self.by_likelihood
        if self.answers is not None and asking:
            raise EvaluationError(
                "--mode, --limit and --choices are for asking a model; --answers are scored as they are"
            )
        if self.data is None and self.answers is None:
            raise EvaluationError("give --data, the folder with the benchmark's files")


def evaluate(benchmarks: Sequence[Benchmark], request: Request, load: Load) -> dict[str, dict[str, Any]]:
    """Run benchmarks with one model load; print a table each, return the scores.json of each by its name.

    Of several processes each loads the model and answers its share; the main one scores, prints and returns. What a
    judge reviews, it reviews when all is answered.
    """
    if request.model is None and not distributed.is_main():
        return {}
    shared = request.model is not None and distributed.world_size() > 1
    asked = [_questions(benchmark, request) for benchmark in benchmarks]  # a missing file speaks before the load
    for benchmark, questions in zip(benchmarks, asked, strict=True):
        _check(benchmark, questions, request)
    _check_judge(benchmarks, asked, request)
    if shared:
        distributed.start(apart=True)
    model = load(request.model) if request.model is not None else None
    found = []
    for benchmark, questions in zip(benchmarks, asked, strict=True):
        out = _folder(request, benchmark, alone=len(benchmarks) == 1)
        answered = Answered(benchmark, questions, _answers(benchmark, questions, request, model, out, shared), out)
        if distributed.is_main():
            found.append(answered)
            if benchmark.judging(request.data) is None:
                answered.publish(request)
    if shared:
        distributed.stop()
    judge = None
    judged = [answered for answered in found if answered.benchmark.judging(request.data) is not None]
    if judged and request.judge is not None:
        judge = model if request.judge == request.model else load(request.judge)
    for answered in judged:
        answered.review(request, judge)
        answered.publish(request)
    return {answered.benchmark.name: read_json(answered.out / "scores.json") for answered in found}


@dataclass(frozen=True)
class Answered:
    """A benchmark's questions, and what the answers to them in the folder `out` are."""

    benchmark: Benchmark
    questions: Sequence[Question]
    origin: Origin
    out: Path

    def review(self, request: Request, judge: ChatModel | None) -> None:
        """Have the answers reviewed; without a judge the requests are written down."""
        review(self.benchmark, self.questions, judge, data=request.data, out=self.out, batch_size=request.batch_size)

    def publish(self, request: Request) -> None:
        """Score what stands in `out`, write it down and show it."""
        summary = publish(self.benchmark, self.questions, self.origin, self.out, strict=request.strict)
        print_table(summary.table())
        for line in [*summary.notes, f"{self.out / 'report.html'}"]:
            Console().print(Text(line))


def main(benchmark: type[Benchmark], load: Load) -> None:
    """Be the command line of one eval file."""
    parser = argparse.ArgumentParser(
        description=inspect.getdoc(inspect.getmodule(benchmark)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="checkpoint folder, hub id or http://HOST:PORT[#NAME]")
    parser.add_argument("--answers", type=Path, help="in its place: answers made elsewhere, to be scored")
    parser.add_argument("--judge", help="reviews the answers, where the benchmark needs one; spelled as --model")
    parser.add_argument("--data", type=Path, help="folder with the benchmark's files")
    parser.add_argument("--out", type=Path, help="folder for the results; default runs/eval/<model>/<benchmark>")
    if benchmark.variants:
        told = "; ".join(f"{name}: {words}" for name, words in benchmark.variants.items())
        parser.add_argument("--variant", default="", help=f"{told}; default the first")
    parser.add_argument("--mode", default="normal", help=f"one or more of {','.join(MODES)}")
    parser.add_argument("--limit", type=int, help="ask only the first so many questions: a partial result")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--scoring", choices=["official", "strict"], default="official", help="strict: both, compared")
    told = "likelihood: the likeliest of the letters that a question offers"
    parser.add_argument("--choices", choices=["generate", "likelihood"], default="generate", help=told)
    asked = vars(parser.parse_args())
    variant = asked.pop("variant", "")
    modes, strict = read_modes([asked.pop("mode")]), asked.pop("scoring") == "strict"
    by_likelihood = asked.pop("choices") == "likelihood"
    evaluate([benchmark(variant)], Request(**asked, modes=modes, strict=strict, by_likelihood=by_likelihood), load)


def find_benchmark(name: str) -> Benchmark:
    """Make the benchmark `pope`, or a variant as `mmbench-cn`. Raises RecipeError and EvaluationError."""
    title, _, variant = name.partition("-")
    return load_benchmark(find("eval", title), variant)


def load_benchmark(path: Path, variant: str = "") -> Benchmark:
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
    return found[0](variant)


def _answers(
    benchmark: Benchmark,
    questions: Sequence[Question],
    request: Request,
    model: ScoringModel | None,
    out: Path,
    shared: bool,
) -> Origin:
    """See to it that the answers stand in `out`, and say where they come from."""
    if model is None:
        return _answered_elsewhere(benchmark, questions, request, out)
    chooser = model if request.by_likelihood else None
    if chooser is not None:
        chooser.score_options([])  # one who cannot says so
    origin = Origin.of(benchmark, questions, model, by_likelihood=request.by_likelihood)
    for mode in request.modes:
        ask(
            benchmark,
            questions,
            model,
            replace(origin, mode=mode),
            out=out,
            limit=request.limit,
            batch_size=request.batch_size,
            chooser=chooser,
            shared=shared,
        )
    return origin


def _check(benchmark: Benchmark, questions: Sequence[Question], request: Request) -> None:
    """Raise EvaluationError for what a benchmark does not have, before anything is loaded."""
    for mode in request.modes:
        in_mode(questions, mode)  # says whether there is another image to shuffle in
    if request.strict and not benchmark.faults:
        raise EvaluationError(
            f"{benchmark.name}: no fault is known of its official scoring; leave out --scoring strict"
        )
    if request.by_likelihood and not any(question.options for question in questions):
        raise EvaluationError(
            f"{benchmark.name}: no question of it offers options to choose from; leave out --choices likelihood"
        )


def _questions(benchmark: Benchmark, request: Request) -> list[Question]:
    if request.data is not None:
        return read_questions(benchmark, request.data)
    assert request.answers is not None
    return benchmark.questions_in(request.answers)


def _check_judge(benchmarks: Sequence[Benchmark], asked: Sequence[Sequence[Question]], request: Request) -> None:
    """Raise EvaluationError where a judge is named in vain, or the words are missing that a judge is asked with."""
    found = [
        (benchmark.judging(request.data), questions) for benchmark, questions in zip(benchmarks, asked, strict=True)
    ]
    judged = [(judging, questions) for judging, questions in found if judging is not None]
    if request.judge is not None and not judged:
        raise EvaluationError(f"--judge: {', '.join(b.name for b in benchmarks)}: none of them needs a judge")
    if request.model is not None or request.judge is not None:
        for judging, questions in judged:
            for question in [question for question in questions if question.correct][:1]:
                judging.request(question, "", 0)


def _answered_elsewhere(benchmark: Benchmark, questions: Sequence[Question], request: Request, out: Path) -> Origin:
    """Put answers or reviews made elsewhere in their place, and say where they come from."""
    assert request.answers is not None
    judging = benchmark.judging(request.data)
    replies = judging.read_replies(request.answers) if judging is not None else []
    if judging is not None and replies:
        if request.judge is not None:
            raise EvaluationError(f"{request.answers} holds reviews, which need no judge; leave out --judge")
        return take_replies(benchmark, judging, questions, replies, request.answers.name, out)
    answers = benchmark.read_answers(request.answers, questions)
    if not answers:
        raise EvaluationError(f"{request.answers}: no answers in there; is this the right file?")
    origin = Origin.of_answers(benchmark, questions, request.answers.name, answers)
    write_foreign(out, origin, questions, answers)
    return origin


def results_dir(asked: str) -> Path:
    """Return where the results of a model, or of answers, go by default: below it one folder a benchmark."""
    words = [word for word in re.split(r"[/\\:#]+", asked) if word.strip(".")]
    return Path("runs/eval") / "-".join(words)


def _folder(request: Request, benchmark: Benchmark, *, alone: bool) -> Path:
    if request.out is None:
        return results_dir(str(request.model or request.answers)) / benchmark.name
    return request.out if alone else request.out / benchmark.name


def print_table(table: Table) -> None:
    """Show a table in the terminal."""
    shown = RichTable(title=Text(table.title), title_justify="left")
    for index, column in enumerate(table.columns):
        shown.add_column(Text(column), justify="right" if index else "left")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)
