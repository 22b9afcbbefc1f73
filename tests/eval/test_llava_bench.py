"""LLaVA-Bench: the official figures to the last digit from reviews alone, and what its judge is asked."""

import json
from pathlib import Path

import pytest

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Answer, Benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.generation.chat_model import ChatModel, Sampling
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

KINDS = ("conv", "detail", "complex")


@pytest.fixture
def bench() -> Benchmark:
    return load("llava_bench")


def write_bench(folder: Path) -> Path:
    """One question of each kind, on two images."""
    questions = [
        {"question_id": n, "image": f"00{n % 2}.jpg", "text": f"What is {kind}?", "category": kind}
        for n, kind in enumerate(KINDS)
    ]
    write_lines(folder / "questions.jsonl", questions)
    write_lines(folder / "context.jsonl", [{"id": n, "image": f"00{n}.jpg", "caption": f"cat {n}"} for n in range(2)])
    answers = [{"question_id": n, "text": f"GPT-4 says {n}", "answer_id": "x"} for n in range(3)]
    write_lines(folder / "answers_gpt4.jsonl", reversed(answers))
    return folder


def reviews_of(contents: list[str]) -> list[Answer]:
    return [Answer(number, content) for number, content in enumerate(contents)]


@needs_reference
@pytest.mark.parametrize("run", [1, 2, 3])
def test_a_published_models_reviews_give_its_published_figures_from_their_file_alone(run: int, tmp_path: Path) -> None:
    name = f"llava-v1.5-7b-eval{run}.jsonl"
    told = evaluate_by_command("llava_bench", "--answers", REFERENCE / "llavabench" / name, "--out", tmp_path)
    assert "PARTIAL" not in told and f"60 reviews by {name}" in told
    (normal,) = json.loads((tmp_path / "scores.json").read_text())["modes"].values()
    expected = expected_scores()["llavabench"][name]
    for kind, figures in {**normal["kinds"], "all": normal["figures"]}.items():
        percent = [round(100 * figures[figure], 1) for figure in ("score", "gpt4", "model")]
        assert percent == expected[kind if kind == "all" else f"llava_bench_{kind}"]
    assert len(normal["kinds"]) == 3 and normal["complete"]


@needs_reference
def test_the_mean_of_three_judge_runs_is_the_published_score(bench: Benchmark) -> None:
    scores = []
    for run in (1, 2, 3):
        path = REFERENCE / "llavabench" / f"llava-v1.5-7b-eval{run}.jsonl"
        replies = bench.judging().read_replies(path)
        given = [Answer(reply.question_id, reply.content) for reply in replies]
        scores.append(round(100 * bench.score(bench.questions_in(path), given).figures["score"], 1))
    assert sum(scores) / 3 == expected_scores()["llavabench"]["mean_7b"]


@pytest.mark.parametrize(
    ("review", "grades"),
    [
        ("8 7.5\nBoth ...", (8.0, 7.5)),
        ("8,6", (8.0, 6.0)),
        ("10 9", (10.0, 9.0)),
        ("9\t7 8", None),
        ("8, 6\nA comma and a space make three words.", None),
        ("8 6 ", None),
        ("Assistant 1: 8", None),
        ("\n8 6", None),
        ("", None),
        ("8 nan", None),
    ],
)
def test_grades_are_the_two_words_of_the_first_line(
    bench: Benchmark, tmp_path: Path, review: str, grades: tuple[float, float] | None
) -> None:
    mark = mark_of(bench, bench.questions(write_bench(tmp_path))[0], review)
    gpt4, model = grades or (-1.0, -1.0)
    assert dict(mark.counts) == {"gpt4": gpt4, "model": model}
    assert bench.judging().readable(review) == (grades is not None) == (mark.parsed is not None)


