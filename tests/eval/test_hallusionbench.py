"""HallusionBench: by the official judge and by the leaderboards' rules, counted by question, figure and set."""

import json
from pathlib import Path

import pytest

from llava_lite.evaluation.benchmark import Answer, Benchmark, Question
from llava_lite.evaluation.files import EvaluationError
from llava_lite.generation.chat_model import Sampling
from tests.eval.benchmark_files import (
    asked,
    evaluate_by_command,
    load,
    mark_of,
    png,
    shade,
    write_json,
    write_parquet,
    write_png,
)

PLACES = [  # category, subcategory, visual_input, set, figure, question, correct
    ("VD", "ocr", "1", "0", "0", "0", "1"),
    ("VD", "ocr", "1", "0", "0", "1", "0"),
    ("VD", "ocr", "2", "0", "1", "0", "0"),
    ("VD", "ocr", "2", "0", "1", "1", "1"),
    ("VS", "ocr", "0", "0", "0", "0", "1"),
    ("VS", "ocr", "1", "0", "1", "0", "1"),
    ("VS", "ocr", "2", "0", "2", "0", "0"),
]
NAMES = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "gt_answer")
ROWS = [
    {**dict(zip(NAMES, place, strict=True)), "question": f"Is {n} so?", "gt_answer_details": f"It is {n}.",
     "sample_note": "x", "filename": None if place[2] == "0" else "./hallusion_bench/..."}
    for n, place in enumerate(PLACES)
]  # fmt: skip
IDS = [f"{c}_{s}_{number}_{figure}_{question}" for c, s, _, number, figure, question, _ in PLACES]
UTILS = """
import openai


def evaluate_by_chatgpt(data, output_entry, correctness_entry, gpt_model="gpt-4"):
    for sample in data:
        prompt = "Grade it. "
        prompt += "Say “correct” or not. \\n\\n Question:"
        prompt += sample["question"]
        prompt += "\\nReference: "
        prompt += sample["gt_answer_details"]
        prompt += "\\nPrediction:"
        prompt += sample[output_entry]
        prompt += "\\nOutput:"
        openai.ask(prompt)


def check_same(data):
    prompt = "Are they the same?"
"""


@pytest.fixture
def bench() -> Benchmark:
    return load("hallusionbench")


@pytest.fixture
def rules() -> Benchmark:
    return load("hallusionbench", "rules")


def write_bench(folder: Path) -> Path:
    write_json(folder / "HallusionBench" / "HallusionBench.json", ROWS)
    (folder / "HallusionBench" / "utils.py").write_text(UTILS)
    return folder


def answers(texts: list[str], questions: list[Question]) -> list[Answer]:
    return [Answer(question.id, text) for question, text in zip(questions, texts, strict=True)]


@pytest.mark.parametrize(
    ("review", "verdict"),
    [
        ("correct", "correct"),
        ("Incorrect.", "incorrect"),
        ("The answer is CORRECT, not incorrect", "incorrect"),
        ("unclear", "unclear"),
        ("maybe", "unclear"),
        ("", "unclear"),
        ("partially correct", "correct"),
    ],
)
def test_a_review_is_searched_for_incorrect_first(bench: Benchmark, tmp_path: Path, review: str, verdict: str) -> None:
    questions = {str(question.id): question for question in bench.questions(write_bench(tmp_path))}
    mark = mark_of(bench, questions["VD_ocr_0_0_0"], review)
    assert mark.credit == float(verdict == "correct")
    assert mark.parsed == (None if review in ("maybe", "") else verdict)
    assert bench.judging().readable(review) == (mark.parsed is not None)
    without_figure = mark_of(bench, questions["VS_ocr_0_0_0"], review)
    assert without_figure.credit == float(verdict != "incorrect")


