"""Asking: every question once, in good batches, of one model; and mistakes are told before they cost anything."""

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from pixel_world import PIXEL_WORLD, PixelModel, Pixels, read_lines, read_scores

from llava_lite.evaluation.command import Request, evaluate, load_benchmark, main
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.runner import run
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.opening import open_model
from tests.generation.endpoint import Endpoint, whole


def test_every_question_is_asked_once_and_scored(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    scores = run(Pixels(), model, data=data, out=tmp_path / "out", batch_size=3)
    assert Counter(model.texts()) == Counter(q.conversation.messages[-1].text for q in Pixels().questions(data))
    assert (scores.figures["accuracy"], scores.n, scores.complete) == (1.0, 20, True)
    written = read_scores(tmp_path / "out")
    assert written["complete"] is True
    assert written["modes"]["normal"]["kinds"] == {k: {"accuracy": 1.0, "n": 10} for k in ("short", "long")}
    assert written["model"] == "pixel-model"
    assert written["decoding"] == json.loads(json.dumps(asdict(Sampling(max_new_tokens=8))))
    assert len(written["prompts_sha256"]) == 64
    assert {"python", "transformers"} <= written["versions"].keys()


def test_questions_of_like_length_share_a_batch_the_longest_first(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    run(Pixels(), model, data=data, out=tmp_path / "out", batch_size=5)
    lengths = [[len(conversation.messages[-1].text) for conversation in batch] for batch in model.asked]
    assert [len(batch) for batch in lengths] == [5, 5, 5, 5]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)


def test_several_benchmarks_load_one_model_and_get_a_folder_each(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("from pixel_world import Pixels\n\nclass Other(Pixels):\n    name = 'other'\n")
    loads: list[str] = []

    def load(name: str) -> PixelModel:
        loads.append(name)
        return PixelModel(name)

    results = evaluate(
        [load_benchmark(PIXEL_WORLD), load_benchmark(other)],
        Request(model="m", data=data, out=tmp_path / "out", modes=["normal", "blind"]),
        load,
    )
    assert loads == ["m"]
    assert list(results) == ["pixels", "other"]
    for name in results:
        assert list(read_scores(tmp_path / "out" / name)["modes"]) == ["normal", "blind"]


def test_a_missing_file_speaks_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate([Pixels()], Request(model="m", data=tmp_path, out=tmp_path / "out"), lambda name: 1 / 0)
    assert str(tmp_path / "pixels.jsonl") in str(caught.value)
    assert "the shop around the corner" in str(caught.value)


def test_a_missing_image_names_the_question_and_the_path(data: Path, tmp_path: Path) -> None:
    (data / "images" / "red.png").unlink()
    model = PixelModel()
    with pytest.raises(EvaluationError, match=r"question \d+: its image .*red.png is missing; get it from the shop"):
        run(Pixels(), model, data=data, out=tmp_path / "out")
    assert not model.asked
    assert run(Pixels(), model, data=data, out=tmp_path / "blind", mode="blind").complete


@pytest.mark.parametrize("name", ["../../secret", "{}/secret"], ids=["upwards", "absolute"])
def test_a_picture_outside_the_data_is_refused(data: Path, tmp_path: Path, name: str) -> None:
    name = name.format(tmp_path)
    (data / "images" / "red.png").rename(tmp_path / "secret.png")
    path = data / "pixels.jsonl"
    path.write_text(path.read_text().replace('"red"', json.dumps(name)))
    with pytest.raises(EvaluationError, match=r"question 0: its image .*secret.png lies outside"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path / "out")


def test_a_link_in_the_data_may_lead_anywhere(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "images").rename(tmp_path / "pictures")
    (data / "images").symlink_to(tmp_path / "pictures")
    monkeypatch.chdir(data)
    assert run(Pixels(), PixelModel(), data=Path("."), out=tmp_path / "out").complete


def test_a_broken_row_names_file_and_line(data: Path, tmp_path: Path) -> None:
    path = data / "pixels.jsonl"
    lines = read_lines(path)
    for broken in (b"{", b'{"id": 1}', b"[1]", b'{"text": "\xff"}'):
        path.write_bytes(b"\n".join([lines[0], b"", broken]))
        with pytest.raises(EvaluationError, match=r"pixels.jsonl, line 3: "):
            run(Pixels(), PixelModel(), data=data, out=tmp_path / "out")


def test_a_question_id_that_occurs_twice_is_refused(data: Path, tmp_path: Path) -> None:
    path = data / "pixels.jsonl"
    path.write_bytes(path.read_bytes() + read_lines(path)[4] + b"\n")
    with pytest.raises(EvaluationError, match="two questions have the id 4"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path / "out")


def test_a_limit_or_batch_below_one_is_refused(data: Path, tmp_path: Path) -> None:
    for options in ({"limit": 0}, {"batch_size": 0}):
        with pytest.raises(EvaluationError, match="both start at 1"):
            run(Pixels(), PixelModel(), data=data, out=tmp_path / "out", **options)


def test_an_eval_file_has_one_benchmark(tmp_path: Path) -> None:
    assert load_benchmark(PIXEL_WORLD).name == "pixels"
    empty = tmp_path / "empty.py"
    empty.write_text("from llava_lite.evaluation.benchmark import Benchmark\n")
    with pytest.raises(EvaluationError, match="0 Benchmark subclasses"):
        load_benchmark(empty)
    with pytest.raises(EvaluationError, match="not a Python file"):
        load_benchmark(tmp_path / "missing.py")


def test_an_eval_file_is_a_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["pixels.py", "--model", "runs/m", "--data", str(data), "--mode", "normal,blind", "--limit", "2"]
    )
    monkeypatch.chdir(tmp_path)
    main(Pixels, PixelModel)
    written = read_scores(tmp_path / "runs" / "eval" / "runs-m" / "pixels")
    assert {mode: scores["n"] for mode, scores in written["modes"].items()} == {"normal": 2, "blind": 2}


def test_a_model_behind_an_endpoint_is_known_by_its_name_and_address(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.chdir(tmp_path)
    with Endpoint(lambda handler: handler.send_json(whole("red")), models=("org/tiny", "b")) as endpoint:
        asked = {"model": f"{endpoint.url}#org/tiny", "data": data, "out": None}
        written = evaluate([Pixels()], Request(**asked), open_model)["pixels"]
        assert written["model"] == f"org/tiny at {endpoint.url}" and written["model_sha256"] is None
        assert (written["complete"], written["modes"]["normal"]["figures"]["accuracy"]) == (True, 0.25)
        assert len(endpoint.requests) == 20
        assert evaluate([Pixels()], Request(**asked), open_model)["pixels"] == written and len(endpoint.requests) == 20
        host = endpoint.url.removeprefix("http://").removesuffix("/v1").replace(":", "-")
    (out,) = tmp_path.glob("runs/eval/*/pixels")
    assert out.parent.name == f"http-{host}-v1-org-tiny"
    assert not [path for path in out.iterdir() if b"secret" in path.read_bytes()]
    with Endpoint(models=("b",)) as other:
        with pytest.raises(EvaluationError, match="answers of another model"):
            evaluate([Pixels()], Request(**{**asked, "model": other.url, "out": out}), open_model)
