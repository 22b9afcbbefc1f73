"""Answers on disk: one JSON line each, appended as they come, beside a file that says what they are answers to.

A killed run goes on where it stopped: a line torn by the kill is cut off, and its question is due again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from llava_lite import distributed
from llava_lite.evaluation.benchmark import Answer, Question, join
from llava_lite.evaluation.files import EvaluationError, open_for_more, read_rows, write_whole
from llava_lite.evaluation.modes import MODES, Mode
from llava_lite.evaluation.origin import Origin

REMEDY = "remove it to ask anew, or choose another output folder"


class AnswersFile:
    """Answers so far, and a file that takes more."""

    def __init__(self, answers: list[Answer], file: BinaryIO, model_id: str) -> None:
        self.answers = answers
        self._file = file
        self._model_id = model_id

    def append(self, answered: Iterable[tuple[Question, str]]) -> None:
        """Write answers down at once, so that not even a kill loses them."""
        lines = "".join(_line(question, text, self._model_id) for question, text in answered)
        self._file.write(lines.encode("utf-8", errors="backslashreplace"))  # a lone surrogate as JSON escape
        self._file.flush()


@contextmanager
def open_answers(out: Path, origin: Origin, *, shared: bool = False) -> Iterator[AnswersFile]:
    """Open the answers of one mode in the folder `out` for more.

    shared: all processes of the run do so together. Each writes a file of its own, of which the main one makes one when
    all have closed theirs, or before the next run begins, on however many processes.
    Raises EvaluationError where `out` holds answers of another origin, in any mode.
    """
    path = answers_path(out, origin.mode)
    with ExitStack() as opened:
        if not shared or distributed.is_main():
            check_origins(out, origin)
            out.mkdir(parents=True, exist_ok=True)
            whole = opened.enter_context(open_for_more(path))
            _collect(whole, path)
            if not path.stat().st_size:
                write_whole(origin_path(path), json.dumps(asdict(origin), indent=1))
        if not shared:
            yield AnswersFile(read_answers(path), whole, origin.model)
            return
        distributed.wait()
        answers = read_answers(path)  # which nobody changes until all have answered
        with open_for_more(_part_path(path)) as part:
            yield AnswersFile(answers, part, origin.model)
        distributed.wait()
        if distributed.is_main():
            _collect(whole, path)


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
        held = [file for file in (path, *_parts(path)) if file.exists() and file.stat().st_size]
        if not held:
            continue
        recorded = read_origin(path)
        differences = recorded.differences(replace(origin, mode=mode))
        if differences:
            raise EvaluationError(f"{held[0]} holds answers of another {', '.join(differences)}; {REMEDY}")


def read_origin(path: Path) -> Origin:
    """Read what the answers in a file are answers to. Raises EvaluationError where nothing says it."""
    try:
        return Origin(**json.loads(origin_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise EvaluationError(f"{path}: nothing says what these are answers to; {REMEDY}") from None


def _line(question: Question, text: str, model: str) -> str:
    prompt = question.conversation.messages[-1].text
    row = {"question_id": question.id, "prompt": prompt, "text": text, "model_id": model}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _part_path(path: Path) -> Path:
    """Name the file of this process beside that of all."""
    return path.with_suffix(f".rank{distributed.rank()}of{distributed.world_size()}.jsonl")


def _parts(path: Path) -> list[Path]:
    """Find the files of processes beside that of all: of this run, or of one that was killed."""
    return sorted(path.parent.glob(f"{path.stem}.rank*of*.jsonl"))


def _collect(whole: BinaryIO, path: Path) -> None:
    """Move what processes have written to the file of all."""
    known = set(_lines(whole))
    for part in _parts(path):
        with open_for_more(part) as file:
            whole.writelines(line for line in _lines(file) if line not in known)  # else killed while moving them
        whole.flush()
        part.unlink()


def _lines(file: BinaryIO) -> list[bytes]:
    file.seek(0)
    return file.readlines()