def test_an_unreadable_review_is_official_minus_one_for_both(bench: Benchmark, tmp_path: Path) -> None:
    questions = bench.questions(write_bench(tmp_path))
    scores = bench.score(questions, reviews_of(["9 6", "8 8", "no idea"]))
    assert scores.figures == {
        "score": 4.333 / 5.333,
        "gpt4": 0.5333,
        "model": 0.4333,
    }  # rounded to three decimals first
    assert scores.kinds["complex"]["score"] == 1.0 and scores.unparsed == [2]
    out = tmp_path / "out"
    write_lines(
        tmp_path / "reviews.jsonl", [{"question_id": n, "content": c} for n, c in enumerate(["9 6", "8 8", "?"])]
    )
    files = ["--answers", tmp_path / "reviews.jsonl", "--data", tmp_path, "--out", out, "--scoring", "strict"]
    told = evaluate_by_command("llava_bench", *files)
    assert "1 of them cannot be read (questions 2)" in told
    normal = json.loads((out / "scores.json").read_text())["modes"]["normal"]
    assert normal["strict"]["score"] == 7 / 8.5 and normal["judge"]["unreadable"] == [2]


def test_the_model_is_asked_the_bare_question(bench: Benchmark, tmp_path: Path) -> None:
    questions = bench.questions(write_bench(tmp_path))
    assert [asked(question) for question in questions] == [(f"What is {kind}?", 1) for kind in KINDS]
    assert [question.kind for question in questions] == list(KINDS)
    assert bench.max_new_tokens == 1024 and bench.name == "llava_bench"


@pytest.mark.parametrize(("variant", "context"), [("letters", "c\na\nt\n \n1"), ("captions", "cat 1")])
def test_the_judge_reads_the_caption_a_letter_a_line_as_the_official_one_did(
    tmp_path: Path, variant: str, context: str
) -> None:
    bench = load("llava_bench", variant)
    judging, question = bench.judging(), bench.questions(write_bench(tmp_path))[1]
    conversation = judging.request(question, "a cat", 0)
    assert conversation.system == "You are a helpful and precise assistant for checking the quality of the answer."
    (message,) = conversation.messages
    assert message.text == (
        f"[Context]\n{context}\n\n[Question]\nWhat is detail?\n\n"
        "[Assistant 1]\nGPT-4 says 1\n\n[End of Assistant 1]\n\n[Assistant 2]\na cat\n\n[End of Assistant 2]\n\n"
        "[System]\nWe would like to request your feedback on the performance of two AI assistants in response to the "
        "user question displayed above. The user asks the question on observing an image. For your reference, the "
        "visual content in the image is represented with a few sentences describing the image. \nPlease rate the "
        "helpfulness, relevance, accuracy, level of details of their responses. Each assistant receives an overall "
        "score on a scale of 1 to 10, where a higher score indicates better overall performance.\nPlease first output "
        "a single line containing only two values indicating the scores for Assistant 1 and 2, respectively. The two "
        "scores are separated by a space.\nIn the subsequent line, please provide a comprehensive explanation of your "
        "evaluation, avoiding any potential bias and ensuring that the order in which the responses were presented "
        "does not affect your judgment.\n\n"
    )
    assert judging.request(question, "a cat", 1) == conversation
    assert judging.sampling(0) == Sampling(max_new_tokens=1024, temperature=0.2)
    assert judging.sampling(1) == Sampling(max_new_tokens=1024, temperature=0.2, seed=1)
    assert (judging.official, judging.tries) == ("gpt-4-0314", 3)


def test_captions_in_a_list_are_lines_as_the_official_script_means_them(bench: Benchmark, tmp_path: Path) -> None:
    write_bench(tmp_path)
    write_lines(tmp_path / "context.jsonl", [{"image": f"00{n}.jpg", "caption": ["a", "b c"]} for n in range(2)])
    request = bench.judging().request(bench.questions(tmp_path)[0], "", 0)
    assert request.messages[0].text.startswith("[Context]\na\nb c\n\n[Question]")


