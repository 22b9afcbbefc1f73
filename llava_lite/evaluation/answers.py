"""Answers on disk: one JSON line each, appended as they come, beside a file that says what they are answers to.

A killed run goes on where it stopped: a line torn by the kill is cut off, and its question is due again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from llava_lite.evaluation.benchmark import Answer, Question, join
from llava_lite.evaluation.files import EvaluationError, open_for_more, read_rows, write_whole
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import Origin


class AnswersFile:
    """The answers of one mode in the folder `out`, open for more; `answers` holds those found there.

    Raises EvaluationError where `out` holds answers of another origin, in any mode.
    """

    def __init__(self, out: Path, origin: Origin) -> None:
        check_origins(out, origin)
        out.mkdir(parents=True, exist_ok=True)
        path = answers_path(out, origin.mode)
        self._model_id = origin.model
        self._file = open_for_more(path)
        try:
            if not path.stat().st_size:
                write_whole(origin_path(path), json.dumps(asdict(origin), indent=1))
            self.answers = read_answers(path)
        except BaseException:
            self._file.close()
            raise

    def append(self, answered: Iterable[tuple[Question, str]]) -> None:
        """Write answers down at once, so that not even a kill loses them."""
        lines = "".join(_line(question, text, self._model_id) for question, text in answered)
        self._file.write(lines.encode("utf-8", errors="backslashreplace"))  # a lone surrogate as JSON escape
        self._file.flush()

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def answers_path(out: Path, mode: Mode) -> Path:
    return out / ("answers.jsonl" if mode == "normal" else f"answers.{mode}.jsonl")


def marks_path(out: Path, mode: Mode) -> Path:
    return out / ("marks.jsonl" if mode == "normal" else f"marks.{mode}.jsonl")


def origin_path(answers: Path) -> Path:
    return answers.with_suffix(".origin.json")


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers, ours or LLaVA's."""
    rows = read_rows(path, {"question_id": (int, str), "text": str})
    return [Answer(row["question_id"], row["text"]) for row in rows]


def write_foreign(out: Path, origin: Origin, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    """Write answers made elsewhere as if they were asked for here. Raises as `check_origins` and `join` do."""
    check_origins(out, origin)
    out.mkdir(parents=True, exist_ok=True)
    path = answers_path(out, origin.mode)
    lines = "".join(_line(question, text, origin.model) for question, text in join(questions, answers))
    write_whole(path, lines)
    write_whole(origin_path(path), json.dumps(asdict(origin), indent=1))


def check_origins(out: Path, origin: Origin) -> None:
    """Raise EvaluationError where `out` holds answers, of any mode, that are not of this origin but for the mode."""
    for mode in MODES:
        path = answers_path(out, mode)
        if not path.exists() or not path.stat().st_size:
            continue
        remedy = "remove it to ask anew, or choose another output folder"
        try:
            recorded = Origin(**json.loads(origin_path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise EvaluationError(f"{path}: nothing says what these are answers to; {remedy}") from None
        differences = recorded.differences(replace(origin, mode=mode))
        if differences:
            raise EvaluationError(f"{path} holds answers of another {', '.join(differences)}; {remedy}")


def _line(question: Question, text: str, model: str) -> str:
    prompt = question.conversation.messages[-1].text
    row = {"question_id": question.id, "prompt": prompt, "text": text, "model_id": model}
    return json.dumps(row, ensure_ascii=False) + "\n"
