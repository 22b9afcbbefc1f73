"""The files of the RRC server's document tasks, DocVQA and InfographicVQA (rrc.cvc.uab.es, challenge 17).

One JSON file a split, {"data": [rows]}; its pictures lie in a folder beside it, and what is sent in names numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_lite.evaluation.benchmark import Answer
from llava_lite.evaluation.files import EvaluationError, Fields, check_row, read_json, write_whole


def read_split(path: Path, fields: Fields, image: str, folders: Sequence[str]) -> list[dict[str, Any]]:
    """Read a split's rows, which have at least `fields`; each gets its picture as a path, under "image".

    image:   the field that names the picture's file; folders before the name do not count, for downloads differ
    folders: what the folder of pictures may be called, beside the file or beside its folder; the last is the default
    """
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise EvaluationError(f"{path}: no list of questions under 'data'; is this the right file?")
    places = [folder / name for name in folders for folder in (path.parent, path.parent.parent)]
    pictures = next((place for place in places if place.is_dir()), places[-1])
    rows = []
    for number, row in enumerate(content["data"]):
        check_row(row, {**fields, image: str}, f"{path}, question {number}")
        rows.append({**row, "image": pictures / row[image].split("/")[-1]})
    return rows


def read_number(row: Mapping[str, Any]) -> int:
    """Return the number of a question, which some files write as text. Raises EvaluationError where it is none."""
    written = str(row["questionId"])
    if not written.isdecimal() or len(written) > 18:
        raise EvaluationError(
            f"question {written!r}: its questionId is no number, as the server needs it; see its file"
        )
    return int(written)


def write_submission(path: Path, answers: Sequence[Answer]) -> Path:
    """Write what the server takes: [{"questionId": 1, "answer": "..."}]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"questionId": answer.question_id, "answer": answer.text} for answer in answers]
    write_whole(path, json.dumps(rows))
    return path
