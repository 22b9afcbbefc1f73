"""GQA: every figure that the official script prints, from its own files."""

import json
import re
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Scores
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    load,
    mark_of,
    needs_reference,
    png,
    score,
    shade,
    unpack,
    write_json,
    write_parquet,
)

NAME = "testdev_balanced_questions.json"


def row(question: str, answer: str, structural: str, *, group: str | None = None, balanced: bool = True) -> dict:
    steps = [
        ("select", "dog (12)"),
        ("filter color", "red"),
        ("exist", "?"),
        ("query", "name"),
        ("choose name", "cat|dog"),
    ]
    return {
        "question": question,
        "answer": answer,
        "isBalanced": balanced,
        "imageId": "n161313",
        "types": {"structural": structural, "semantic": "attr", "detailed": "x"},
        "semantic": [
            {"operation": operation, "argument": argument, "dependencies": []} for operation, argument in steps
        ],
        "groups": {"global": group, "local": "l"},
    }


def write_gqa(folder: Path) -> Path:
    rows = {
        "201": row("Is the dog red?", "yes", "verify"),
        "202": row("What is red?", "dog", "query", group="animal"),
        "203": row("What is  that thing there?", "cat", "query", group="animal"),
        "204": row("What else?", "cat", "query", group="animal"),
    }
    write_json(folder / NAME, rows)
    return folder


@needs_reference
def test_the_official_scripts_whole_output_is_reproduced(tmp_path: Path) -> None:
    rows = REFERENCE / "rows"
    unpack(rows / "gqa_synth_questions.json.gz", tmp_path / "gqa" / "data" / NAME)
    benchmark = load("gqa")
    questions = benchmark.questions(tmp_path)
    answers = benchmark.read_answers(rows / "gqa_synth_predictions.json", questions)
    scores = benchmark.score(questions, answers)
    official = (rows / "gqa_synth_official_output.txt").read_text()
    figures = official[official.index("Binary:") :]
    unmeasured = "Validity: 0.00%\nPlausibility: 0.00%\n"  # printed where there is no file to measure them with
    assert unmeasured in figures
    assert as_printed(scores) == figures.replace(unmeasured, "")
    (path,) = benchmark.submit(questions, answers, tmp_path)
    assert json.loads(path.read_text()) == json.loads((rows / "gqa_synth_predictions.json").read_text())


def as_printed(scores: Scores) -> str:
    """Print figures as the official script does."""
    lines = [f"{name.capitalize()}: {100 * scores.figures[name]:.2f}%" for name in ("binary", "open", "accuracy")]
    lines.append(f"Distribution: {scores.figures['distribution']:.2f} (lower is better)")
    tables = {"structural type": scores.kinds}
    for title, start in (("semantic type", "semantic "), ("steps number", "steps "), ("words number", "words ")):
        tables[title] = {n.removeprefix(start): f for n, f in scores.groups.items() if n.startswith(start)}
    for title, table in tables.items():
        lines += ["", f"Accuracy / {title}:"]
        for name in sorted(table, key=lambda name: int(name) if name.isdigit() else name):
            lines.append(f"  {name}: {100 * table[name]['accuracy']:.2f}% ({table[name]['n']} questions)")
    return "\n".join(lines) + "\n"


def test_the_prompt_is_the_question_and_llavas_instruction(tmp_path: Path) -> None:
    (first, *_) = load("gqa").questions(write_gqa(tmp_path))
    assert asked(first)[0] == "Is the dog red?\nAnswer the question using a single word or phrase."
    assert load("gqa").max_new_tokens == 128


@pytest.mark.parametrize(
    ("text", "plain"),
    [("Dog.", "dog"), ("DOG...", "dog"), ("a dog", "a dog"), ("dog!", "dog!"), ("dog. ", "dog. "), ("", None)],
)
def test_only_trailing_periods_and_case_are_taken_off_an_answer(tmp_path: Path, text: str, plain: str | None) -> None:
    (first, *_) = load("gqa").questions(write_gqa(tmp_path))
    assert mark_of(load("gqa"), first, text).parsed == plain


def test_binary_and_open_questions_and_each_type_have_their_figures(tmp_path: Path) -> None:
    benchmark = load("gqa")
    scores = score(benchmark, benchmark.questions(write_gqa(tmp_path)), ["Yes.", "Dog", "dogs", "horse"])
    assert {name: scores.figures[name] for name in ("accuracy", "binary", "open")} == {
        "accuracy": 0.5, "binary": 1.0, "open": pytest.approx(1 / 3)
    }  # fmt: skip
    assert next(iter(scores.figures)) == "accuracy"
    assert scores.kinds == {"verify": {"accuracy": 1.0, "n": 1}, "query": {"accuracy": pytest.approx(1 / 3), "n": 3}}
    assert scores.groups["semantic attr"] == scores.groups["steps 2"] == {"accuracy": 0.5, "n": 4}
    assert scores.groups["words 5"] == {"accuracy": 0.0, "n": 1}


