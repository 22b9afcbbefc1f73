"""Asking: every question once, in every mode, across kills; and never answers of two runs in one score."""

import io
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
from pixel_world import COLORS, PixelModel, Pixels, write_world

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.answers import AnswersFile, read_answers
from llava_lite.evaluation.benchmark import Answer, EvaluationError, Question, join
from llava_lite.evaluation.modes import in_mode, read_modes
from llava_lite.evaluation.origin import Origin, hash_model
from llava_lite.evaluation.runner import evaluate_files, load_benchmark, main, run

HERE = Path(__file__).parent
PIXEL_WORLD = HERE / "pixel_world.py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_world(tmp_path / "data")


def scores_json(out: Path) -> dict:
    return json.loads((out / "scores.json").read_text())


def test_every_question_is_asked_once_and_scored(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    scores = run(Pixels(), model, data=data, out=tmp_path / "out", batch_size=3)
    assert Counter(model.texts()) == Counter(q.conversation.messages[-1].text for q in Pixels().questions(data))
    assert (scores.figures["accuracy"], scores.n, scores.complete) == (1.0, 20, True)
    written = scores_json(tmp_path / "out")
    assert written["complete"] is True
    assert written["modes"]["normal"]["kinds"] == {k: {"accuracy": 1.0, "n": 10} for k in ("short", "long")}
    assert written["model"] == "pixel-model"
    assert written["decoding"] == {"max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    assert len(written["prompts_sha256"]) == 64
    assert {"python", "transformers"} <= written["versions"].keys()


def test_questions_of_like_length_share_a_batch_the_longest_first(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    run(Pixels(), model, data=data, out=tmp_path / "out", batch_size=5)
    lengths = [[len(conversation.messages[-1].text) for conversation in batch] for batch in model.asked]
    assert [len(batch) for batch in lengths] == [5, 5, 5, 5]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)


def test_blind_takes_the_images_out_and_keeps_the_words(data: Path, tmp_path: Path) -> None:
    model = PixelModel()
    scores = run(Pixels(), model, data=data, out=tmp_path / "out", mode="blind")
    assert scores.figures["accuracy"] == 0.25  # it guesses red
    assert all(not conversation.images for batch in model.asked for conversation in batch)
    assert "Color 0?" in model.texts()
    assert set((tmp_path / "out").glob("answers*.jsonl")) == {tmp_path / "out" / "answers.blind.jsonl"}


def test_shuffled_gives_every_question_anothers_image_and_always_the_same(data: Path, tmp_path: Path) -> None:
    questions = Pixels().questions(data)
    shuffled = in_mode(questions, "shuffled")
    own = {question.conversation.images[0] for question in questions}
    for before, after in zip(questions, shuffled, strict=True):
        assert after.conversation.images[0] != before.conversation.images[0]
        assert after.conversation.images[0] in own
        assert after.conversation.messages[-1].text == before.conversation.messages[-1].text
    assert shuffled == in_mode(questions, "shuffled")
    assert run(Pixels(), PixelModel(), data=data, out=tmp_path / "out", mode="shuffled").figures["accuracy"] == 0.0


def test_shuffling_knows_pictures_without_a_path_by_their_pixels() -> None:
    sources = [png("red"), png("red"), png("blue")]
    questions = [Question(i, Conversation().ask("?", [source]), ("",)) for i, source in enumerate(sources)]
    shown = [question.conversation.images[0].source for question in in_mode(questions, "shuffled")]
    assert shown == [png("blue"), png("blue"), png("red")]


def test_modes_change_images_in_every_turn_and_nothing_else() -> None:
    a, b = Path("a.png"), Path("b.png")
    long = Conversation(system="Be brief.").ask("First?", [a, b]).answer("Yes.").ask("Second?", [a])
    questions = [Question(0, long, ("",)), Question(1, Conversation().ask("No image here."), ("",))]
    for mode, first, second in (("blind", [], []), ("shuffled", [b, a], [b])):
        changed, untouched = in_mode(questions, mode)
        turns = changed.conversation.messages
        assert changed.conversation.system == "Be brief."
        assert [turn.text for turn in turns] == ["First?", "Yes.", "Second?"]
        assert [image.source for image in turns[0].images] == first
        assert [image.source for image in turns[2].images] == second
        assert untouched == questions[1]


def test_shuffling_one_picture_is_refused() -> None:
    questions = [Question(i, Conversation().ask("?", [Path("same.png")]), ("",)) for i in range(3)]
    with pytest.raises(EvaluationError, match="no other to shuffle in"):
        in_mode(questions, "shuffled")


def test_visual_gain_is_normal_minus_blind_and_all_modes_stand_together(data: Path, tmp_path: Path) -> None:
    for mode in ("normal", "blind", "shuffled"):
        run(Pixels(), PixelModel(), data=data, out=tmp_path, mode=mode)
    written = scores_json(tmp_path)
    assert list(written["modes"]) == ["normal", "blind", "shuffled"]
    assert written["visual_gain"] == {
        "figure": "accuracy", "overall": 0.75, "kinds": {"short": 0.5, "long": 1.0}, "n": 20
    }  # fmt: skip


def test_visual_gain_compares_only_questions_that_both_modes_answered(data: Path, tmp_path: Path) -> None:
    run(Pixels(), PixelModel(), data=data, out=tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"text": "white"', '"text": "mauve"'))  # not among the first three
    run(Pixels(), PixelModel(), data=data, out=tmp_path, mode="blind", limit=3)
    gain = scores_json(tmp_path)["visual_gain"]
    assert gain["overall"] == pytest.approx(2 / 3)
    assert (gain["kinds"], gain["n"]) == ({"short": 0.5, "long": 1.0}, 3)
    assert scores_json(tmp_path)["complete"] is False


def test_the_table_shows_kinds_that_only_a_later_mode_has(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Pixels(), PixelModel(name="m"), data=data, out=tmp_path / "out", mode="blind")
    evaluate_files([PIXEL_WORLD], model="m", data=data, out=tmp_path / "out", limit=1, load=PixelModel)
    assert "long" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_and_asks_nothing_twice(data: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    command = [sys.executable, str(PIXEL_WORLD), str(data), str(out), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent)}
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
    assert scores_json(out)["modes"]["normal"] == {
        "complete": True, "n": 20, "total": 20, "figures": {"accuracy": 1.0},
        "kinds": {kind: {"accuracy": 1.0, "n": 10} for kind in ("short", "long")},
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
    assert scores_json(tmp_path)["model"] == "another"
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


def test_results_in_the_models_own_folder_do_not_change_its_hash(data: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = hash_model(str(tmp_path))
    run(Pixels(), PixelModel(name=str(tmp_path)), data=data, out=tmp_path)
    assert hash_model(str(tmp_path)) == before


def test_a_limited_run_is_marked_partial_until_it_is_finished(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"model": "m", "data": data, "out": tmp_path / "out", "load": lambda name: PixelModel()}
    results = evaluate_files([PIXEL_WORLD], **options, limit=3)
    assert "PARTIAL: normal 3 of 20 questions" in " ".join(capsys.readouterr().out.split())
    assert results["pixels"] == scores_json(tmp_path / "out")
    assert results["pixels"]["complete"] is False
    assert (results["pixels"]["modes"]["normal"]["n"], results["pixels"]["modes"]["normal"]["total"]) == (3, 20)
    assert "Not a result. PARTIAL: normal 3 of 20 questions answered." in (tmp_path / "out" / "report.html").read_text()
    assert evaluate_files([PIXEL_WORLD], **options)["pixels"]["complete"] is True
    assert "PARTIAL" not in capsys.readouterr().out
    assert "PARTIAL" not in (tmp_path / "out" / "report.html").read_text()


def test_several_benchmarks_load_one_model_and_get_a_folder_each(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("from pixel_world import Pixels\n\nclass Other(Pixels):\n    name = 'other'\n")
    loads: list[str] = []

    def load(name: str) -> PixelModel:
        loads.append(name)
        return PixelModel(name)

    results = evaluate_files(
        [PIXEL_WORLD, other], model="m", data=data, out=tmp_path / "out", modes=["normal,blind"], load=load
    )
    assert loads == ["m"]
    assert list(results) == ["pixels", "other"]
    for name in results:
        assert list(scores_json(tmp_path / "out" / name)["modes"]) == ["normal", "blind"]


def test_a_missing_file_speaks_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate_files([PIXEL_WORLD], model="m", data=tmp_path, out=tmp_path / "out", load=lambda name: 1 / 0)
    assert str(tmp_path / "pixels.jsonl") in str(caught.value)
    assert "the shop around the corner" in str(caught.value)


def test_a_missing_image_names_the_question_and_the_path(data: Path, tmp_path: Path) -> None:
    (data / "images" / "red.png").unlink()
    model = PixelModel()
    with pytest.raises(EvaluationError, match=r"question \d+: its image .*red.png is missing; get it from the shop"):
        run(Pixels(), model, data=data, out=tmp_path / "out")
    assert not model.asked
    assert run(Pixels(), model, data=data, out=tmp_path / "blind", mode="blind").complete


def test_whatever_a_model_says_is_read_back_as_it_was(data: Path, tmp_path: Path) -> None:
    said = "a\nb\u2028c \ud800 \x00 [bold] 中文 \\"
    questions = Pixels().questions(data)
    origin = Origin.of(Pixels(), questions, PixelModel())
    with AnswersFile(tmp_path, origin) as file:
        file.append([(questions[0], said)])
    assert read_answers(tmp_path / "answers.jsonl") == [Answer(0, said)]
    assert run(Pixels(), PixelModel(), data=data, out=tmp_path).n == 20
    assert (tmp_path / "report.html").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_two_runs_do_not_write_into_one_file(data: Path, tmp_path: Path) -> None:
    origin = Origin.of(Pixels(), Pixels().questions(data), PixelModel())
    with AnswersFile(tmp_path, origin), pytest.raises(EvaluationError, match="another process is answering"):
        AnswersFile(tmp_path, origin)
    AnswersFile(tmp_path, origin).__exit__(None, None, None)


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


def test_joining_refuses_two_answers_and_answers_to_nothing(data: Path) -> None:
    questions = Pixels().questions(data)
    with pytest.raises(EvaluationError, match="question 3 has two answers"):
        join(questions, [Answer(3, "red"), Answer(3, "blue")])
    with pytest.raises(EvaluationError, match="not asked"):
        join(questions, [Answer(3, "red"), Answer(77, "blue")])


def test_an_unknown_mode_names_the_nearest(tmp_path: Path) -> None:
    assert read_modes(["blind, normal", "blind"]) == ["normal", "blind"]
    with pytest.raises(EvaluationError, match="did you mean 'blind'"):
        read_modes(["normal", "blnd"])


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
    written = scores_json(tmp_path / "runs" / "eval" / "runs-m" / "pixels")
    assert {mode: scores["n"] for mode, scores in written["modes"].items()} == {"normal": 2, "blind": 2}


def test_kinds_may_look_like_markup(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "pixels.jsonl"
    path.write_text(path.read_text().replace('"kind": "short"', '"kind": "[/red]"'))
    evaluate_files([PIXEL_WORLD], model="m", data=data, out=tmp_path / "out", load=PixelModel)
    assert "[/red]" in capsys.readouterr().out


def read_lines(path: Path) -> list[bytes]:
    """The whole lines of a file that may be growing."""
    return path.read_bytes().split(b"\n")[:-1]


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), COLORS[color]).save(buffer, "png")
    return buffer.getvalue()
