"""MMMU: the official parser and its lot, questions with several pictures, both layouts, official outputs."""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark, Question
from llava_lite.evaluation.files import EvaluationError
from tests.eval.benchmark_files import asked, load, mark_of, png, shade, write_json

IMAGES = [f"image_{number}" for number in range(1, 8)]
NAMES = ("id", "question", "options", "answer", "question_type")
FEATURES = datasets.Features(
    {name: datasets.Value("string") for name in NAMES} | {name: datasets.Image() for name in IMAGES}
)
ROWS: dict[str, list[dict[str, Any]]] = {
    "Literature": [
        {
            "id": "validation_Literature_1",
            "question": "<image 1> Refer to the figure.",
            "options": "['Tone', \"It's style\", 'Plot, or so']",
            "answer": "C",
            "question_type": "multiple-choice",
            "image_1": png(1),
        },
        {
            "id": "validation_Literature_5",
            "question": "Which of these follows <image 3>?",
            "options": "['<image 1>', '<image 2>']",
            "answer": "B",
            "question_type": "multiple-choice",
            "image_1": png(1),
            "image_2": png(2),
            "image_3": png(3),
        },
    ],
    "Basic_Medical_Science": [
        {
            "id": "validation_Basic_Medical_Science_10",
            "question": "Which letter? <image 1>",
            "options": "[]",
            "answer": "C",
            "question_type": "open",
            "image_1": png(4),
        },
        {
            "id": "validation_Basic_Medical_Science_30",
            "question": "What is it?",
            "options": "[]",
            "answer": "['$MgS$', 'MgS']",
            "question_type": "open",
            "image_1": png(5),
        },
    ],
}


def table(rows: list[dict[str, Any]]) -> datasets.Dataset:
    full = [{name: row.get(name) for name in FEATURES} for row in rows]
    return datasets.Dataset.from_list(full, features=FEATURES)


def write_whole_table(data: Path, rows: list[dict[str, Any]], split: str = "validation") -> Path:
    (data / "MMMU" / "data").mkdir(parents=True)
    table(rows).to_parquet(data / "MMMU" / "data" / f"{split}-00000-of-00001.parquet")
    return data


def write_subjects(mmmu: Benchmark, data: Path) -> Path:
    """The official layout: a folder a subject, here of a question each where ROWS has none."""
    for subject in subjects(mmmu):
        filler = {**ROWS["Literature"][0], "id": f"validation_{subject}_1"}
        (data / "MMMU" / subject).mkdir(parents=True)
        file = data / "MMMU" / subject / "validation-00000-of-00001.parquet"
        table(ROWS.get(subject, [filler])).to_parquet(file)
    return data


def subjects(mmmu: Benchmark) -> list[str]:
    return list(sys.modules[type(mmmu).__module__].SUBJECTS)


def read(mmmu: Benchmark, data: Path) -> dict[str, Question]:
    rows = [row for rows in ROWS.values() for row in rows]
    return {str(question.id): question for question in mmmu.questions(write_whole_table(data, rows))}


def test_the_prompt_is_that_of_the_official_repository(tmp_path: Path) -> None:
    choice, several, open_question, _ = read(load("mmmu"), tmp_path).values()
    assert asked(choice) == (
        "<image 1> Refer to the figure.\n(A) Tone\n(B) It's style\n(C) Plot, or so\n"
        "\nAnswer with the option's letter from the given choices directly.",
        1,
    )
    assert asked(several) == (
        "Which of these follows <image 3>?\n(A) <image 1>\n(B) <image 2>\n"
        "\nAnswer with the option's letter from the given choices directly.",
        3,
    )
    assert asked(open_question) == (
        "Which letter? <image 1>\nAnswer the question using a single word or phrase.",
        1,
    )


def test_the_pictures_that_a_text_refers_to_are_shown_in_order(tmp_path: Path) -> None:
    shown = [[shade(i.source) for i in q.conversation.images] for q in read(load("mmmu"), tmp_path).values()]
    assert shown == [[1], [1, 2, 3], [4], [5]]  # the last refers to none, and gets its first


