"""Answers on disk: none lost to a kill, none asked for twice, and never those of two runs in one score."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from pixel_world import COLORS, PIXEL_WORLD, PixelModel, Pixels, read_lines, read_scores

from llava_lite.evaluation.answers import open_answers, read_answers
from llava_lite.evaluation.benchmark import Answer, join
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.origin import Origin, hash_model
from llava_lite.evaluation.runner import run
from tests.checkpoint.test_hub import write_cache


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_and_asks_nothing_twice(data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    command = [sys.executable, str(PIXEL_WORLD), str(data), str(out), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(PIXEL_WORLD.parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not (out / "answers.jsonl").exists() or len(read_lines(out / "answers.jsonl")) < 6:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = {json.loads(line)["prompt"] for line in read_lines(out / "answers.jsonl")}
    assert 6 <= len(saved) < 20
    asked_before = set(log.read_text().splitlines())

    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env=environment)
    times = Counter(log.read_text().splitlines())
    assert len(times) == 20
    assert {text for text, count in times.items() if count > 1} <= asked_before - saved  # the batch under way
    assert max(times.values()) <= 2
    answers = read_answers(out / "answers.jsonl")
    assert len(answers) == len({answer.question_id for answer in answers}) == 20
    assert read_scores(out)["modes"]["normal"] == {
        "complete": True, "n": 20, "total": 20, "figures": {"accuracy": 1.0},
        "ci95": {"accuracy": [1.0, 1.0]}, "unparsed": [],
        "kinds": {kind: {"accuracy": 1.0, "n": 10} for kind in ("short", "long")}, "groups": {},
    }  # fmt: skip


def test_a_finished_run_asks_nothing_again(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    before = (tmp_path / "answers.jsonl").read_bytes()
    again = PixelModel()
    assert run(Pixels(), again, data=data, out=tmp_path).complete
    assert not again.asked
    assert (tmp_path / "answers.jsonl").read_bytes() == before


def test_a_torn_last_line_is_cut_off_and_asked_again(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    torn = json.loads(whole.split(b"\n")[-2])["prompt"]
    path.write_bytes(whole[:-10])
    again = PixelModel()
    assert run(Pixels(), again, data=data, out=tmp_path).complete
    assert again.texts() == [torn]
    assert path.read_bytes() == whole


def test_answers_are_joined_by_id_never_by_order(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    path = tmp_path / "answers.jsonl"
    lines = read_lines(path)
    assert [json.loads(line)["question_id"] for line in lines] != list(range(20))  # asked by length
    path.write_bytes(b"".join(line + b"\n" for line in reversed(lines)))
    assert run(Pixels(), PixelModel(), data=data, out=tmp_path).figures["accuracy"] == 1.0


@pytest.mark.parametrize("changed", ["model", "prompts", "data", "decoding"])
@pytest.mark.parametrize("mode", ["normal", "blind"])
def test_answers_of_another_run_are_refused(data: Path, tmp_path: Path, changed: str, mode: str) -> None:
    out, model, benchmark = tmp_path / "out", PixelModel(), Pixels()
    run(Pixels(), PixelModel(), data=data, out=out)
    before = (out / "answers.jsonl").read_bytes()
    path = data / "pixels.jsonl"
    if changed == "model":
        model.name = "another"
    elif changed == "prompts":
        path.write_text(path.read_text().replace("Color 0?", "Colour 0?"))
    elif changed == "data":
        Image.new("RGB", (9, 9), COLORS["red"]).save(data / "images" / "red.png")
    else:
        benchmark.max_new_tokens = 9
    with pytest.raises(EvaluationError, match=rf"answers.jsonl holds answers of another {changed}; remove it"):
        run(benchmark, model, data=data, out=out, mode=mode)
    assert not model.asked
    assert (out / "answers.jsonl").read_bytes() == before


def test_answers_of_another_mode_are_refused(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path, mode="blind")
    for path in tmp_path.glob("answers.blind.*"):
        path.rename(tmp_path / path.name.replace(".blind", ""))
    with pytest.raises(EvaluationError, match="answers of another mode"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path)


def test_answers_of_unknown_origin_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"question_id": 0, "text": "red"}\n')
    with pytest.raises(EvaluationError, match="nothing says what these are answers to"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path)


def test_removing_the_answers_is_enough_to_ask_anew(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    (tmp_path / "answers.jsonl").unlink()
    other = PixelModel(name="another")
    assert run(Pixels(), other, data=data, out=tmp_path).complete
    assert len(other.texts()) == 20
    assert read_scores(tmp_path)["model"] == "another"
    assert run(Pixels(), other, data=data, out=tmp_path).complete
    assert len(other.texts()) == 20


def test_a_model_trained_anew_in_the_same_folder_is_another_model(data: Path, tmp_path: Path) -> None:
    folder, weights = tmp_path / "model", bytearray(range(256)) * 8192
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    run(Pixels(), PixelModel(name=str(folder)), data=data, out=tmp_path / "out")
    moved = folder.rename(tmp_path / "moved")
    run(Pixels(), PixelModel(name=str(moved)), data=data, out=tmp_path / "out")  # another name, the same weights
    (moved / "model.safetensors").write_bytes(bytes(255 - byte for byte in weights))
    with pytest.raises(EvaluationError, match="answers of another model;"):
        run(Pixels(), PixelModel(name=str(moved)), data=data, out=tmp_path / "out")


def test_a_model_of_the_hub_is_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    write_cache(tmp_path / "hub", "someone/llava-tiny", folder)
    assert hash_model("someone/llava-tiny") == hash_model(str(folder)) is not None
    assert hash_model("someone/other") is None
    assert hash_model("org/tiny at http://127.0.0.1:8000/v1") is None


def test_results_in_the_models_own_folder_do_not_change_its_hash(data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = hash_model(str(tmp_path))
    run(Pixels(), PixelModel(name=str(tmp_path)), data=data, out=tmp_path)
    assert hash_model(str(tmp_path)) == before


def test_whatever_a_model_says_is_read_back_as_it_was(data: Path, tmp_path: Path) -> None:
    said = "a\nb\u2028c \ud800 \x00 [bold] 中文 \\"
    questions = Pixels().questions(data)
    origin = Origin.of(Pixels(), questions, PixelModel())
    with open_answers(tmp_path, origin) as file:
        file.append([(questions[0], said)])
    assert read_answers(tmp_path / "answers.jsonl") == [Answer(0, said)]
    assert run(Pixels(), PixelModel(), data=data, out=tmp_path).n == 20
    assert (tmp_path / "report.html").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_two_runs_do_not_write_into_one_file(data: Path, tmp_path: Path) -> None:
    origin = Origin.of(Pixels(), Pixels().questions(data), PixelModel())
    with open_answers(tmp_path, origin), pytest.raises(EvaluationError, match="another process is answering"):
        open_answers(tmp_path, origin).__enter__()
    with open_answers(tmp_path, origin):
        pass


def test_joining_refuses_two_answers_and_answers_to_nothing(data: Path) -> None:
    questions = Pixels().questions(data)
    with pytest.raises(EvaluationError, match="question 3 has two answers"):
        join(questions, [Answer(3, "red"), Answer(3, "blue")])
    with pytest.raises(EvaluationError, match="not asked"):
        join(questions, [Answer(3, "red"), Answer(77, "blue")])
