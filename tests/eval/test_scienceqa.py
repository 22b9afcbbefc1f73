"""ScienceQA: LLaVA's reading and figures to the last digit, from its own files and from the hub's."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import read_questions
from tests.eval.benchmark_files import (
    REFERENCE,
    asked,
    load,
    mark_of,
    needs_reference,
    png,
    shade,
    write_json,
    write_lines,
    write_parquet,
    write_png,
)

SUFFIX = "Answer with the option's letter from the given choices directly."
PROBLEMS: dict[str, dict[str, Any]] = {
    "7": {
        "question": "Which is red?", "choices": ["blood", "grass"], "answer": 0, "hint": "", "image": "image.png",
        "subject": "natural science", "grade": "grade2", "split": "test",
    },
    "12": {
        "question": "Which rhymes?", "choices": ["cat", "dog", "hat"], "answer": 2, "hint": "Read aloud.",
        "image": None, "subject": "language science", "grade": "grade7", "split": "test",
    },
    "30": {
        "question": "What is it?", "choices": ["a map", "a flag"], "answer": 1, "hint": "Look.", "image": "image.png",
        "subject": "social science", "grade": "grade6", "split": "test",
    },
    "4": {
        "question": "Who?", "choices": ["I", "you"], "answer": 1, "hint": "", "image": None,
        "subject": "language science", "grade": "grade12", "split": "test",
    },
}  # fmt: skip


@pytest.fixture
def scienceqa() -> Benchmark:
    return load("scienceqa")


def write_official(folder: Path, problems: dict[str, dict[str, Any]] = PROBLEMS) -> Path:
    """LLaVA's and ScienceQA's own files; pictures of shade 7 and 30."""
    rows = []
    for id, problem in problems.items():
        hint = f"Context: {problem['hint']}\n" if problem["hint"] else ""
        options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDE", problem["choices"], strict=False))
        value = f"{hint}{problem['question']}\n{options}" + ("\n<image>" if problem["image"] else "")
        row: dict[str, Any] = {"id": id, "conversations": [{"from": "human", "value": value}, {"from": "gpt"}]}
        if problem["image"]:
            row["image"] = f"{id}/{problem['image']}"
        rows.append(row)
    write_json(folder / "llava_test_CQM-A.json", rows)
    write_json(folder / "problems.json", {**problems, "1": {"split": "train"}})
    write_json(folder / "pid_splits.json", {"test": list(problems), "train": ["1"]})
    return folder


def write_hub(data: Path) -> Path:
    """The same as lmms-lab has it: no ids, no image where there is none."""
    for config, wanted in (("FULL", PROBLEMS), ("IMG", {id: p for id, p in PROBLEMS.items() if p["image"]})):
        rows = [{**p, "image": png(int(id)) if p["image"] else None} for id, p in wanted.items()]
        write_parquet(data / "ScienceQA" / f"ScienceQA-{config}" / "test-00000-of-00001.parquet", rows)
    return data


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B. hat", "B"),
        ("B. ", "B"),
        ("The answer is B.", "B"),
        ("So: The answer is B, I think", "B"),
        ("The answer is B", None),  # some character must follow
        ("The answer is B. The answer is C.", None),
        ("the answer is B.", None),
        ("B.", None),
        ("B) hat", None),
        ("(B)", None),
        (" B", None),
        ("b", None),
        ("F", None),
        ("F. hat", None),
        ("The answer is F.", "F"),
        ("D", "D"),  # read, but beyond the options
        ("", None),
    ],
)
def test_answers_are_read_as_the_official_script_reads_them(
    scienceqa: Benchmark, tmp_path: Path, text: str, letter: str | None
) -> None:
    question = scienceqa.questions(write_official(tmp_path))[1]
    mark = mark_of(scienceqa, question, text)
    assert (mark.parsed, mark.credit) == (letter, 0.0)


def test_strict_scoring_reads_every_way_that_leaves_no_doubt(scienceqa: Benchmark, tmp_path: Path) -> None:
    question = scienceqa.questions(write_official(tmp_path))[1]
    for text in ("C", "(C)", "C) hat", "The answer is C", "hat"):
        assert mark_of(scienceqa, question, text, strict=True).credit == 1.0
    assert mark_of(scienceqa, question, "E", strict=True).parsed is None


def unpack_reference(folder: Path) -> tuple[dict[str, dict[str, Any]], Path]:
    """Rebuild the files from the published output, which holds every prompt; return its rows by id."""
    source = REFERENCE / "scienceqa"
    output = json.loads(gzip.decompress((source / "llava-v1.5-13b_output.json.gz").read_bytes()))
    rows = {row["question_id"]: row for row in output["correct"] + output["incorrect"]}
    problems = {}
    for id, row in rows.items():
        lines = row["question"].removesuffix(f"\n{SUFFIX}").split("\n")
        options = [i for i, line in enumerate(lines) if line.startswith("A. ")][-1]
        problems[id] = {
            "question": "", "choices": [line[3:] for line in lines[options:]], "hint": "", "image": None,
            "answer": "ABCDE".index(row["ground_truth"]), "subject": "natural science", "grade": "grade1",
        }  # fmt: skip
    prompts = []
    for id, row in rows.items():
        text = row["question"].removesuffix(f"\n{SUFFIX}")
        prompts.append({"id": id, "conversations": [{"value": text.replace("<image>\n", "") + "\n<image>"}]})
        if row["is_multimodal"]:
            prompts[-1]["image"] = f"{id}/image.png"
    write_json(folder / "llava_test_CQM-A.json", prompts)
    write_json(folder / "problems.json", problems)
    (folder / "pid_splits.json").write_bytes(gzip.decompress((source / "pid_splits.json.gz").read_bytes()))
    write_json(folder / "output.json", output)
    return rows, folder


@needs_reference
def test_a_published_models_answers_give_its_published_figures(scienceqa: Benchmark, tmp_path: Path) -> None:
    rows, data = unpack_reference(tmp_path)
    questions = read_questions(scienceqa, data)
    results = json.loads((REFERENCE / "scienceqa" / "llava-v1.5-13b_result.json").read_text())
    for path in (data / "output.json", REFERENCE / "scienceqa" / "llava-v1.5-13b_result.json"):
        scores = scienceqa.score(questions, scienceqa.read_answers(path, questions))
        assert (scores.n, scores.complete, len(scores.unparsed)) == (4241, True, 5)
        assert sum(mark.credit for mark in scores.marks.values()) == results["correct"] == 3155
        assert 100 * scores.figures["accuracy"] == results["acc"]
        assert f"{100 * scores.figures['image_accuracy']:.2f}" == "71.64"
        assert scores.kinds["image"]["n"] == 2017
    parsed = {question.id: (scores.marks[question.id].parsed, len(question.options)) for question in questions}
    official = {id: "ABCDE".index(letter) if letter in tuple("ABCDE"[:n]) else -1 for id, (letter, n) in parsed.items()}
    assert official == results["results"]
    for question in questions:
        text, num_images = asked(question)
        assert ("<image>\n" if num_images else "") + text == rows[question.id]["question"]


def test_the_prompt_is_context_question_options_and_instruction(scienceqa: Benchmark, tmp_path: Path) -> None:
    seen, told, *_ = scienceqa.questions(write_official(tmp_path))
    assert asked(seen) == (
        "Which is red?\nA. blood\nB. grass\nAnswer with the option's letter from the given choices directly.", 1
    )  # fmt: skip
    assert asked(told) == (
        "Context: Read aloud.\nWhich rhymes?\nA. cat\nB. dog\nC. hat\n"
        "Answer with the option's letter from the given choices directly.", 0,
    )  # fmt: skip
    assert scienceqa.max_new_tokens == 1024


def test_the_hubs_dataset_asks_the_same(scienceqa: Benchmark, tmp_path: Path) -> None:
    official = scienceqa.questions(write_official(tmp_path / "official"))
    hub = read_questions(scienceqa, write_hub(tmp_path))
    assert [question.id for question in official] == ["7", "12", "30", "4"]
    assert [question.id for question in hub] == ["row 0", "row 1", "row 2", "row 3"]
    for mine, theirs in zip(official, hub, strict=True):
        assert asked(mine) == asked(theirs)
        assert (mine.correct, mine.kind, mine.groups, mine.options) == (
            theirs.correct, theirs.kind, theirs.groups, theirs.options,
        )  # fmt: skip
    assert [shade(image.source) for question in hub for image in question.conversation.images] == [7, 30]


def test_the_variant_img_asks_only_with_images_and_full_is_never_made_of_it(tmp_path: Path) -> None:
    img, full = load("scienceqa", "img"), load("scienceqa")
    official, hub = write_official(tmp_path / "official"), write_hub(tmp_path / "hub")
    assert [question.id for question in img.questions(official)] == ["7", "30"]
    assert [shade(question.conversation.images[0].source) for question in img.questions(hub)] == [7, 30]
    assert (img.name, full.name) == ("scienceqa-img", "scienceqa")
    for path in (hub / "ScienceQA" / "ScienceQA-FULL").iterdir():
        path.unlink()
    with pytest.raises(EvaluationError, match=r"ScienceQA/ScienceQA-FULL/test-\*.parquet is missing; get it from"):
        full.questions(hub)


def test_accuracy_is_over_images_over_all_and_by_the_columns_of_the_table(scienceqa: Benchmark, tmp_path: Path) -> None:
    questions = scienceqa.questions(write_official(tmp_path))
    scores = scienceqa.score(questions, [Answer(id, text) for id, text in zip(PROBLEMS, "ACAB", strict=True)])
    assert scores.figures == {"image_accuracy": 0.5, "accuracy": 0.75}
    assert scores.kinds == {"image": {"accuracy": 0.5, "n": 2}, "text": {"accuracy": 1.0, "n": 2}}
    assert {group: (figures["accuracy"], figures["n"]) for group, figures in scores.groups.items()} == {
        "NAT": (1, 1), "LAN": (1, 2), "SOC": (0, 1), "TXT": (0.5, 2), "IMG": (0.5, 2), "NO": (1, 1),
        "G1-6": (0.5, 2), "G7-12": (1, 2),
    }  # fmt: skip


def test_unanswered_questions_leave_the_run_partial(scienceqa: Benchmark, tmp_path: Path) -> None:
    questions = scienceqa.questions(write_official(tmp_path / "data"))
    write_lines(tmp_path / "answers.jsonl", [{"question_id": "7", "prompt": "<image>\n...", "text": "A"}])
    scores = scienceqa.score(questions, scienceqa.read_answers(tmp_path / "answers.jsonl", questions))
    assert (scores.n, scores.total, scores.complete) == (1, 4, False)


@pytest.mark.parametrize("layout", ["scienceqa/images/test", "scienceqa/test", "images/test"])
def test_files_may_lie_in_llavas_folders(scienceqa: Benchmark, tmp_path: Path, layout: str) -> None:
    write_official(tmp_path / layout.split("images")[0].split("test")[0])
    write_png(tmp_path / layout / "7" / "image.png", 7)
    first, *_ = scienceqa.questions(tmp_path)
    assert first.conversation.images[0].source == tmp_path / layout / "7" / "image.png"


def test_faults_of_the_files_are_named(scienceqa: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"llava_test_CQM-A.json or .* is missing; get it from LLaVA's eval.zip"):
        scienceqa.questions(tmp_path)
    write_official(tmp_path)
    rows = json.loads((tmp_path / "llava_test_CQM-A.json").read_text())
    write_json(tmp_path / "llava_test_CQM-A.json", [*rows, rows[0]])
    with pytest.raises(EvaluationError, match="1 questions have an id of another"):
        scienceqa.questions(tmp_path)
    write_json(tmp_path / "llava_test_CQM-A.json", rows[1:])
    with pytest.raises(EvaluationError, match=r"llava_test_CQM-A.json: question 7 of the test split is not there"):
        scienceqa.questions(tmp_path)
    write_json(tmp_path / "llava_test_CQM-A.json", rows)
    write_json(tmp_path / "problems.json", {"7": PROBLEMS["7"]})
    with pytest.raises(EvaluationError, match=r"problems.json: question 12 of the test split is not there"):
        scienceqa.questions(tmp_path)
    write_json(tmp_path / "problems.json", {**PROBLEMS, "12": {"choices": []}})
    with pytest.raises(EvaluationError, match=r"question 12: needs 'answer' \(int\)"):
        scienceqa.questions(tmp_path)
    (tmp_path / "pid_splits.json").unlink()
    with pytest.raises(EvaluationError, match=r"pid_splits.json is missing"):
        scienceqa.questions(tmp_path)


@pytest.mark.parametrize("content", [{"outputs": [1]}, {"outputs": {"7": None}}, {"correct": None, "incorrect": []}])
def test_broken_results_are_told(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError, match=r"results.json: needs '(outputs|7|correct)'"):
        load("scienceqa").read_answers(write_json(tmp_path / "results.json", content), [])


def test_results_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none.json: cannot be read"):
        load("scienceqa").read_answers(tmp_path / "none.json", [])