def test_a_subject_is_a_kind_and_a_discipline_a_group(tmp_path: Path) -> None:
    questions = read(load("mmmu"), tmp_path).values()
    assert [(q.kind, q.groups, q.correct, len(q.options)) for q in questions] == [
        ("Literature", ("Humanities and Social Science",), ("C",), 3),
        ("Literature", ("Humanities and Social Science",), ("B",), 2),
        ("Basic_Medical_Science", ("Health and Medicine",), ("C",), 0),
        ("Basic_Medical_Science", ("Health and Medicine",), ("$MgS$", "MgS"), 0),
    ]


def test_the_official_layout_has_thirty_folders_and_has_to_be_whole(tmp_path: Path) -> None:
    mmmu = load("mmmu")
    questions = mmmu.questions(write_subjects(mmmu, tmp_path))
    assert len(questions) == 32 and len({question.kind for question in questions}) == 30
    assert len({group for question in questions for group in question.groups}) == 6
    assert all(len(question.conversation.images) in (1, 3) for question in questions)
    (tmp_path / "MMMU/Psychology/validation-00000-of-00001.parquet").unlink()
    with pytest.raises(EvaluationError, match=r"MMMU/Psychology/validation-\*.parquet is missing"):
        mmmu.questions(tmp_path)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("A or (B)", "B"),  # brackets come before bare letters
        ("B, and not C", "C"),  # "B," is no letter that stands alone; "C" is, at the end
        ("A B C", "C"),  # the last of several
        ("not (C) but (A)", "A"),
        ("I think that it must be the tone", "A"),  # texts count in more than five words
        ("the tone of it", None),
        ("tone comes first, and then it's style", "B"),
        ("b", None),
        ("USA is what I would say here", None),
        ("D", None),
        ("'A'", "A"),
        ("", None),
    ],
)
def test_an_answer_chooses_as_the_official_parser_reads_it(tmp_path: Path, text: str, letter: str | None) -> None:
    mmmu = load("mmmu")
    question = read(mmmu, tmp_path)["validation_Literature_1"]
    assert mark_of(mmmu, question, text).parsed == letter


@pytest.mark.parametrize(
    ("text", "correct", "credit"),
    [
        ("1,200", "1200", 1),
        ("about 1200 of them", "1200", 1),
        ("So the result is 12.004", "12", 1),  # to two decimals
        ("12.01", "12", 0),
        ("1.2e3", "1200", 1),
        ("x = 7", "7", 1),
        ("x = 7\nthat is it", "7", 0),  # only the last line may be an equation
        ("First 3.\nThe answer is 4", "3", 0),  # lines without a key word do not count
        ("The answer is 4.\nSo it is 5", "4", 1),  # ... with one all do
        ("Transformation", "Transformation", 1),
        ("the Transformation of it", "transformation", 1),  # what was said contains it
        ("trans", "transformation", 0),
        ("C", "C", 1),
        ("it is c", "C", 1),
        ("cat", "C", 0),  # one letter has to stand alone
        ("a c b", "C", 1),
        ("mgs", "['$MgS$', 'MgS']", 1),
        ("", "C", 0),
        ("24/7", "24/7", 1),
        ("it is .5", "0.5", 1),
        (".5", "0.5", 0),  # periods at the ends are cut off
        ("-5", "5", 0),
        ("the answer is :", "5", 0),
    ],
)
def test_open_answers_are_read_by_key_phrases_and_numbers(
    tmp_path: Path, text: str, correct: str, credit: float
) -> None:
    mmmu = load("mmmu")
    row = {**ROWS["Basic_Medical_Science"][0], "answer": correct}
    (question,) = mmmu.questions(write_whole_table(tmp_path, [row]))
    assert mark_of(mmmu, question, text).credit == credit