def test_figures_and_sets_are_right_where_all_their_questions_are(bench: Benchmark, tmp_path: Path) -> None:
    questions = bench.questions(write_bench(tmp_path))
    assert [question.id for question in questions] == IDS
    reviews = ["correct", "correct", "correct", "incorrect", "unclear", "incorrect", "correct"]
    scores = bench.score(questions, answers(reviews, questions))
    assert scores.figures == {"aAcc": 5 / 7, "fAcc": 2 / 4, "qAcc": 1 / 3, "easy": 2 / 3, "hard": 2 / 3}
    assert list(scores.kinds) == ["VD", "VS"] and list(scores.groups) == ["VD_ocr", "VS_ocr"]
    assert scores.kinds["VD"] == {"aAcc": 3 / 4, "fAcc": 1 / 2, "qAcc": 1 / 2, "easy": 1.0, "hard": 1 / 2, "n": 4}
    assert scores.kinds["VS"] == {"aAcc": 2 / 3, "fAcc": 1 / 2, "qAcc": 0.0, "easy": 0.0, "hard": 1.0, "n": 3}
    assert {question.cluster for question in questions} == {"VD_ocr_0", "VS_ocr_0"}


def test_the_rules_leave_out_what_has_no_figure_and_lead_with_the_mean(rules: Benchmark, tmp_path: Path) -> None:
    questions = rules.questions(write_bench(tmp_path))
    assert [question.id for question in questions] == [id for id in IDS if id != "VS_ocr_0_0_0"]
    assert rules.judging() is None and rules.name == "hallusionbench-rules"
    said = ["Yes.", "No", "no", "no", "Yes, it is.", "dunno"]
    scores = rules.score(questions, answers(said, questions))
    assert scores.figures == {
        "mean": pytest.approx((4 / 6 + 2 / 4 + 1 / 3) / 3), "aAcc": 4 / 6, "fAcc": 2 / 4, "qAcc": 1 / 3,
        "easy": 3 / 3, "hard": 1 / 3,
    }  # fmt: skip
    assert next(iter(scores.figures)) == "mean" and scores.unparsed == ["VS_ocr_0_2_0"]


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [
        ("Yes", "yes", "yes"),
        ("Yes, they are.", "yes", "yes"),
        ("No.", "no", "no"),
        ("yes,no", None, None),
        ("yes/no", None, None),
        ("yes-no", None, None),
        ("It is not", None, None),
        ("Yes: it is", None, "yes"),
        ("**Yes**", None, "yes"),
        ('"yes"', "yes", "yes"),
        ("yes;it is", "yes", "yes"),
        ("a,yes b, c", None, "yes"),  # a comma with a space beside it: commas go without a trace
        ("1,000 say a;yes", None, "yes"),  # a number with a comma: all marks do
        ("There is no doubt: yes", None, None),
        ("Yes.No", None, None),
        ("nope", None, None),
        ("", None, None),
        ("." * 33 + " no.", None, "no"),  # only 32 periods go
    ],
)
def test_the_rules_read_yes_and_no_as_the_leaderboards_do(
    rules: Benchmark, tmp_path: Path, text: str, official: str | None, strict: str | None
) -> None:
    question = rules.questions(write_bench(tmp_path))[0]
    for wanted, mark in (
        (official, mark_of(rules, question, text)),
        (strict, mark_of(rules, question, text, strict=True)),
    ):
        assert (mark.parsed, mark.credit) == (wanted, float(wanted == "yes"))


def test_the_model_is_asked_the_bare_question_with_its_figure_where_it_has_one(
    bench: Benchmark, tmp_path: Path
) -> None:
    questions = bench.questions(write_bench(tmp_path))
    assert [asked(question) for question in questions] == [(f"Is {n} so?", int(n != 4)) for n in range(7)]
    folder = tmp_path / "HallusionBench" / "hallusion_bench"
    write_png(folder / "VD" / "ocr" / "0_1.png", 8)
    assert shade(questions[2].conversation.images[0].source) == 8
    assert bench.max_new_tokens == 512


