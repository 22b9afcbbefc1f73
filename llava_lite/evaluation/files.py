"""What benchmarks and answers are read from and written to: JSON Lines, JSON, and pictures inside tables.

Whatever a file lacks is an EvaluationError that names the file, the line and the remedy.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

ID_FIELDS = ("question_id", "questionId", "id", "index", "pid", "image_id", "image")
TEXT_FIELDS = ("text", "prediction", "pred", "predict", "response", "caption", "answer")
"""`answer` comes last: results files hold the correct answer under that name, beside the model's response."""

Fields = Mapping[str, type | tuple[type, ...]]


class EvaluationError(ValueError):
    """An evaluation that cannot be trusted or cannot start: a missing file, a broken row, answers of another run."""


def read_rows(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """Read a JSON Lines file whose rows have at least `fields`, of these types.

    Raises EvaluationError that names file and line for what is not UTF-8, not a JSON object, or lacks a field.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):  # not splitlines: U+2028 stands in texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError, too
            raise EvaluationError(f"{path}, line {number}: not JSON ({error}); repair or download it anew") from None
        rows.append(check_row(row, fields, f"{path}, line {number}"))
    return rows


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises EvaluationError that names it where it is none, or not there."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}: not JSON ({error}); repair or download it anew") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that is one object. Raises EvaluationError where it is none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise EvaluationError(f"{path}: a list where an object is expected; is this the right file?")
    return content


def read_list(path: Path, fields: Fields) -> list[dict[str, Any]]:
    """Read a JSON file that is one list of rows, which have at least `fields`, of these types.

    Raises EvaluationError where it is none, and for the first row that is otherwise.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise EvaluationError(f"{path}: no list of questions; is this the right file?")
    return [check_row(row, fields, f"{path}, question {number}") for number, row in enumerate(content, start=1)]


def read_constant(path: Path, name: str) -> str:
    """Read the text that a Python file gives this name at its top level, without running it.

    Raises EvaluationError where the file is no Python or has no such text.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise EvaluationError(f"{path}: not Python ({error}); download it anew") from None
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Constant(value=str(text))) if found == name:
                return text
    raise EvaluationError(f"{path}: has no text named {name}; is this the right file?")


def check_row(row: Any, fields: Fields, where: str) -> dict[str, Any]:
    """Return the row. Raises EvaluationError where it is no object or lacks one of `fields`, of these types."""
    for field, kind in fields.items():
        if not isinstance(row, dict) or not isinstance(row.get(field), kind):
            names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            raise EvaluationError(f"{where}: needs {field!r} ({names}); is this the right file?")
    return row


def read_answer_texts(path: Path) -> list[tuple[int | str, str]]:
    """Read the answers in a file as (question id, text), wherever they were made.

    JSON Lines or a JSON list of objects, with the first of ID_FIELDS and of TEXT_FIELDS that an object has; or one JSON
    object {"id": "text"}. Raises EvaluationError for anything else.
    """
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file of answers")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # so it is JSON Lines, or broken, which `read_rows` tells with the line
        content = read_rows(path, {})
    if isinstance(content, dict) and not any(name in content for name in ID_FIELDS):
        rows: list[Any] = [{"id": id, "text": text} for id, text in content.items()]
    else:
        rows = content if isinstance(content, list) else [content]
    return [_answer(row, f"{path}, answer {number}") for number, row in enumerate(rows, start=1)]


def _answer(row: Any, where: str) -> tuple[int | str, str]:
    if not isinstance(row, dict):
        raise EvaluationError(f"{where}: not an object with an id and a text; is this the right file?")
    found = []
    for fields, kind in ((ID_FIELDS, (int, str)), (TEXT_FIELDS, (str,))):
        name = next((name for name in fields if name in row), None)
        if name is None or not isinstance(row[name], kind):
            raise EvaluationError(f"{where}: needs one of {', '.join(fields)}; is this the right file?")
        found.append(row[name])
    return found[0], found[1]


def open_for_more(path: Path) -> BinaryIO:
    """Open a JSON Lines file to append to it, alone; a line torn by a kill is cut off.

    Raises EvaluationError where another process has it open so; the lock goes when its process does.
    """
    file = path.open("a+b")
    try:
        _lock(file.fileno(), path)
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    except BaseException:
        file.close()
        raise
    return file


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that nobody ever reads half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    temporary.replace(path)


def _lock(file: int, path: Path) -> None:
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvaluationError(f"{path}: another process is answering into this file; wait for it") from None
