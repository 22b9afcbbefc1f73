"""MME: the official reading and sums to the last digit, pairs by their image, and a part never as if whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    evaluate_by_command,
    expected_scores,
    load,
    mark_of,
    needs_reference,
    png,
    shade,
    write_lines,
    write_parquet,
    write_png,
)

PERCEPTION = [
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
]  # fmt: skip
COGNITION = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"]
TASKS = [*PERCEPTION, *COGNITION]
SPLIT = ["posters", "celebrity", "scene", "landmark", "artwork"]  # whose images and texts have folders of their own
ASK = "Please answer yes or no."
SUFFIX = "\nAnswer the question using a single word or phrase."
CAT, DOG = f"Is it a cat? {ASK}", f"Is it a dog?  {ASK}"  # two spaces, as some have
GOLD = [(CAT, "Yes"), (DOG, "No")]


@pytest.fixture
def mme() -> Benchmark:
    return load("mme")


def write_release(folder: Path, *, num_images: int = 2) -> Path:
    """The release: images 0001.png, 0002.png, ... of each task, of shade 1, 2, ..., with two questions each."""
    for task in TASKS:
        for number in range(1, num_images + 1):
            texts, images = ("questions_answers_YN/", "images/") if task in SPLIT else ("", "")
            write_png(folder / task / f"{images}{number:04}.png", number)
            path = folder / task / f"{texts}{number:04}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{question}\t{answer}\n" for question, answer in GOLD) + "\n")
    return folder


def write_hub(data: Path) -> Path:
    """The same as lmms-lab has it, in an order of its own."""
    rows = [
        {
            "question_id": f"{task}/{number:04}.png", "image": png(number),
            "question": question, "answer": answer, "category": task,
        }
        for question, answer in reversed(GOLD) for task in reversed(TASKS) for number in (2, 1)
    ]  # fmt: skip
    write_parquet(data / "MME" / "data" / "test-00000-of-00001.parquet", rows)
    return data


def say(questions: list, text: Callable[[str, str], str]) -> list[Answer]:
    """Answer each question with `text(task, correct)`."""
    return [Answer(question.id, text(question.kind, question.correct[0])) for question in questions]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes", "yes"),
        ("YES, there is", "yes"),
        ("no", "no"),
        ("No.", "no"),
        ("know", "no"),
        ("Not really", "no"),
        ("I know", None),
        ("eyes", "yes"),
        ("  yes", None),
        (" yes", "yes"),
        ("The answer is yes", None),
        ("ye", None),
        ("", None),
    ],
)
def test_answers_are_read_by_their_first_four_characters(
    mme: Benchmark, tmp_path: Path, text: str, read: str | None
) -> None:
    yes, no, *_ = mme.questions(write_release(tmp_path))
    assert (yes.correct, no.correct) == (("yes",), ("no",))
    assert [mark_of(mme, question, text).parsed for question in (yes, no)] == [read, read]
    assert [mark_of(mme, question, text).credit for question in (yes, no)] == [read == "yes", read == "no"]


@pytest.mark.parametrize(("text", "read"), [("I know", None), ("The answer is yes", "yes"), ("yes and no", None)])
def test_strict_scoring_reads_words(mme: Benchmark, tmp_path: Path, text: str, read: str | None) -> None:
    yes, *_ = mme.questions(write_release(tmp_path))
    assert mark_of(mme, yes, text, strict=True).parsed == read


@needs_reference
def test_a_published_result_folder_gives_its_published_figures(mme: Benchmark) -> None:
    expected = expected_scores()["mme"]["LaVIN"]
    questions = read_questions(mme, REFERENCE / "mme" / "LaVIN")
    scores = mme.score(questions, mme.read_answers(REFERENCE / "mme" / "LaVIN", questions))
    assert (scores.n, scores.total, scores.complete) == (2374, 2374, True)
    assert scores.figures == {name: expected[name] for name in ("perception", "cognition")}
    for task, figures in scores.kinds.items():
        assert figures["cognition" if task in COGNITION else "perception"] == expected["per_task"][task]
    assert list(scores.kinds) == TASKS


@needs_reference
def test_an_incomplete_result_folder_is_marked_partial_and_no_data(mme: Benchmark, tmp_path: Path) -> None:
    partial = REFERENCE / "mme" / "partial_llava-v1.5-7b"
    options = ("--data", REFERENCE / "mme" / "LaVIN", "--answers", partial, "--out", tmp_path / "out")
    assert "PARTIAL: normal 2350 of 2374 questions" in evaluate_by_command("mme", *options)
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (written["complete"], written["modes"]["normal"]["n"], written["modes"]["normal"]["total"]) == (
        False, 2350, 2374,
    )  # fmt: skip
    assert not (tmp_path / "out" / "submission").exists()
    with pytest.raises(EvaluationError, match="2350 of 2374 questions; give a whole folder as data"):
        mme.questions(partial)


def test_figures_are_sums_over_tasks_of_accuracy_and_of_images_right_in_both(mme: Benchmark, tmp_path: Path) -> None:
    questions = mme.questions(write_release(tmp_path))
    answers = say(questions, lambda task, correct: correct if task in ("count", *COGNITION) else "yes")
    scores = mme.score(questions, answers)
    assert scores.kinds["count"] == {"perception": 200.0, "accuracy": 1.0, "accuracy_plus": 1.0, "n": 4}
    assert scores.kinds["scene"] == {"perception": 50.0, "accuracy": 0.5, "accuracy_plus": 0.0, "n": 4}
    assert scores.kinds["code_reasoning"] == {"cognition": 200.0, "accuracy": 1.0, "accuracy_plus": 1.0, "n": 4}
    assert scores.figures == {"perception": 200 + 9 * 50, "cognition": 800}


def test_the_two_questions_of_an_image_are_a_pair_in_any_order(mme: Benchmark, tmp_path: Path) -> None:
    """Answers right for one question of each of two images: taken two by two, they would be a pair."""
    first, second, third, fourth, *_ = mme.questions(write_release(tmp_path))
    for order in ((first, second, third, fourth), (first, third, second, fourth), (fourth, second, third, first)):
        figures = mme.score(order, say(list(order), lambda task, correct: "yes")).kinds["existence"]
        assert (figures["accuracy"], figures["accuracy_plus"]) == (0.5, 0.0)


@pytest.mark.parametrize("kept", [0, 1])
def test_an_image_with_one_question_answered_is_never_right_in_both(mme: Benchmark, tmp_path: Path, kept: int) -> None:
    """Two halves of pairs, right each, are no pair; and beside a whole one, a half makes the share smaller."""
    questions = mme.questions(write_release(tmp_path))
    halves = say([questions[kept], questions[2 + kept]], lambda task, correct: correct)
    scores = mme.score(questions, halves)
    assert scores.kinds["existence"] == {"perception": 100.0, "accuracy": 1.0, "accuracy_plus": 0.0, "n": 2}
    assert (scores.n, scores.total, scores.complete) == (2, 56, False)
    whole = say([questions[0], questions[1], questions[2 + kept]], lambda task, correct: correct)
    assert mme.score(questions, whole).kinds["existence"]["accuracy_plus"] == 0.5


def test_a_part_of_the_results_is_marked_partial_and_refused_as_data(mme: Benchmark, tmp_path: Path) -> None:
    questions = mme.questions(write_release(tmp_path / "data"))
    mme.submit(questions, say(questions, lambda task, correct: correct), tmp_path / "results")
    with pytest.raises(EvaluationError, match="results: 56 of 2374 questions; give a whole folder as data"):
        mme.questions(tmp_path / "results")
    (tmp_path / "results" / "OCR.txt").unlink()
    options = ("--data", tmp_path / "data", "--answers", tmp_path / "results", "--out", tmp_path / "out")
    assert "PARTIAL: normal 52 of 56 questions" in evaluate_by_command("mme", *options)
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["complete"] is False
    assert not (tmp_path / "out" / "submission").exists()


def test_the_prompt_is_the_question_with_the_short_answer_instruction(mme: Benchmark, tmp_path: Path) -> None:
    cat, dog, *_ = mme.questions(write_release(tmp_path))
    assert asked(cat) == ("Is it a cat?\nAnswer the question using a single word or phrase.", 1)
    assert asked(dog) == ("Is it a dog?\nAnswer the question using a single word or phrase.", 1)
    assert mme.max_new_tokens == 128


def test_llavas_file_has_the_last_word_on_prompts(mme: Benchmark, tmp_path: Path) -> None:
    write_release(tmp_path / "MME" / "MME_Benchmark_release_version")
    rows = [
        {"question_id": f"{task}/{number:04}.png", "image": "?", "text": f"Is it a {thing}? {SUFFIX}", "category": task}
        for task in TASKS for number in (1, 2) for thing in ("cat", "dog")
    ]  # fmt: skip
    write_lines(tmp_path / "MME" / "llava_mme.jsonl", rows)
    assert [asked(question)[0] for question in mme.questions(tmp_path)[:2]] == [
        f"Is it a cat? {SUFFIX}", f"Is it a dog? {SUFFIX}"
    ]  # fmt: skip
    write_lines(tmp_path / "MME" / "llava_mme.jsonl", rows[1:])
    with pytest.raises(EvaluationError, match=r"llava_mme.jsonl does not ask 'existence/0001: Is it a cat\?'"):
        mme.questions(tmp_path)


@pytest.mark.parametrize("place", ["MME/MME_Benchmark_release_version/MME_Benchmark", "mme", "."])
def test_the_release_is_found_with_its_images(mme: Benchmark, tmp_path: Path, place: str) -> None:
    write_release(tmp_path / place)
    questions = read_questions(mme, tmp_path)
    assert [(question.kind, question.correct[0]) for question in questions[:5]] == [
        ("existence", "yes"), ("existence", "no"), ("existence", "yes"), ("existence", "no"), ("count", "yes")
    ]  # fmt: skip
    assert {shade(question.conversation.images[0].source) for question in questions[:2]} == {1}
    assert {shade(question.conversation.images[0].source) for question in questions[2:4]} == {2}
    assert list(dict.fromkeys(question.kind for question in questions)) == TASKS


def test_the_hubs_dataset_is_the_same_benchmark(mme: Benchmark, tmp_path: Path) -> None:
    release = mme.questions(write_release(tmp_path / "release"))
    hub = read_questions(mme, write_hub(tmp_path / "hub"))
    assert {
        question.id: (asked(question), question.correct, question.kind, dict(question.row)) for question in hub
    } == {question.id: (asked(question), question.correct, question.kind, dict(question.row)) for question in release}
    assert {shade(question.conversation.images[0].source) for question in hub if "0002" in question.id} == {2}
    answers = say(release, lambda task, correct: correct)
    assert mme.score(hub, answers).figures == {"perception": 2000, "cognition": 800}


def test_the_submission_is_a_result_folder_that_reads_back(mme: Benchmark, tmp_path: Path) -> None:
    questions = mme.questions(write_hub(tmp_path / "hub"))
    answers = say(questions, lambda task, correct: "No\tor\nyes" if task == "OCR" else correct.capitalize())
    paths = mme.submit(questions, answers, tmp_path / "results")
    assert sorted(path.name for path in paths) == sorted(f"{task}.txt" for task in TASKS)
    lines = (tmp_path / "results" / "OCR.txt").read_text().splitlines()
    assert sorted(lines[:2]) == [f"0001.png\t{CAT}\tYes\tNo or yes", f"0001.png\t{DOG}\tNo\tNo or yes"]
    assert [line.split("\t")[0] for line in lines] == ["0001.png", "0001.png", "0002.png", "0002.png"]
    again = mme.read_answers(tmp_path / "results", questions)
    assert mme.score(questions, again).figures == mme.score(questions, answers).figures
    assert len(again) == len(questions)


def test_llavas_answers_are_told_apart_by_their_prompts(mme: Benchmark, tmp_path: Path) -> None:
    questions = mme.questions(write_release(tmp_path / "data"))
    rows = [
        {"question_id": f"{task}/images/{number:04}.jpg", "prompt": f"Is it a {thing}?{SUFFIX}", "text": thing}
        for thing in ("dog", "cat") for task in TASKS for number in (2, 1)
    ]  # fmt: skip
    write_lines(tmp_path / "llava.jsonl", rows)
    answers = mme.read_answers(tmp_path / "llava.jsonl", questions)
    assert {answer.question_id for answer in answers} == {question.id for question in questions}
    assert all(re.search(rf"{answer.text}\?$", str(answer.question_id)) for answer in answers)


def test_our_own_answers_are_read_by_their_ids(mme: Benchmark, tmp_path: Path) -> None:
    questions = mme.questions(write_release(tmp_path / "data"))
    rows = [{"question_id": question.id, "prompt": "another", "text": "yes"} for question in questions]
    write_lines(tmp_path / "ours.jsonl", rows)
    assert mme.score(questions, mme.read_answers(tmp_path / "ours.jsonl", questions)).complete
    write_lines(tmp_path / "short.jsonl", [{"id": questions[3].id, "text": "no"}])
    assert mme.read_answers(tmp_path / "short.jsonl", questions) == [Answer(questions[3].id, "no")]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"0001.png\t{CAT}\tYes", "needs image, question, correct answer and answer"),
        (f"0001.png\t{CAT}", "needs image, question and correct answer"),
        (f"0001.png\t{CAT}\tYes\tyes\tsure", "needs image, question, correct answer and answer"),
        (f"0001.png\t{CAT}\tNo\tyes", "the correct answer is yes; is it of this release"),
    ],
)
def test_a_broken_line_of_results_is_named(mme: Benchmark, tmp_path: Path, line: str, told: str) -> None:
    questions = mme.questions(write_release(tmp_path / "data"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "color.txt").write_text(f"0001.png\t{DOG}\tNo\tno\n{line}\n")
    with pytest.raises(EvaluationError, match=rf"color.txt, line 2: {told}"):
        mme.read_answers(tmp_path / "results", questions)


def test_faults_of_the_files_are_named(mme: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"existence/\*.txt or .*MME/data/test-\*.parquet is missing; get it"):
        mme.questions(tmp_path)
    write_release(tmp_path)
    path = tmp_path / "scene" / "questions_answers_YN" / "0002.txt"
    path.write_text(f"{CAT}\tYes\n")
    with pytest.raises(EvaluationError, match="image scene/0002 has 1 questions instead of two"):
        mme.questions(tmp_path)
    path.write_text(f"{CAT}\tYes\n{DOG}\tMaybe\n")
    with pytest.raises(EvaluationError, match=r"0002.txt, line 2: 'maybe' is not a correct answer"):
        mme.questions(tmp_path)
    path.write_bytes(b"caf\xe9\tYes\n")
    with pytest.raises(EvaluationError, match=r"0002.txt: not UTF-8"):
        mme.questions(tmp_path)
    write_release(tmp_path / "other")
    for path in (tmp_path / "other" / "OCR").glob("*.txt"):
        path.unlink()
    with pytest.raises(EvaluationError, match="tasks missing or unknown: OCR"):
        mme.questions(tmp_path / "other")
    with pytest.raises(EvaluationError, match=r"no existence.txt or other results"):
        mme.read_answers(tmp_path / "scene", [])


@pytest.mark.parametrize("row", [{}, {"prompt": 5}])
def test_answers_that_name_only_images_need_their_prompts(mme: Benchmark, tmp_path: Path, row: dict) -> None:
    path = write_lines(tmp_path / "merge.jsonl", [{"question_id": "color/0001.png", "text": "Yes", **row}])
    with pytest.raises(EvaluationError, match=r"merge.jsonl, line 1: needs 'prompt'"):
        mme.read_answers(path, [])
