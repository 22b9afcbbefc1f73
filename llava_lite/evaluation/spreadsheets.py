"""Tables as MMBench has them: tab-separated text, and the workbooks that its server takes.

Workbooks need openpyxl, which is imported here only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from llava_lite.evaluation.files import EvaluationError

MAX_CELL = 32_767  # characters, which is Excel's limit; openpyxl cuts off without a word
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def read_tsv(path: Path, columns: Iterable[str]) -> list[dict[str, str | None]]:
    """Read a table that has at least `columns`, as pandas does, for what is none there is none for LLaVA:
    an empty field, NA, null, None and their like. Raises EvaluationError where it cannot be read."""
    import pandas

    try:
        table = pandas.read_csv(path, sep="\t", dtype=str)
    except ValueError as error:  # so are its ParserError and what is not UTF-8
        raise EvaluationError(f"{path}: cannot be read ({error}); download it anew") from None
    _check_columns(path, columns, list(table.columns))
    return table.astype(object).where(table.notna(), None).to_dict("records")


def read_xlsx(path: Path, columns: Iterable[str]) -> list[dict[str, Any]]:
    """Read the first sheet of a workbook, whose first row names at least `columns`.

    Raises EvaluationError where it cannot be read and where openpyxl is missing.
    """
    need_openpyxl()
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        names, *rows = book.worksheets[0].iter_rows(values_only=True)
    except (OSError, ValueError, KeyError, IndexError, BadZipFile, SyntaxError) as error:
        raise EvaluationError(f"{path}: not a workbook ({error}); save it as .xlsx again") from None
    _check_columns(path, columns, [str(name) for name in names])
    return [dict(zip(names, row, strict=False)) for row in rows]


def write_xlsx(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a workbook of one sheet. What XML cannot hold becomes U+FFFD, and no text becomes a formula.

    Raises EvaluationError for a text longer than a cell can be and where openpyxl is missing.
    """
    need_openpyxl()
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    for number, row in enumerate([dict(zip(columns, columns, strict=True)), *rows], start=1):
        for place, column in enumerate(columns, start=1):
            cell, value = sheet.cell(number, place), row[column]
            if isinstance(value, str) and len(value) > MAX_CELL:
                raise EvaluationError(f"{path}, row {number}: {column} is longer than the {MAX_CELL} letters of a cell")
            cell.value = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = "s"  # and not a formula, where it begins with =
    temporary = path.with_name(path.name + ".tmp")
    book.save(temporary)
    temporary.replace(path)


def need_openpyxl() -> None:
    """Raise EvaluationError where openpyxl is missing."""
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        raise EvaluationError("reading and writing .xlsx needs a package; pip install 'llava-lite[eval]'") from None


def _check_columns(path: Path, columns: Iterable[str], found: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise EvaluationError(f"{path}: no column {', '.join(missing)} among {', '.join(found)}; is it the right file?")