def test_distribution_compares_all_answers_of_a_group_with_all_correct_ones(tmp_path: Path) -> None:
    correct = [("dog", "animal"), ("cat", "animal"), ("cat", "animal"), ("red", "color"), ("yes", None)]
    rows = {str(i): row("?", answer, "query", group=group) for i, (answer, group) in enumerate(correct)}
    write_json(tmp_path / NAME, rows)
    benchmark = load("gqa")
    questions = benchmark.questions(tmp_path)
    swapped = score(benchmark, questions, ["cat", "dog", "Cat.", "red", "no"])  # each as often as it is correct
    assert (swapped.figures["accuracy"], swapped.figures["distribution"]) == (0.4, 0)
    # animals: dog (2 - 1)^2 / 1, cat (0 - 2)^2 / 2, weighted by 3; colors: red (0 - 1)^2 / 1, weighted by 1
    other = score(benchmark, questions, ["dog", "dog", "horse", "blue", "yes"])
    assert other.figures["distribution"] == pytest.approx((3 * 3 + 1 * 1) / 4 / 100)


def test_questions_that_are_not_balanced_count_for_nothing(tmp_path: Path) -> None:
    rows = {"1": row("Red?", "yes", "verify"), "2": row("Blue?", "yes", "verify", balanced=False)}
    write_json(tmp_path / NAME, rows)
    benchmark = load("gqa")
    scores = score(benchmark, benchmark.questions(tmp_path), ["yes", "no"])
    assert (scores.figures["accuracy"], scores.kinds["verify"]["n"]) == (1.0, 1)


def test_a_partial_run_is_marked(tmp_path: Path) -> None:
    benchmark = load("gqa")
    scores = benchmark.score(benchmark.questions(write_gqa(tmp_path)), [Answer("201", "yes")])
    assert (scores.n, scores.total, scores.complete) == (1, 4, False)
    assert load("gqa").score(benchmark.questions(tmp_path), []).figures == {}


def test_answers_go_where_the_official_script_reads_them(tmp_path: Path) -> None:
    benchmark = load("gqa")
    questions = benchmark.questions(write_gqa(tmp_path))
    (path,) = benchmark.submit(questions, [Answer("201", "Yes.")], tmp_path / "submission")
    assert path.name == "testdev_balanced_predictions.json"
    assert json.loads(path.read_text()) == [{"questionId": "201", "prediction": "yes"}]
    assert benchmark.read_answers(path, questions) == [Answer("201", "yes")]


def test_parquet_gives_the_same_questions(tmp_path: Path) -> None:
    official = load("gqa").questions(write_gqa(tmp_path / "official"))
    rows = json.loads((tmp_path / "official" / NAME).read_text())
    folder = tmp_path / "GQA"
    write_parquet(
        folder / "testdev_balanced_instructions" / "testdev-00000-of-00001.parquet",
        [{"id": id, **row} for id, row in rows.items()],
    )
    with pytest.raises(EvaluationError, match="has no testdev_balanced_images beside it"):
        load("gqa").questions(tmp_path)
    images = folder / "testdev_balanced_images" / "testdev-00000-of-00001.parquet"
    write_parquet(images, [{"id": "n1", "image": png(9)}, {"id": "n161313", "image": png(70)}])
    questions = load("gqa").questions(tmp_path)
    assert [(q.id, asked(q)[0], q.correct, q.kind, q.groups, dict(q.row)) for q in questions] == [
        (q.id, asked(q)[0], q.correct, q.kind, q.groups, dict(q.row)) for q in official
    ]
    assert set([shade(question.conversation.images[0].source) for question in questions]) == {70}
    write_parquet(images, [{"id": "n1", "image": png(9)}])
    with pytest.raises(EvaluationError, match=r"1 images are missing \(n161313"):
        load("gqa").questions(tmp_path)


@pytest.mark.parametrize("layout", ["gqa/data", "gqa", "."])
def test_files_lie_where_llava_has_them_or_beside_each_other(tmp_path: Path, layout: str) -> None:
    write_gqa(tmp_path / layout)
    images = tmp_path / layout / "images"
    images.mkdir()
    (first, *_) = load("gqa").questions(tmp_path)
    assert first.conversation.images[0].source == images / "n161313.jpg"


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"testdev_balanced_questions.json or .* is missing; get it from gqadataset"
    ):
        load("gqa").questions(tmp_path)
    rows = json.loads((write_gqa(tmp_path) / NAME).read_text())
    del rows["202"]["answer"]
    write_json(tmp_path / NAME, rows)
    with pytest.raises(EvaluationError, match=re.escape("question 202: needs 'answer' (str)")):
        load("gqa").questions(tmp_path)
    write_json(tmp_path / NAME, [])
    with pytest.raises(EvaluationError, match="a list where an object is expected"):
        load("gqa").questions(tmp_path)
