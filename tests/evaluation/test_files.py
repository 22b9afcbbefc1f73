"""Answers made elsewhere: which fields of a row are its id and its text."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llava_lite.evaluation.files import EvaluationError, read_answer_texts, read_json, read_rows


@pytest.mark.parametrize("field", ["text", "prediction", "pred", "predict", "response", "caption"])
def test_what_a_model_said_is_never_mistaken_for_the_correct_answer_beside_it(tmp_path: Path, field: str) -> None:
    path = tmp_path / "output.json"
    path.write_text(json.dumps([{"id": "validation_Art_1", "answer": "C", field: "B"}]))
    assert read_answer_texts(path) == [("validation_Art_1", "B")]
    path.write_text(json.dumps([{"id": "validation_Art_1", "answer": "C"}]))  # a submission of DocVQA's or VQAv2's
    assert read_answer_texts(path) == [("validation_Art_1", "C")]


@pytest.mark.parametrize("read", [read_json, lambda path: read_rows(path, {}), read_answer_texts])
def test_json_too_deep_to_read_is_told(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(EvaluationError, match=r"deep.json.*: not JSON"):
        read(path)
