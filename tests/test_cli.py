"""The command line: quick to answer, quiet on standard output, and clear about what the user got wrong."""

import base64
import functools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import llava_lite
from llava_lite.checkpoint.folder import load_processor, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.cli import main
from llava_lite.data.sample import read_sample
from llava_lite.models.adapter import Lora
from llava_lite.recipes import names
from tests.conftest import assemble_lively
from tests.generation.endpoint import Endpoint


def llava(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `llava-lite ...` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["llava-lite", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


HELP = "from llava_lite.cli import main\ntry: main()\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("import llava_lite", []), (HELP, ["--help"]), (HELP, ["list"]), (HELP, ["train", "--help"])],
)
def test_neither_the_import_nor_help_nor_list_imports_torch(script: str, arguments: list[str]) -> None:
    check = "\nimport sys; sys.exit('imported: ' + ' '.join({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", script + check, *arguments], capture_output=True, text=True)
    assert result.stderr.strip() == "imported:"


def test_help_answers_well_under_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", HELP, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


def test_every_public_name_resolves_and_no_other() -> None:
    for name in llava_lite.__all__:
        assert getattr(llava_lite, name).__name__ == name
        assert name in dir(llava_lite)
    with pytest.raises(AttributeError, match="has no attribute 'Lava'"):
        llava_lite.Lava  # noqa: B018


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert llava(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"{llava_lite.__version__}\n"


def test_list_names_every_file_as_copy_takes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert llava(monkeypatch, "list") == 0
    lines = capsys.readouterr().out.split()
    assert len(lines) == sum(len(names(kind)) for kind in ("train", "eval", "configs"))
    assert {"train/align.py", "train/finetune.py", "train/contrastive.py", "eval/pope.py"} <= set(lines)
    for line in lines:
        assert llava(monkeypatch, "copy", line, str(tmp_path / line)) == 0
    assert (tmp_path / "train/align.py").read_text() == Path(__file__).parents[1].joinpath("train/align.py").read_text()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train aling", "error: train: nothing is called 'aling'; did you mean align?\n"),
        ("eval pop --model m --data d", "error: eval: nothing is called 'pop'; did you mean pope?\n"),
        ("copy train/aling.py x.py", "error: train: nothing is called 'aling.py'; did you mean align?\n"),
        ("copy align x.py", "error: 'align' should start with train/, eval/ or configs/;"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, expected: str
) -> None:
    assert llava(monkeypatch, *command.split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(expected)


@pytest.mark.parametrize("command", ["", "trian", "train align --confg x", "ask", "eval pope", "train"])
def test_a_wrong_command_line_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert llava(monkeypatch, *command.split()) == 2


def test_train_hands_config_and_overrides_to_the_recipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llava(monkeypatch, "train", "align", "optim.lrr=1", "--config", "nowhere/x.yaml") == 2
    assert capsys.readouterr().err == "error: nowhere/x.yaml: no such file; the folder nowhere does not exist\n"
    assert llava(monkeypatch, "train", "align", "optim.lrr=1") == 2
    assert "optim.lrr (override optim.lrr=1): unknown key; did you mean optim.lr?" in capsys.readouterr().err


def test_help_of_a_recipe_shows_its_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert llava(monkeypatch, "train", "align", "--help") == 0
    assert "optim.lr" in capsys.readouterr().out


def test_an_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(kind: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("llava_lite.recipes.names", interrupted)
    assert llava(monkeypatch, "list") == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.fixture
def weightless(llava_dir: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint without its weights."""
    shutil.copytree(llava_dir, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "model"


@pytest.fixture
def configured(weightless: Path, world: Path, clip_dir: Path, lm_dir: Path, tmp_path: Path) -> Path:
    """A folder of align.yaml and finetune.yaml for the tiny world."""
    parts = {"vision_tower": str(clip_dir), "language_model": str(lm_dir)}
    for recipe, model, data in (
        ("align", parts, "captions.json"),
        ("finetune", {"checkpoint": str(weightless)}, "instructions.json"),
    ):
        data_config = {"path": str(world / data), "image_dir": str(world / "images")}
        config = {"output_dir": str(tmp_path / recipe), "model": model, "data": data_config}
        (tmp_path / f"{recipe}.yaml").write_text(json.dumps(config))
    return tmp_path


def test_inspect_shows_samples_as_a_checkpoint_encodes_them_and_needs_no_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weightless: Path, world: Path, tmp_path: Path
) -> None:
    data, page = str(world / "instructions.json"), tmp_path / "page.html"
    options = ["--model", str(weightless), "--images", str(world / "images"), "-n", "3", "--out", str(page)]
    assert llava(monkeypatch, "inspect", data, *options) == 0
    printed = capsys.readouterr().out
    records = json.loads(Path(data).read_text())[:3]
    processor = load_processor(weightless)
    for number, record in enumerate(records):
        sample = read_sample(record, source="", number=0, image_dir=world / "images")
        length, learnt = processor.length(sample.conversation)
        counts = f"{length} tokens of 2,048 ({length / 2048:.0%}): {length - 16} text, 16 image; {learnt} learnt"
        assert f"{number + 1}/3  {record['id']}  instructions.json\n{counts}\n" in printed
        assert counts in page.read_text() and f"<h2>{record['id']} <small>" in page.read_text()
        assert f"⟦ {record['conversations'][1]['value']}</s>⟧" in printed.replace("↵", "")
    assert printed.endswith(f"{page}\n") and page.read_text().count("<article>") == 3


def test_inspect_shows_samples_as_a_configuration_trains_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], configured: Path, world: Path
) -> None:
    out = ["--out", str(configured / "page.html"), "-n", "1"]
    assert llava(monkeypatch, "inspect", "--config", str(configured / "align.yaml"), *out) == 0
    caption = json.loads((world / "captions.json").read_text())[0]["conversations"][1]["value"]
    assert f"<s>[image 64x64 -> 1 tile, 16 tokens]⟦{caption}↵\n⟧\n" in capsys.readouterr().out

    finetune = ["inspect", "--config", str(configured / "finetune.yaml"), *out]
    assert llava(monkeypatch, *finetune, "model.image_mode=anyres", "model.template=llava_v1") == 0
    printed = capsys.readouterr().out
    assert "a curious human" in printed and "images: anyres" in printed and "grid + base" in printed
    assert llava(monkeypatch, *finetune, "batch.tokens=40") == 1  # such a run would end
    assert "do not fit in 40, which ends a run" in capsys.readouterr().out

    mine = configured / "mine.yaml"
    (configured / "finetune.yaml").rename(mine)
    captions = ["inspect", str(world / "captions.json"), "--config", str(mine), "--recipe", "finetune", *out]
    assert llava(monkeypatch, *captions) == 0
    assert "1/1  " in (printed := capsys.readouterr().out) and "captions.json" in printed


def test_inspect_names_a_bad_record_shows_the_others_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weightless: Path, world: Path, tmp_path: Path
) -> None:
    records = json.loads((world / "instructions.json").read_text())[:3]
    records[1]["image"] = "<script>.png"
    (tmp_path / "mix.json").write_text(json.dumps(records))
    options = ["--model", str(weightless), "--images", str(world / "images"), "--out", str(tmp_path / "page.html")]
    assert llava(monkeypatch, "inspect", str(tmp_path / "mix.json"), *options) == 1
    printed = capsys.readouterr().out
    assert "<script>.png: cannot be read" in printed and "1 of 3 samples cannot be used" in printed
    assert printed.count("⟧") >= 2 and "<script" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("data.json", "inspect: give either --config F"),
        ("data.json --config F --model M", "inspect: give either --config F"),
        ("--model {model}", "inspect: which data? name it"),
        ("{data} --model {model} optim.lr=1", "optim.lr=1 goes with --config"),
        ("{data} --model {model} --id nobody", "no record has the id 'nobody'; the first are: "),
        ("{data} --model {model} --out {folder}", "is a folder; name a file"),
        ("{folder}/gone.json --model {model}", "gone.json: no such data file"),
        ("{data} --model {folder}", "not a checkpoint"),
        ("--config {folder}/mine.yaml", "not called after a recipe; say which it is for, as --recipe finetune"),
        ("--config {folder}/finetune.yaml --recipe contrastive", "has no open_processor"),
        ("--config {folder}/finetune.yaml --recipe fintune", "did you mean finetune?"),
        ("--config {folder}/finetune.yaml optim.lrr=1", "did you mean optim.lr?"),
        ("--config {folder}/finetune.yaml model.image_mode=square", "model.image_mode"),
    ],
)
def test_inspect_says_what_is_wrong_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    configured: Path,
    world: Path,
    command: str,
    expected: str,
) -> None:
    words = command.format(folder=configured, model=configured / "model", data=world / "instructions.json").split()
    assert llava(monkeypatch, "inspect", *words) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and expected in error and len(error.splitlines()) <= 5


def test_ask_prints_the_answer_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Talkative:
        def stream(self, conversation: llava_lite.Conversation, sampling: llava_lite.Sampling) -> Iterator[str]:
            print("loading ...")
            images = [image.source for image in conversation.images]
            yield f"{conversation.system} {conversation.messages[0].text} "
            yield f"{images} {sampling.max_new_tokens} {sampling.temperature} {sampling.top_p} {sampling.seed}"

    monkeypatch.setattr(llava_lite, "open_model", lambda model, **options: Talkative(), raising=False)
    command = ["ask", "m", "What?", "--image", "a.png", "--image", "b.png", "--max-new-tokens", "7", "--system", "Be."]
    monkeypatch.setattr(sys, "argv", ["llava-lite", *command])
    assert llava(monkeypatch, *command) == 0
    assert capsys.readouterr() == ("Be. What? ['a.png', 'b.png'] 7 0.0 1.0 0\n", "loading ...\n")


def test_ask_takes_a_server_for_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Endpoint(models=("a", "b")) as endpoint:
        assert llava(monkeypatch, "ask", f"{endpoint.url}#b", "What?") == 0
        assert capsys.readouterr() == ("What?\n", "")
        assert llava(monkeypatch, "ask", endpoint.url, "What?") == 2
        told = f"error: {endpoint.url}/models: serves a, b; name one: {endpoint.url}#MODEL\n"
        assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize("command", ["ask {} What?", "chat {}", "serve {} --port 0"])
def test_how_a_model_is_held_is_an_option_of_all_that_open_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], llava_dir: Path, command: str
) -> None:
    assert llava(monkeypatch, *command.format(llava_dir).split(), "--quantize", "3bit") == 2
    assert capsys.readouterr() == ("", "error: no quantize '3bit'; there are: 4bit, 8bit\n")


@pytest.mark.parametrize("option", ["--quantize 4bit", "--drop-oldest"])
def test_an_endpoint_refuses_what_its_server_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with Endpoint() as endpoint:
        assert llava(monkeypatch, "chat", endpoint.url, *option.split()) == 2
    assert "an endpoint's server is told of them" in capsys.readouterr().err


def test_ask_fetches_an_image_and_reaches_private_addresses_where_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    picture = sorted((world / "images").glob("*.png"))[0]
    handler = functools.partial(SimpleHTTPRequestHandler, directory=picture.parent)
    with Endpoint() as endpoint, ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}/{picture.name}"
        command = ["ask", endpoint.url, "What?", "--image", url]
        assert llava(monkeypatch, *command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {url}: 127.0.0.1 is no public address") and "--allow-private" in error
        assert not endpoint.requests
        assert llava(monkeypatch, *command, "--allow-private") == 0
        image, _ = endpoint.requests[0].body["messages"][0]["content"]
        assert image["image_url"]["url"].endswith(base64.b64encode(picture.read_bytes()).decode())
        web.shutdown()


def test_merge_prints_what_it_measured_or_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Parts, llava_dir: Path, tmp_path: Path
) -> None:
    model, processor = assemble_lively(parts)
    model.add_lora(Lora(rank=2))
    save(tmp_path / "adapter", model, processor, parts=parts)
    whole = str(tmp_path / "whole")
    assert llava(monkeypatch, "merge", str(tmp_path / "adapter"), whole, "--dtype", "float32") == 0
    assert capsys.readouterr().out.startswith(f"{whole}: merged; logits differ from the adapter's by at most ")
    assert llava(monkeypatch, "merge", str(llava_dir), str(tmp_path / "no")) == 2
    assert capsys.readouterr().err == f"error: {llava_dir}: holds no adapter, so there is nothing to merge\n"
    assert not (tmp_path / "no").exists()
