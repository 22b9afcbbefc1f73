"""shapes: short answers are exact but for case and a period, descriptions earn the facts they state."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from llava_lite.demo.scene import describe, draw_scene, facts
from llava_lite.demo.world import score_description
from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.command import load_benchmark
from llava_lite.evaluation.files import EvaluationError

CHECKOUT = Path(__file__).parents[2]
EVAL_FILE = CHECKOUT / "eval" / "shapes.py"
FACTS = ["red circle at the top left", "blue square at the bottom left"]
ROWS = [
    {"question_id": 0, "image": "a.png", "text": "What color?", "answer": "red", "kind": "color"},
    {"question_id": 1, "image": "a.png", "text": "How many?", "answer": "two", "kind": "count"},
    {"question_id": 2, "image": "a.png", "text": "Describe it.", "answer": "...", "kind": "describe", "facts": FACTS},
]


@pytest.fixture
def shapes() -> Benchmark:
    return load_benchmark(EVAL_FILE)


def write_shapes(folder: Path, rows: list[dict]) -> Path:
    (folder / "shapes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def earn(shapes: Benchmark, folder: Path, question: int, text: str) -> float:
    scores = shapes.score(shapes.questions(write_shapes(folder, ROWS)), [Answer(question, text)])
    return scores.marks[question].credit


@pytest.mark.parametrize("text", ["red", "Red", " RED. ", "red.\n", "red ."])
def test_case_white_space_and_a_period_do_not_matter(shapes: Benchmark, tmp_path: Path, text: str) -> None:
    assert earn(shapes, tmp_path, 0, text) == 1


@pytest.mark.parametrize("text", ["", ".", "blue", "red circle", "it is red", "reddish", "red..", "red or blue"])
def test_any_other_answer_is_wrong(shapes: Benchmark, tmp_path: Path, text: str) -> None:
    assert earn(shapes, tmp_path, 0, text) == 0


@pytest.mark.parametrize(
    ("text", "credit"),
    [
        ("There is a red circle at the top left. There is a Blue Square at the bottom left.", 1.0),
        ("There is a red circle at the top left.", 0.5),
        ("A red circle at the top left. A green cross. A white cross. A red cross.", 0.25),
        ("A red circle at the top right.", 0.0),
        ("", 0.0),
    ],
)
def test_a_description_earns_its_true_facts(shapes: Benchmark, tmp_path: Path, text: str, credit: float) -> None:
    assert earn(shapes, tmp_path, 2, text) == credit


def test_descriptions_are_scored_as_the_demo_world_says(shapes: Benchmark, tmp_path: Path) -> None:
    generator = Random(0)
    scenes = [draw_scene(generator, generator.choice((2, 3, 4))) for _ in range(30)]
    rows = [{**ROWS[2], "question_id": i, "facts": facts(scene)} for i, scene in enumerate(scenes)]
    told = [describe(scene) for scene in scenes]
    said = [
        (own, own.upper(), f"{own} {other}", own.split(".")[0], other)[i % 5]
        for i, (own, other) in enumerate(zip(told, told[1:] + told[:1], strict=True))
    ]
    answers = [Answer(i, text) for i, text in enumerate(said)]
    scores = shapes.score(shapes.questions(write_shapes(tmp_path, rows)), answers)
    expected = [score_description(text, facts(scene)) for text, scene in zip(said, scenes, strict=True)]
    assert [mark.credit for mark in scores.marks.values()] == expected
    assert len(set(expected)) > 4


def test_accuracy_is_over_all_and_by_kind_and_says_what_is_missing(shapes: Benchmark, tmp_path: Path) -> None:
    questions = shapes.questions(write_shapes(tmp_path, ROWS))
    scores = shapes.score(questions, [Answer(1, "three"), Answer(0, "red")])
    assert scores.figures == {"accuracy": 0.5}
    assert scores.kinds == {"color": {"accuracy": 1.0, "n": 1}, "count": {"accuracy": 0.0, "n": 1}}
    assert not scores.complete


def test_a_question_is_one_turn_of_image_and_text(shapes: Benchmark, tmp_path: Path) -> None:
    (first, *_, last) = shapes.questions(write_shapes(tmp_path, ROWS))
    (message,) = first.conversation.messages
    assert (message.content[0].source, message.text) == (tmp_path / "images" / "a.png", "What color?")
    assert last.correct == tuple(FACTS)


def test_a_description_without_facts_is_refused(shapes: Benchmark, tmp_path: Path) -> None:
    write_shapes(tmp_path, [{key: value for key, value in ROWS[2].items() if key != "facts"}])
    with pytest.raises(EvaluationError, match="question 2 asks for a description without facts"):
        shapes.questions(tmp_path)


@pytest.mark.parametrize("name", ["shapes", "pope"])
def test_the_file_is_a_command_that_reports_mistakes(tmp_path: Path, name: str) -> None:
    """Missing data ends with code 2 and a line that says what is missing, before any model is loaded."""
    command = [sys.executable, str(CHECKOUT / "eval" / f"{name}.py"), "--model", "none", "--data", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{name}: {tmp_path}" in ran.stderr and "is missing; get it from" in ran.stderr
    assert "Traceback" not in ran.stderr and len(ran.stderr.splitlines()) <= 5