def test_what_names_no_option_is_drawn_once_for_all_and_counted(tmp_path: Path) -> None:
    mmmu = load("mmmu")
    rows = [{**ROWS["Literature"][0], "id": f"validation_Art_{number}"} for number in range(90)]
    questions = mmmu.questions(write_whole_table(tmp_path, rows))
    answers = [Answer(question.id, "no idea") for question in questions]
    scores = mmmu.score(questions, answers)
    assert 20 <= sum(mark.credit for mark in scores.marks.values()) <= 40  # of three options
    assert scores.unparsed == [question.id for question in questions]
    again = mmmu.score(questions[::-1], answers[10:])  # neither order nor company matters
    assert all(again.marks[id].credit == scores.marks[id].credit for id in again.marks)
    assert mmmu.score(questions, answers, strict=True).figures == {"accuracy": 0.0}


def test_strict_scoring_changes_nothing_else(tmp_path: Path) -> None:
    mmmu = load("mmmu")
    questions = list(read(mmmu, tmp_path).values())
    answers = [Answer(q.id, text) for q, text in zip(questions, ["(C)", "A", "it is c", "Na"], strict=True)]
    scores = mmmu.score(questions, answers)
    assert scores.figures == mmmu.score(questions, answers, strict=True).figures == {"accuracy": 0.5}
    assert scores.kinds["Literature"] == scores.groups["Health and Medicine"] == {"accuracy": 0.5, "n": 2}


def test_a_submission_holds_letters_and_open_answers_and_scores_the_same(tmp_path: Path) -> None:
    mmmu = load("mmmu")
    questions = list(read(mmmu, tmp_path).values())
    answers = [Answer(q.id, text) for q, text in zip(questions, ["(C)", "?", "it is c", "So MgS"], strict=True)]
    (path,) = mmmu.submit(questions, answers, tmp_path / "submission")
    sent = json.loads(path.read_text())
    drawn = sent.pop("validation_Literature_5")
    assert path.name == "mmmu_val.json" and drawn in ("A", "B")
    assert list(sent.values()) == ["C", "it is c", "So MgS"]
    before, after = mmmu.score(questions, answers), mmmu.score(questions, mmmu.read_answers(path, questions))
    assert before.figures == after.figures


def test_outputs_of_the_official_scripts_are_read(tmp_path: Path) -> None:
    mmmu = load("mmmu")
    questions = list(read(mmmu, tmp_path).values())
    for subject, rows in ROWS.items():
        outputs = [{"id": row["id"], "answer": row["answer"], "response": "A", "all_choices": ["A"]} for row in rows]
        write_json(tmp_path / "llava" / subject / "output.json", outputs)
    answers = mmmu.read_answers(tmp_path / "llava", questions)
    assert {answer.question_id: answer.text for answer in answers} == {question.id: "A" for question in questions}
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"no SUBJECT/output.json"):
        mmmu.read_answers(tmp_path / "empty", questions)


def test_the_test_split_is_not_scored_but_sent(tmp_path: Path) -> None:
    row = {**ROWS["Literature"][0], "id": "test_Literature_1", "answer": "?"}
    mmmu = load("mmmu", "test")
    questions = mmmu.questions(write_whole_table(tmp_path, [row], "test"))
    answers = [Answer("test_Literature_1", "B")]
    assert mmmu.score(questions, answers).marks == {}
    (path,) = mmmu.submit(questions, answers, tmp_path)
    assert (path.name, json.loads(path.read_text())) == ("mmmu_test.json", {"test_Literature_1": "B"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "validation_Alchemy_1"}, "of no known subject"),
        ({"options": "A. tone"}, "or has no options"),
        ({"options": "['a', open('b')]"}, "or has no options"),
        ({"question": "<image 2> and <image 7>"}, "has no image_2, image_7"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        load("mmmu").questions(write_whole_table(tmp_path, [{**ROWS["Literature"][0], **changes}]))


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"mmmu: .*MMMU/Art/validation-\*.parquet or .* get it from the dataset"):
        load("mmmu").questions(tmp_path)