@pytest.mark.parametrize("place", ["llava-bench-in-the-wild", "."])
def test_files_and_images_are_found_where_people_put_them(bench: Benchmark, tmp_path: Path, place: str) -> None:
    write_bench(tmp_path / place)
    write_png(tmp_path / place / "images" / "001.jpg", 9)
    images = [question.conversation.images[0].source for question in bench.questions(tmp_path)]
    assert images[1] == tmp_path / place / "images" / "001.jpg" and shade(images[1]) == 9


def test_a_parquet_folder_holds_the_same(bench: Benchmark, tmp_path: Path) -> None:
    files, table = write_bench(tmp_path / "files"), tmp_path / "table" / "llava-bench-in-the-wild" / "data"
    rows = [
        {"question_id": n, "question": f"What is {kind}?", "image": png(n), "caption": f"cat {n % 2}",
         "gpt_answer": f"GPT-4 says {n}", "category": kind, "image_id": "x"}
        for n, kind in enumerate(KINDS)
    ]  # fmt: skip
    write_parquet(table / "train-00000-of-00001.parquet", rows)
    questions = bench.questions(tmp_path / "table")
    assert [shade(question.conversation.images[0].source) for question in questions] == [0, 1, 2]
    for own, other in zip(questions, bench.questions(files), strict=True):
        assert (own.id, asked(own), own.kind, own.correct) == (other.id, asked(other), other.kind, other.correct)
        assert bench.judging().request(own, "a", 0) == bench.judging().request(other, "a", 0)
    write_bench(tmp_path / "table" / "llava-bench-in-the-wild")
    assert isinstance(bench.questions(tmp_path / "table")[0].conversation.images[0].source, Path)


def test_missing_reviews_are_missed_without_the_data_too(tmp_path: Path) -> None:
    rows = [{"question_id": n, "category": "llava_bench_conv", "content": "8 4"} for n in range(59)]
    write_lines(tmp_path / "reviews.jsonl", rows)
    told = evaluate_by_command("llava_bench", "--answers", tmp_path / "reviews.jsonl", "--out", tmp_path / "out")
    assert "PARTIAL: normal 59 of 60 questions" in told
    write_lines(tmp_path / "reviews.jsonl", [*rows, {**rows[0], "question_id": 60}])
    told = evaluate_by_command("llava_bench", "--answers", tmp_path / "reviews.jsonl", "--out", tmp_path / "out2")
    assert "PARTIAL: normal 60 of 61 questions" in told


def test_missing_files_and_rows_are_named(bench: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"questions.jsonl is missing; get it from hf liuhaotian/llava-bench"):
        bench.questions(tmp_path)
    write_bench(tmp_path)
    write_lines(tmp_path / "answers_gpt4.jsonl", [{"question_id": 0, "text": "x"}])
    with pytest.raises(EvaluationError, match="question 1 lacks its caption or GPT-4's answer"):
        bench.questions(tmp_path)
    (tmp_path / "context.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"context.jsonl is missing"):
        bench.questions(tmp_path)


def test_a_whole_run_asks_the_model_and_the_judge(tmp_path: Path) -> None:
    from llava_lite.evaluation.runner import run

    class Both(ChatModel):
        """Model and judge at once; the judge likes the answer to question 1 less."""

        name = "both"

        def reply(self, conversations: list[Conversation], sampling: Sampling) -> list[str]:
            texts = [conversation.messages[-1].text for conversation in conversations]
            return [("9 4" if "detail" in text else "9 8") if "[Context]" in text else "a cat" for text in texts]

    write_bench(tmp_path)
    for number in range(2):
        write_png(tmp_path / "images" / f"00{number}.jpg", number)
    scores = run(load("llava_bench"), Both(), data=tmp_path, out=tmp_path / "out", judge=Both())
    assert scores.kinds["detail"]["score"] == 4 / 9 and scores.complete
