"""A judge: asked once of every answer, again where it says nothing readable, and never taken for another judge."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from judged_world import JUDGED_WORLD, Judge, Opinions, number_of
from pixel_world import PixelModel, Pixels, read_lines, read_scores

from llava_lite.evaluation.command import Request, evaluate
from llava_lite.evaluation.comparison import compare
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import run
from llava_lite.generation.chat_model import GenerationError, Sampling
from llava_lite.generation.opening import open_model
from tests.generation.endpoint import Endpoint, Handler, whole

WHITE = {3, 7, 11, 15, 19}  # the answers that need no judge
REST = set(range(20)) - WHITE


def rows(out: Path, name: str = "reviews.jsonl") -> dict[int, dict]:
    return {row["question_id"]: row for row in map(json.loads, read_lines(out / name))}


def judged(data: Path, out: Path, judge: Judge | None, **options: object) -> dict:
    run(Opinions(), PixelModel(), data=data, out=out, judge=judge, **options)
    return read_scores(out)["modes"]["normal"]


def test_reviews_are_marked_in_place_of_answers_and_record_what_was_asked(data: Path, tmp_path: Path) -> None:
    judge = Judge(lambda number, time: "yes\n" if number % 2 else "no")
    scores = judged(data, tmp_path, judge)
    assert Counter(number for number, _ in judge.asked) == Counter(REST)
    assert (scores["n"], scores["complete"], scores["figures"]) == (20, True, {"accuracy": 10 / 20})
    assert scores["judge"] == {
        "judged": True, "names": ["oracle"], "reviews": 15, "retried": [], "unreadable": [], "missing": []
    }  # fmt: skip
    assert rows(tmp_path).keys() == REST
    recorded = rows(tmp_path)[1]
    assert len(recorded.pop("answer_sha256")) == 64
    assert recorded == {
        "question_id": 1, "judge": "oracle", "judge_sha256": None, "content": "yes\n", "rejected": [],
        "request": {
            "system": "You know colors.",
            "prompt": "Judge number 1: green or green?",
            "sampling": {**json.loads(json.dumps(vars(Sampling(max_new_tokens=4)))), "stop": []},
        },
    }  # fmt: skip


def test_a_judge_that_says_nothing_readable_is_asked_again_in_other_words(data: Path, tmp_path: Path) -> None:
    judge = Judge(lambda number, time: "yes" if number != 5 or time == 3 else f"mumble {time}")
    scores = judged(data, tmp_path, judge)
    assert [sampling for number, sampling in judge.asked if number == 5] == [
        Sampling(max_new_tokens=4, temperature=0.5 * attempt, seed=attempt) for attempt in range(3)
    ]
    assert (rows(tmp_path)[5]["content"], rows(tmp_path)[5]["rejected"]) == ("yes", ["mumble 1", "mumble 2"])
    assert scores["judge"]["retried"] == [5] and scores["judge"]["unreadable"] == []
    assert scores["figures"]["accuracy"] == 1.0


def test_what_cannot_be_read_to_the_end_is_listed_counted_officially_and_left_out_strictly(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request(model="m", judge="j", data=data, out=tmp_path, strict=True)
    judge = Judge(lambda number, time: "hm" if number in (5, 6) else "yes")
    scores = evaluate([Opinions()], request, lambda name: judge if name == "j" else PixelModel())["opinions"]
    normal = scores["modes"]["normal"]
    assert normal["judge"]["unreadable"] == normal["unparsed"] == [5, 6]
    assert normal["figures"]["accuracy"] == 18 / 20 and normal["strict"]["accuracy"] == 1.0
    assert Counter(number for number, _ in judge.asked)[5] == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "2 of them cannot be read (questions 5, 6), which official scoring counts all the same" in told
    assert "The judge: hm" in (tmp_path / "report.html").read_text()


def test_a_question_that_a_judge_refuses_spoils_no_other_and_is_due_again(data: Path, tmp_path: Path) -> None:
    scores = judged(data, tmp_path, Judge(lambda number, time: "refused" if number == 5 else "yes"))
    assert scores["judge"]["missing"] == [5] and scores["judge"]["reviews"] == 14
    assert (scores["n"], scores["complete"]) == (19, False)
    assert rows(tmp_path)[5]["content"] is None and "refuses to answer" in rows(tmp_path)[5]["error"]
    again = Judge()
    scores = judged(data, tmp_path, again)
    assert [number for number, _ in again.asked] == [5]
    assert (scores["complete"], scores["judge"]["missing"], scores["judge"]["reviews"]) == (True, [], 15)


def test_a_judge_that_answers_nothing_at_all_ends_the_run(data: Path, tmp_path: Path) -> None:
    judge = Judge(lambda number, time: "refused" if number > 8 else "yes")
    with pytest.raises(GenerationError, match="refuses to answer"):
        judged(data, tmp_path, judge, batch_size=4)
    assert {number: row["content"] for number, row in rows(tmp_path).items()} == {
        **dict.fromkeys((0, 1, 2, 4, 5, 6, 8), "yes"), 9: None
    }  # fmt: skip
    assert max(number for number, _ in judge.asked) == 14  # of the batch that got nothing


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_judging_resumes_and_asks_nothing_twice(data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    command = [sys.executable, str(JUDGED_WORLD), str(data), str(out), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(JUDGED_WORLD.parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not (out / "reviews.jsonl").exists() or len(read_lines(out / "reviews.jsonl")) < 4:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = rows(out).keys()
    assert 4 <= len(saved) < 15
    asked_before = set(map(int, log.read_text().split()))
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=environment)
    times = Counter(map(int, log.read_text().split()))
    assert times.keys() == REST
    twice = {number for number, count in times.items() if count > 1}
    assert twice <= asked_before - saved and len(twice) <= 2  # the batch under way
    assert read_scores(out)["modes"]["normal"]["judge"]["reviews"] == 15


def test_a_torn_last_review_is_cut_off_and_asked_again(data: Path, tmp_path: Path) -> None:
    judged(data, tmp_path, Judge())
    path = tmp_path / "reviews.jsonl"
    complete = path.read_bytes()
    torn = json.loads(complete.split(b"\n")[-2])["question_id"]
    path.write_bytes(complete[:-10])
    again = Judge()
    judged(data, tmp_path, again)
    assert [number for number, _ in again.asked] == [torn] and path.read_bytes() == complete
    path.write_bytes(complete[:-10])
    assert judged(data, tmp_path, None)["judge"]["missing"] == [torn]


@pytest.mark.parametrize("changed", ["judge", "prompt or sampling", "another answer than is there"])
def test_reviews_by_another_judge_or_of_another_answer_or_request_are_refused(
    data: Path, tmp_path: Path, changed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(data, tmp_path, Judge())
    before = (tmp_path / "reviews.jsonl").read_bytes()
    judge = Judge(name="another" if changed == "judge" else "oracle")
    if changed == "prompt or sampling":
        monkeypatch.setattr(Opinions, "words", "Referee number")
    if changed == "another answer than is there":
        path = tmp_path / "answers.jsonl"
        path.write_text(path.read_text().replace('"text": "green"', '"text": "grey"'))
    with pytest.raises(EvaluationError, match=rf"reviews.jsonl.* of (another )?{changed}; remove"):
        judged(data, tmp_path, judge)
    assert not judge.asked and (tmp_path / "reviews.jsonl").read_bytes() == before


def test_each_mode_has_reviews_of_its_own_and_the_visual_gain_is_of_them(data: Path, tmp_path: Path) -> None:
    judge = Judge(lambda number, time: "yes")
    run(Opinions(), PixelModel(), data=data, out=tmp_path, judge=judge)
    judge.say = lambda number, time: "yes" if number % 4 == 0 else "no"  # "red" in the dark
    run(Opinions(), PixelModel(), data=data, out=tmp_path, mode="blind", judge=judge)
    assert len(rows(tmp_path, "reviews.jsonl")) == 15 and len(rows(tmp_path, "reviews.blind.jsonl")) == 20
    written = read_scores(tmp_path)
    assert written["visual_gain"]["overall"] == 0.75 and written["visual_gain"]["n"] == 20


def test_without_a_judge_the_answers_are_not_scored_and_its_requests_are_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request(model="m", data=data, out=tmp_path)
    normal = evaluate([Opinions()], request, PixelModel)["opinions"]["modes"]["normal"]
    assert (normal["n"], normal["figures"], normal["kinds"]) == (20, {}, {})
    assert (normal["judge"]["judged"], normal["judge"]["reviews"]) == (False, 0)
    assert set(normal["judge"]["missing"]) == REST
    told = " ".join(capsys.readouterr().out.split())
    assert "NOT JUDGED: normal" in told and "give --judge, or have review_requests.jsonl answered" in told
    lines = [json.loads(line) for line in read_lines(tmp_path / "review_requests.jsonl")]
    assert {number_of(line["body"]["messages"][1]["content"]) for line in lines} == REST
    (line,) = [line for line in lines if line["custom_id"].startswith("1#")]
    assert line | {"custom_id": ""} == {
        "custom_id": "", "method": "POST", "url": "/v1/chat/completions",
        "body": {
            "model": "oracle-1", "max_tokens": 4, "temperature": 0.0,
            "messages": [
                {"role": "system", "content": "You know colors."},
                {"role": "user", "content": "Judge number 1: green or green?"},
            ],
        },
    }  # fmt: skip
    run(Opinions(), PixelModel("m"), data=data, out=tmp_path, judge=Judge())
    assert not (tmp_path / "review_requests.jsonl").exists()


def test_a_judge_in_vain_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="--judge: pixels: none of them needs a judge"):
        evaluate([Pixels()], Request(model="m", judge="j", data=data, out=tmp_path), lambda name: 1 / 0)


def test_one_model_that_judges_itself_is_loaded_once(data: Path, tmp_path: Path) -> None:
    loads = []

    def load(name: str) -> PixelModel:
        loads.append(name)
        return PixelModel(name)

    evaluate([Opinions()], Request(model="m", judge="m", data=data, out=tmp_path), load)
    assert loads == ["m"]


def test_a_comparison_of_two_judges_says_so(data: Path, tmp_path: Path) -> None:
    for name in ("oracle", "sphinx"):
        judged(data, tmp_path / name, Judge(name=name))
    judged(data, tmp_path / "again", Judge(lambda number, time: "no"))
    (two,) = compare(tmp_path / "oracle", tmp_path / "sphinx", lambda name: Opinions())
    assert two.table().title == "opinions · 20 questions · JUDGED BY oracle AND BY sphinx"
    (one,) = compare(tmp_path / "oracle", tmp_path / "again", lambda name: Opinions())
    assert one.table().title == "opinions · 20 questions"


def test_a_flaky_endpoint_is_outlasted_and_what_it_never_says_is_listed(data: Path, tmp_path: Path) -> None:
    """Rubbish, broken responses and failures, then sense; 6 mumbles for ever and 8 is refused for ever."""

    def say(handler: Handler) -> None:
        number, first = number_of(handler.question), handler.attempt == 1
        if number == 6:
            handler.send_json(whole("it depends"))
        elif number == 8:
            handler.send_error_of(400, "I do not talk about this")
        elif number == 0 and "Just yes or no!" not in handler.question:
            handler.send_json(whole("perhaps"))
        elif number == 1 and first:
            handler.send_error_of(500, "out of memory")
        elif number == 2 and first:
            handler.send_text("<html>the proxy says hello</html>")
        elif number == 4 and first:
            handler.send_json(whole("ye", "gone away"))
        else:
            handler.send_json(whole("yes"))

    with Endpoint(say, models=("oracle", "other")) as endpoint:
        judge = open_model(f"{endpoint.url}#oracle")
        scores = judged(data, tmp_path, judge, batch_size=20)
        told = scores["judge"]
        assert (told["names"], told["reviews"]) == ([f"oracle at {endpoint.url}"], 14)
        assert (sorted(told["retried"]), told["unreadable"], told["missing"]) == ([0, 6], [6], [8])
        assert rows(tmp_path)[0]["rejected"] == ["perhaps"] and rows(tmp_path)[6]["content"] == "it depends"
        assert "I do not talk about this" in rows(tmp_path)[8]["error"]
        assert (scores["n"], scores["figures"]["accuracy"]) == (19, 18 / 19)
        num_requests = len(endpoint.requests)
        judged(data, tmp_path, judge)
        assert {number_of(handler.question) for handler in endpoint.requests[num_requests:]} == {8}
