"""Reviews made elsewhere: read in the formats that there are, tied to their answers, and never mixed."""

import json
from pathlib import Path

import pytest
from judged_world import Judge, Opinions
from pixel_world import PixelModel, read_lines, read_scores

from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.files import EvaluationError, read_constant, read_object
from llava_lite.evaluation.judging import Reply, read_replies
from llava_lite.evaluation.runner import run


def reviews(folder: Path, contents: dict[int, str], name: str = "gpt.jsonl") -> Path:
    """Reviews as LLaVA has them."""
    path = folder / name
    path.write_text("".join(json.dumps({"question_id": n, "content": c}) + "\n" for n, c in contents.items()))
    return path


def batch_replies(requests: Path, path: Path, say: str = "yes") -> Path:
    """Answer a batch of requests as OpenAI does; the first fails."""
    lines = []
    for number, line in enumerate(read_lines(requests)):
        body = {"model": "oracle-1-0613", "choices": [{"message": {"role": "assistant", "content": say}}]}
        response = {"status_code": 200, "body": body} if number else None
        row = {"id": f"r{number}", "custom_id": json.loads(line)["custom_id"], "response": response, "error": None}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


def score(path: Path, data: Path, out: Path, **options: object) -> dict:
    return evaluate([Opinions()], Request(answers=path, data=data, out=out, **options), lambda name: 1 / 0)["opinions"]


def test_reviews_made_elsewhere_are_scored_alone(data: Path, tmp_path: Path) -> None:
    path = reviews(tmp_path, {number: "yes" if number < 5 else "no" for number in range(20)})
    for _ in range(2):
        scores = score(path, data, tmp_path / "out")
        assert (scores["model"], scores["complete"]) == ("gpt.jsonl", True)
        assert scores["modes"]["normal"]["figures"] == {"accuracy": 0.25}
        assert scores["modes"]["normal"]["judge"]["names"] == ["gpt.jsonl"]
    assert "The judge: yes" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "submission").exists()


def test_some_reviews_made_elsewhere_are_a_partial_result(data: Path, tmp_path: Path) -> None:
    scores = score(reviews(tmp_path, {3: "yes", 4: "hm"}), data, tmp_path / "out", strict=True)
    normal = scores["modes"]["normal"]
    assert (normal["n"], normal["complete"], normal["judge"]["unreadable"]) == (2, False, [4])
    assert (normal["figures"]["accuracy"], normal["strict"]["accuracy"]) == (0.5, 1.0)


def test_reviews_of_two_files_are_never_mixed(data: Path, tmp_path: Path) -> None:
    score(reviews(tmp_path, {1: "yes"}), data, tmp_path / "out")
    with pytest.raises(EvaluationError, match="holds other reviews; remove it"):
        score(reviews(tmp_path, {1: "no"}), data, tmp_path / "out")
    with pytest.raises(EvaluationError, match="the review of question 1 is of another answer than is there"):
        run(Opinions(), PixelModel(), data=data, out=tmp_path / "out", judge=Judge())


def test_reviews_without_their_answers_are_refused(data: Path, tmp_path: Path) -> None:
    run(Opinions(), PixelModel(), data=data, out=tmp_path, judge=Judge())
    (tmp_path / "answers.jsonl").unlink()
    with pytest.raises(EvaluationError, match="is of an answer that is not there"):
        run(Opinions(), PixelModel(), data=data, out=tmp_path, mode="blind", judge=Judge())


