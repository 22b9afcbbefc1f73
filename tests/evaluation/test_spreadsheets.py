"""Tables as people open them: what cannot stand in them is told, and nothing is cut off."""

from pathlib import Path

import pytest

from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.spreadsheets import MAX_CELL, read_tsv, read_xlsx, write_xlsx


def test_a_workbook_reads_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"index": 3, "text": "=SUM(A1)"}, {"index": 4, "text": None}, {"index": 5, "text": "a\tb\nc 中"}]
    write_xlsx(tmp_path / "a.xlsx", ["index", "text"], rows)
    assert read_xlsx(tmp_path / "a.xlsx", ["text"]) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["a.xlsx"]


def test_a_text_longer_than_a_cell_is_refused_and_not_cut_off(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "a.xlsx", ["text"], [{"text": "x" * MAX_CELL}])
    assert len(read_xlsx(tmp_path / "a.xlsx", ["text"])[0]["text"]) == MAX_CELL
    with pytest.raises(EvaluationError, match=r"a.xlsx, row 2: text is longer than the 32767 letters of a cell"):
        write_xlsx(tmp_path / "a.xlsx", ["text"], [{"text": "x" * (MAX_CELL + 1)}])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"index\tprediction\n"])
def test_what_is_no_workbook_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.xlsx"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"a.xlsx: not a workbook"):
        read_xlsx(path, ["index"])
    with pytest.raises(EvaluationError, match=r"b.xlsx: not a workbook"):
        read_xlsx(tmp_path / "b.xlsx", ["index"])


def test_missing_columns_and_empty_sheets_are_named(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "a.xlsx", ["index", "text"], [])
    with pytest.raises(EvaluationError, match="no column prediction among index, text"):
        read_xlsx(tmp_path / "a.xlsx", ["index", "prediction"])
    write_xlsx(tmp_path / "empty.xlsx", [], [])
    with pytest.raises(EvaluationError, match=r"empty.xlsx: "):
        read_xlsx(tmp_path / "empty.xlsx", ["index"])


def test_a_tsv_is_text_with_quotes_and_none_where_pandas_sees_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('index\ttext\n01\t"a\nb ""c"""\n2\t\n3\tNA\n4\tnone\n')
    assert read_tsv(path, ["index", "text"]) == [
        {"index": "01", "text": 'a\nb "c"'},
        {"index": "2", "text": None},
        {"index": "3", "text": None},
        {"index": "4", "text": "none"},
    ]
