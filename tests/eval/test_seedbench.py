"""SEED-Bench: LLaVA's equality with the letter, images and videos apart, and one frame of a video."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval.benchmark_files import (
    asked,
    load,
    mark_of,
    png,
    shade,
    write_json,
    write_lines,
    write_parquet,
    write_png,
)

SUFFIX = "\nAnswer with the option's letter from the given choices directly."
OPTIONS = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four"}
ROWS: list[dict[str, Any]] = [
    {"question_id": "101669", "question_type_id": 5, "data_type": "image", "question": "How many?", "answer": "A"},
    {"question_id": "v7", "question_type_id": 12, "data_type": "video", "question": "What then?", "answer": "B"},
    {"question_id": "9", "question_type_id": 1, "data_type": "image", "question": "Where?", "answer": "C"},
]
FRAMES = {"101669": [10], "v7": [20, 21, 22, 23, 24, 25, 26, 27], "9": [30]}


@pytest.fixture
def seedbench() -> Benchmark:
    return load("seedbench")


def write_official(folder: Path) -> Path:
    """LLaVA's prompts, whose ids are numbers where they can be, in another order than the annotations."""
    prompts = []
    for row in reversed(ROWS):
        id = int(row["question_id"]) if row["question_id"].isdigit() else row["question_id"]
        image = f"SEED-Bench-{'video-image' if row['data_type'] == 'video' else 'image'}/{id}"
        text = f"{row['question']}\nA. One\nB. Two\nC. Three\nD. Four{SUFFIX}"
        prompts.append({"question_id": id, "image": image, "text": text, "category": row["data_type"]})
        write_png(folder / image, FRAMES[row["question_id"]][len(FRAMES[row["question_id"]]) // 2])
    write_lines(folder / "llava-seed-bench.jsonl", prompts)
    types = {"Scene Understanding": 1, "Instances Counting": 5, "Procedure Understanding": 12}
    write_json(folder / "SEED-Bench.json", {"questions": [row | OPTIONS for row in ROWS], "question_type": types})
    return folder


def write_hub(data: Path) -> Path:
    rows = [{**row, **OPTIONS, "image": [png(frame) for frame in FRAMES[row["question_id"]]]} for row in ROWS]
    write_parquet(data / "SEED-Bench" / "data" / "test-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("A", 1, 1),
        ("A.", 0, 1),
        ("A. One", 0, 1),
        ("(A)", 0, 1),
        ("One", 0, 1),
        ("a", 0, 0),
        (" A", 0, 1),
        ("Apple", 0, 0),
    ],
)
def test_only_the_letter_alone_is_right_and_strict_takes_every_clear_statement(
    seedbench: Benchmark, tmp_path: Path, text: str, official: int, strict: int
) -> None:
    question = seedbench.questions(write_official(tmp_path))[0]
    assert mark_of(seedbench, question, text).credit == official
    assert (mark_of(seedbench, question, text).parsed is None) == (not official)
    assert mark_of(seedbench, question, text, strict=True).credit == strict


def test_the_prompt_is_question_options_and_instruction(seedbench: Benchmark, tmp_path: Path) -> None:
    expected = (
        "How many?\nA. One\nB. Two\nC. Three\nD. Four\n"
        "Answer with the option's letter from the given choices directly.", 1,
    )  # fmt: skip
    assert asked(seedbench.questions(write_official(tmp_path / "official"))[0]) == expected
    assert asked(seedbench.questions(write_hub(tmp_path))[0]) == expected
    assert seedbench.max_new_tokens == 128


@pytest.mark.parametrize("layout", ["seed_bench", "seedbench", "."])
def test_files_are_joined_by_id_in_the_order_of_the_annotations(
    seedbench: Benchmark, tmp_path: Path, layout: str
) -> None:
    write_official(tmp_path / layout)
    questions = read_questions(seedbench, tmp_path)
    assert [question.id for question in questions] == [101669, "v7", 9]
    assert [question.correct for question in questions] == [("A",), ("B",), ("C",)]
    assert [shade(question.conversation.images[0].source) for question in questions] == [10, 24, 30]
    assert questions[0].options == ("One", "Two", "Three", "Four")


def test_the_hubs_dataset_shows_the_middle_frame_of_a_video(seedbench: Benchmark, tmp_path: Path) -> None:
    questions = read_questions(seedbench, write_hub(tmp_path))
    assert [shade(question.conversation.images[0].source) for question in questions] == [10, 24, 30]
    official = seedbench.questions(write_official(tmp_path / "official"))
    for mine, theirs in zip(questions, official, strict=True):
        assert (asked(mine), mine.correct, mine.kind, mine.groups) == (
            asked(theirs), theirs.correct, theirs.kind, theirs.groups,
        )  # fmt: skip


def test_accuracy_is_over_all_by_kind_and_by_type(seedbench: Benchmark, tmp_path: Path) -> None:
    questions = seedbench.questions(write_official(tmp_path))
    scores = seedbench.score(questions, [Answer(9, "C"), Answer(101669, "B"), Answer("v7", "B")])
    assert scores.figures == {"accuracy": 2 / 3}
    assert scores.kinds == {"image": {"accuracy": 0.5, "n": 2}, "video": {"accuracy": 1.0, "n": 1}}
    assert scores.groups == {
        "Instances Counting": {"accuracy": 0.0, "n": 1},
        "Procedure Understanding": {"accuracy": 1.0, "n": 1},
        "Scene Understanding": {"accuracy": 1.0, "n": 1},
    }
    assert not seedbench.score(questions, [Answer(9, "C")]).complete


def test_the_submission_is_llavas_and_reads_back(seedbench: Benchmark, tmp_path: Path) -> None:
    questions = seedbench.questions(write_official(tmp_path / "data"))
    answers = [Answer(9, "C"), Answer(101669, "A dog"), Answer("v7", "B")]
    (path,) = seedbench.submit(questions, answers, tmp_path / "submission")
    assert path.read_text() == (
        '{"question_id": "101669", "prediction": "A dog"}\n'
        '{"question_id": "v7", "prediction": "B"}\n'
        '{"question_id": "9", "prediction": "C"}\n'
    )
    assert seedbench.score(questions, seedbench.read_answers(path, questions)).figures == {"accuracy": 2 / 3}


def test_faults_of_the_files_are_named(seedbench: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"llava-seed-bench.jsonl or .* is missing; get it from LLaVA's eval.zip"):
        seedbench.questions(tmp_path)
    write_official(tmp_path)
    path, annotations = tmp_path / "llava-seed-bench.jsonl", tmp_path / "SEED-Bench.json"
    prompts = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*prompts, prompts[0]]))
    with pytest.raises(EvaluationError, match="1 questions have an id of another"):
        seedbench.questions(tmp_path)
    path.write_text("".join(prompts[1:]))
    with pytest.raises(EvaluationError, match=r"question 9 of SEED-Bench.json is not asked there"):
        seedbench.questions(tmp_path)
    path.write_text("".join(prompts))
    write_json(annotations, {"questions": [row | OPTIONS for row in ROWS[1:]]})
    with pytest.raises(EvaluationError, match=r"SEED-Bench.json: lacks question 101669"):
        seedbench.questions(tmp_path)
    for change in ({"answer": "AB"}, {"answer": ""}, {"question_type_id": 13}, {"question_type_id": 0}):
        write_json(annotations, {"questions": [row | OPTIONS | change for row in ROWS]})
        with pytest.raises(EvaluationError, match=r"question 101669: answer .*, type .*; download it anew"):
            seedbench.questions(tmp_path)
    annotations.write_text(json.dumps({"questions": [{"question_id": 1}]}))
    with pytest.raises(EvaluationError, match=r"SEED-Bench.json: needs 'question_type_id' \(int\)"):
        seedbench.questions(tmp_path)
    annotations.unlink()
    with pytest.raises(EvaluationError, match=r"SEED-Bench.json is missing"):
        seedbench.questions(tmp_path)


def test_a_row_without_any_frame_is_named(seedbench: Benchmark, tmp_path: Path) -> None:
    rows = [{**row, **OPTIONS, "image": [png(1)] if row["answer"] == "A" else []} for row in ROWS]
    write_parquet(tmp_path / "SEED-Bench" / "data" / "test-00000-of-00001.parquet", rows)
    with pytest.raises(EvaluationError, match="question v7 has no image"):
        seedbench.questions(tmp_path)