def test_replies_to_the_requests_are_reviews_of_the_answers_there(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(Opinions(), PixelModel("painter"), data=data, out=out)
    replies = batch_replies(out / "review_requests.jsonl", tmp_path / "replies.jsonl")
    scores = score(replies, data, out)
    assert scores["model"] == "painter"
    told = scores["modes"]["normal"]["judge"]
    assert (told["names"], told["reviews"], len(told["missing"])) == (["oracle-1-0613"], 14, 1)
    assert scores["modes"]["normal"]["figures"]["accuracy"] == 1.0
    (left,) = read_lines(out / "review_requests.jsonl")
    failed = json.loads(read_lines(replies)[0])["custom_id"]
    assert json.loads(left)["custom_id"] == failed
    recorded = [json.loads(line) for line in read_lines(out / "reviews.jsonl")]
    assert all(len(row["answer_sha256"]) == 64 and row["request"]["prompt"].startswith("Judge") for row in recorded)
    assert read_scores(out)["decoding"]["max_new_tokens"] == 8


def test_replies_to_requests_about_other_answers_are_refused(data: Path, tmp_path: Path) -> None:
    run(Opinions(), PixelModel(), data=data, out=tmp_path / "one")
    run(Opinions(), PixelModel(), data=data, out=tmp_path / "two")
    path = tmp_path / "two" / "answers.jsonl"
    path.write_text(path.read_text().replace('"text": "green"', '"text": "grey"'))
    replies = batch_replies(tmp_path / "one" / "review_requests.jsonl", tmp_path / "replies.jsonl")
    with pytest.raises(EvaluationError, match="is no reply to a request about the answers in"):
        score(replies, data, tmp_path / "two")
    with pytest.raises(EvaluationError, match="is no reply to a request about the answers in"):
        score(reviews(tmp_path, {1: "yes"}), data, tmp_path / "one")
    assert score(replies, data, tmp_path / "alone")["modes"]["normal"]["n"] == 14


def test_answers_made_elsewhere_can_be_judged_here(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "said.json"
    path.write_text(json.dumps({str(number): "blue" for number in range(20)}))
    request = Request(answers=path, judge="j", data=data, out=tmp_path / "out")
    scores = evaluate([Opinions()], request, lambda name: Judge(name=name))["opinions"]
    assert (scores["model"], scores["modes"]["normal"]["judge"]["names"]) == ("said.json", ["j"])
    assert scores["modes"]["normal"]["figures"] == {"accuracy": 1.0}
    with pytest.raises(EvaluationError, match="holds reviews, which need no judge; leave out --judge"):
        evaluate([Opinions()], Request(answers=reviews(tmp_path, {1: "no"}), judge="j", data=data), Judge)


def test_faults_in_files_of_reviews_are_told(data: Path, tmp_path: Path) -> None:
    twice = reviews(tmp_path, {1: "yes"})
    twice.write_text(twice.read_text() * 2)
    with pytest.raises(EvaluationError, match="two reviews of question 1"):
        score(twice, data, tmp_path / "out")
    with pytest.raises(EvaluationError, match="not asked"):
        score(reviews(tmp_path, {77: "yes"}), data, tmp_path / "out")
    mixed = reviews(tmp_path, {1: "yes"})
    mixed.write_text(mixed.read_text() + '{"question_id": 2, "text": "a red square"}\n')
    with pytest.raises(EvaluationError, match=r"gpt.jsonl, row 2: no review as those before"):
        score(mixed, data, tmp_path / "out")
    mixed.write_bytes(b'{"question_id": 1, "content": "yes"}\n{"question_')
    with pytest.raises(EvaluationError, match=r"gpt.jsonl, line 2: not JSON"):
        score(mixed, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_answers_hold_no_reviews_and_failed_requests_no_replies(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question_id": 1, "text": "red", "content": 3}\n')
    assert read_replies(path) == [] and read_replies(tmp_path) == [] and read_replies(tmp_path / "b.json") == []
    path.write_text(
        '{"question_id": 1, "content": null, "error": "gone"}\n{"question_id": 1, "content": "yes", "judge": "j"}\n'
        '{"custom_id": "a#b#0123", "response": {"status_code": 200, "body": {"choices": '
        '[{"message": {"content": "no"}}]}}}\n{"custom_id": "c#0123", "response": {"status_code": 500, "body": null}}\n'
    )
    assert read_replies(path) == [Reply(1, "yes", "j"), Reply("a#b", "no", "", "0123")]


def test_a_text_is_read_out_of_a_python_file_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("import nothing_like_it\nother = 'a'\nprompt = '''b\nc'''\n1 / 0\n")
    assert read_constant(path, "prompt") == "b\nc"
    with pytest.raises(EvaluationError, match="has no text named prompts"):
        read_constant(path, "prompts")
    path.write_text("prompt = 'a")
    with pytest.raises(EvaluationError, match=r"code.py: not Python"):
        read_constant(path, "prompt")
    path.write_text("[1]")
    with pytest.raises(EvaluationError, match="a list where an object is expected"):
        read_object(path)


def test_a_benchmark_whose_files_tell_no_questions_needs_its_data(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"opinions: gpt.jsonl does not tell the questions; give --data, too"):
        evaluate([Opinions()], Request(answers=reviews(tmp_path, {1: "yes"})), lambda name: 1 / 0)
    with pytest.raises(EvaluationError, match="give --data, the folder"):
        Request(model="m")