def test_the_judge_is_asked_in_the_official_words(bench: Benchmark, tmp_path: Path) -> None:
    question = bench.questions(write_bench(tmp_path))[0]
    judging = bench.judging(tmp_path)
    (message,) = judging.request(question, "No.", 0).messages
    assert message.text == (
        "Grade it. Say “correct” or not. \n\n Question:Is 0 so?\nReference: It is 0.\nPrediction:No.\nOutput:"
    )
    assert judging.sampling(1) == Sampling(max_new_tokens=1024, temperature=1.0, seed=1)
    assert (judging.official, judging.tries) == ("gpt-4", 3)


@pytest.mark.parametrize("as_folder", [True, False])
def test_official_results_are_read_as_reviews_or_where_nothing_is_judged_as_answers(
    tmp_path: Path, as_folder: bool
) -> None:
    results = [{**row, "model_prediction": f"says {n}"} for n, row in enumerate(ROWS)]
    path = tmp_path / "results" if as_folder else tmp_path / "results.json"

    def write(rows: list[dict]) -> None:
        if as_folder:
            for name in ("vd", "vs"):
                own = [row for row in rows if row["category"] == name.upper()]
                write_json(path / f"hallusion_output_{name}_model.json", own)
        else:
            write_json(path, rows)

    write(results)
    files = ["--answers", path, "--data", write_bench(tmp_path)]
    told = evaluate_by_command("hallusionbench", *files, "--out", tmp_path / "one")
    assert "NOT JUDGED: normal" in told
    assert '"text": "says 6"' in (tmp_path / "one" / "answers.jsonl").read_text()
    write([{**row, "gpt4v_output_gpt_check": str(n % 3)} for n, row in enumerate(results)])
    evaluate_by_command("hallusionbench", *files, "--out", tmp_path / "two")
    normal = json.loads((tmp_path / "two" / "scores.json").read_text())["modes"]["normal"]
    assert normal["complete"] and normal["figures"]["aAcc"] == 2 / 7  # questions 1 and 4


def test_parquet_folders_hold_the_same(bench: Benchmark, rules: Benchmark, tmp_path: Path) -> None:
    shown = [{**row, "image": png(n)} for n, row in enumerate(ROWS) if row["visual_input"] != "0"]
    bare = [{**row, "image": None} for row in ROWS if row["visual_input"] == "0"]
    folder = tmp_path / "table" / "HallusionBench" / "data"
    write_parquet(folder / "image-00000-of-00001.parquet", shown)
    with pytest.raises(EvaluationError, match=r"non_image-\*.parquet is missing"):
        bench.questions(tmp_path / "table")
    write_parquet(folder / "non_image-00000-of-00001.parquet", bare)
    for own in (bench, rules):
        table = {question.id: question for question in own.questions(tmp_path / "table")}
        files = own.questions(write_bench(tmp_path / "files"))
        assert table.keys() == {question.id for question in files}
        for question in files:
            other = table[question.id]
            assert (asked(question), question.correct, question.row) == (asked(other), other.correct, other.row)
    assert shade(table["VD_ocr_0_1_1"].conversation.images[0].source) == 3


def test_missing_files_and_unknown_words_are_named(bench: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"HallusionBench.json is missing; get it from github.com/tianyi-lab"):
        bench.questions(tmp_path)
    write_bench(tmp_path)
    question = bench.questions(tmp_path)[0]
    path = tmp_path / "HallusionBench" / "utils.py"
    for code, told in (
        (UTILS.replace('sample["question"]', 'sample["other"]'), "asks in another way than known"),
        (UTILS.replace("evaluate_by_chatgpt", "evaluate"), "asks in another way than known"),
        ("def (", "not Python"),
    ):
        path.write_text(code)
        with pytest.raises(EvaluationError, match=told):
            load("hallusionbench").judging(tmp_path).request(question, "x", 0)
    path.unlink()
    with pytest.raises(EvaluationError, match=r"utils.py is missing"):
        bench.judging(tmp_path).request(question, "x", 0)
    write_json(tmp_path / "HallusionBench" / "HallusionBench.json", [ROWS[0], {"category": "VD"}])
    with pytest.raises(EvaluationError, match=r"HallusionBench.json, question 2: needs 'subcategory'"):
        bench.questions(tmp_path)
