"""The recipes as people run them: what is frozen stays, and a mistake gets a message of a few lines and exit code 2."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from llava_lite import recipes, stage
from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.config import read_config
from llava_lite.data.mixture import DataConfig
from llava_lite.evaluation.benchmark import Question
from llava_lite.evaluation.command import load_benchmark
from llava_lite.processor import Processor
from tests.conftest import assemble_lively

ROOT = Path(__file__).parents[2]
Command = Callable[..., int]


@pytest.fixture
def train(tmp_path: Path, clip_dir: Path, lm_dir: Path, world: Path) -> Command:
    """Run a recipe in this process as its command does, on the tiny world; returns the exit code."""

    def run(recipe: str, *overrides: str) -> int:
        parts = [f"model.vision_tower={clip_dir}", f"model.language_model={lm_dir}"]
        data = {"align": "captions.json", "finetune": "instructions.json", "contrastive": "contrastive.json"}[recipe]
        arguments = [
            f"output_dir={tmp_path / recipe}",
            f"data.path={world / data}",
            f"data.image_dir={world / 'images'}",
            *(["model.clip=" + str(clip_dir)] if recipe == "contrastive" else parts),
            "batch.samples=4",
            "batch.tokens=512",
            "max_steps=2",
            "optim.lr=1e-2",
            "loader.workers=0",
            *overrides,
        ]
        return recipes.launch(recipes.find("train", recipe), arguments)

    return run


def test_after_align_only_the_projector_differs(train: Command, tmp_path: Path, clip_dir: Path, lm_dir: Path) -> None:
    before = {path: path.read_bytes() for path in [*clip_dir.iterdir(), *lm_dir.iterdir()]}
    assert train("align", "save.every_steps=1", "save.keep=9") == 0
    first, _ = load(tmp_path / "align" / "step-0", dtype=torch.float32)
    last, _ = load(tmp_path / "align", dtype=torch.float32)
    changed = {n for n, w in last.state_dict().items() if not torch.equal(w, first.state_dict()[n])}
    assert changed == {f"projector.{name}" for name in last.projector.state_dict()}
    assert before == {path: path.read_bytes() for path in [*clip_dir.iterdir(), *lm_dir.iterdir()]}
    assert sorted(p.name for p in (tmp_path / "align").glob("*.safetensors")) == ["projector.safetensors"]


def test_after_finetune_the_tower_is_bit_identical_and_the_rest_has_learnt(
    train: Command, tmp_path: Path, clip_dir: Path
) -> None:
    assert train("align") == 0
    assert train("finetune", f"model.checkpoint={tmp_path / 'align'}", "save.every_steps=1", "save.keep=9") == 0
    first, _ = load(tmp_path / "finetune" / "step-0", dtype=torch.float32)
    last, processor = load(tmp_path / "finetune", dtype=torch.float32)
    same = {n for n, w in last.state_dict().items() if torch.equal(w, first.state_dict()[n])}
    assert same == {f"vision_tower.{name}" for name in last.vision_tower.state_dict()}
    tower, whole = load_file(tmp_path / "finetune" / "model.safetensors"), load_file(clip_dir / "model.safetensors")
    mine = {name.removeprefix("vision_tower."): w for name, w in tower.items() if name.startswith("vision_tower.")}
    assert mine and all(torch.equal(w, whole[name]) for name, w in mine.items())
    assert processor.transform.mode == "pad" and processor.template.name == "vicuna_v1"


def test_the_tokenizers_own_template_is_trained_where_the_recipe_says_so(
    train: Command, tmp_path: Path, lm_dir: Path
) -> None:
    shutil.copytree(lm_dir, tmp_path / "lm")
    (tmp_path / "lm" / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role + ' says ' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant says {% endif %}"
    )
    here = f"model.language_model={tmp_path / 'lm'}"
    assert train("align", here, "model.template=tokenizer") == 0
    assert train("finetune", here, f"model.checkpoint={tmp_path / 'align'}") == 0
    aligned, finetuned = (load(tmp_path / name, dtype=torch.float32)[1].template for name in ("align", "finetune"))
    assert aligned == finetuned and finetuned.user == "user says {}</s>assistant says "
    assert train("finetune", here, f"model.checkpoint={tmp_path / 'align'}", "model.template=qwen_2") == 2


class Seen(Exception):
    """Ends a run once its data has met its processor."""


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("align", []),
        ("align", ["model.image_mode=anyres", "model.projector=pool2_mlp2x_gelu"]),
        ("finetune", []),
        ("finetune", ["model.vision_tower=null"]),
        ("finetune", ["model.checkpoint={llava}", "model.vision_tower=null", "model.language_model=null"]),
        ("finetune", ["model.checkpoint={align}"]),
        ("finetune", ["model.checkpoint={align}", "model.image_mode=anyres", "model.template=llava_v1"]),
    ],
)
def test_inspect_opens_the_very_processor_that_the_data_of_a_run_meets(
    parts: Parts,
    llava_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    overrides: list[str],
) -> None:
    if "{align}" in str(overrides):
        save(tmp_path / "align", *assemble_lively(parts), parts=parts)
    module = recipes.load_recipe(recipes.find("train", recipe))
    given = [
        f"output_dir={tmp_path / recipe}",
        f"model.vision_tower={parts.vision_tower}",
        f"model.language_model={parts.language_model}",
        *(override.format(align=tmp_path / "align", llava=llava_dir) for override in overrides),
    ]
    config = read_config(module.Config, None, given)
    met = []

    def meet(data: DataConfig, processor: Processor, **options: object) -> None:
        met.append(processor)
        raise Seen

    monkeypatch.setattr(stage, "InstructionDataset", meet)
    with pytest.raises(Seen):
        module.main(config)
    alone = module.open_processor(config)
    assert alone.fingerprint == met[0].fingerprint and alone.transform == met[0].transform
    assert alone.template == met[0].template and alone.max_positions == met[0].max_positions == 2048


def test_finetune_starts_from_what_align_learnt(train: Command, tmp_path: Path) -> None:
    assert train("align") == 0
    assert train("finetune", f"model.checkpoint={tmp_path / 'align'}") == 0
    aligned = load_file(tmp_path / "align" / "projector.safetensors")
    start = load_file(tmp_path / "finetune" / "step-0" / "model.safetensors")
    assert torch.equal(aligned["2.weight"], start["multi_modal_projector.linear_2.weight"])


def test_a_mixture_is_trained_and_what_is_left_out_is_listed(train: Command, tmp_path: Path, world: Path) -> None:
    records = json.loads((world / "instructions.json").read_text())[:20]
    records[3]["image"] = "gone.png"
    records[5]["conversations"][-1]["value"] = "red " * 600
    (tmp_path / "bad.json").write_text(json.dumps(records))
    sources = [
        f"{{path: {tmp_path / 'bad.json'}, image_dir: {world / 'images'}}}",
        f"{{path: {world / 'captions.json'}, image_dir: {world / 'images'}, take: random:50%, repeat: 2}}",
    ]
    mixture = ["data.path=null", "data.image_dir=null", f"data.sources=[{', '.join(sources)}]", "batch.rows=2"]
    assert train("finetune", *mixture) == 2
    assert train("finetune", *mixture, "data.on_bad_sample=skip", "data.max_bad=0.1") == 2
    assert train("finetune", *mixture, "data.on_bad_sample=skip", "data.max_bad=0.1", "data.too_long=truncate") == 0
    lineage = json.loads((tmp_path / "finetune" / "lineage.json").read_text())
    assert [source["entries"] for source in lineage["sources"]] == [20, lineage["sources"][1]["records"]]
    assert lineage["left_out"] == {"bad record": 1, "cut at the end": 1}
    listed = [json.loads(line) for line in (tmp_path / "finetune" / "left_out.jsonl").read_text().splitlines()]
    assert [
        (line["what"], records[number]["id"] in line["why"]) for line, number in zip(listed, (3, 5), strict=True)
    ] == [
        ("bad record", True),
        ("cut at the end", True),
    ]


@pytest.mark.parametrize("quantize", [None, "4bit", "8bit"])
def test_lora_learns_an_adapter_and_the_projector_and_goes_on_where_it_stopped(
    train: Command, tmp_path: Path, lm_dir: Path, quantize: str | None
) -> None:
    before = {path: path.read_bytes() for path in lm_dir.iterdir()}
    assert train("align") == 0
    options = [
        *(f"model.checkpoint={tmp_path / 'align'}", "lora.rank=4", "lora.dropout=0.3", "max_steps=3"),
        *("save.every_steps=1", "save.keep=9", *([f"model.quantize={quantize}"] if quantize else [])),
    ]
    out = tmp_path / "finetune"
    assert train("finetune", *options) == 0
    first, _ = load(out / "step-0", dtype=torch.float32)
    last, processor = load(out, dtype=torch.float32)
    changed = {n for n, w in last.state_dict().items() if not torch.equal(w, first.state_dict()[n])}
    adapter = {n for n in last.state_dict() if ".lora_" in n}
    assert changed == adapter | {f"projector.{name}" for name in last.projector.state_dict()}
    assert last.quantize == quantize and last.lora.rank == 4 and processor.transform.mode == "pad"
    assert before == {path: path.read_bytes() for path in lm_dir.iterdir()}
    assert {path.name for path in out.glob("*.safetensors")} == {"adapter_model.safetensors", "projector.safetensors"}

    learnt = {path.name: path.read_bytes() for path in out.glob("*.safetensors")}
    for path in [out / "step-2", out / "step-3"]:
        shutil.rmtree(path)
    (out / "config.json").unlink()
    assert train("finetune", *options, "resume=auto") == 0
    assert learnt == {path.name: path.read_bytes() for path in out.glob("*.safetensors")}


def test_an_adapters_rates_are_its_own_and_the_projectors(train: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert train("finetune", "lora.rank=2", "optim.lr=2e-4", "optim.projector_lr=2e-5", "max_steps=1") == 0
    shown = capfd.readouterr()
    row = {line.split("│")[1].strip(): line for line in (shown.out + shown.err).splitlines() if "│" in line}
    assert "0.0002" in row["language_model"] and "2e-05" in row["projector"] and "frozen" in row["vision_tower"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["model.quantize=4bit"], "weights of few bits do not learn; set lora too"),
        (["lora.rank=4", "train=[vision_tower,language_model]"], "not the vision tower"),
        (["lora.rank=4", "train=[projector]"], "lora: trains the language model"),
        (["lora.rank=0"], "rank and alpha are 1 or more"),
        (["lora.targets=[lm_head]"], "no linear layer lm_head; there are: down_proj"),
        (["lora.rank=4", "model.quantize=3bit"], "model.quantize"),
        (["lora.rank=4", "model.checkpoint={adapter}"], "llava-lite merge"),
        (["model.checkpoint={adapter}"], "llava-lite merge"),
        (["lora.rank=4", "output_dir={adapter}", "resume=auto"], "was started with Lora(rank=2"),
        (["output_dir={adapter}", "resume=auto"], "was started with Lora(rank=2"),
    ],
)
def test_what_an_adapter_cannot_be_is_said(
    train: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    if "{adapter}" in str(options):
        assert train("finetune", "lora.rank=2", f"output_dir={tmp_path / 'adapter'}", "save.every_steps=2") == 0
        if "resume=auto" in options:
            (tmp_path / "adapter" / "config.json").unlink()
    assert train("finetune", *(option.format(adapter=tmp_path / "adapter") for option in options)) == 2
    assert told in capfd.readouterr().err


def test_finetune_keeps_the_image_mode_of_a_finetuned_model(train: Command, tmp_path: Path) -> None:
    assert train("align") == 0
    assert train("finetune", f"model.checkpoint={tmp_path / 'align'}", "model.image_mode=anyres") == 0
    more = [f"model.checkpoint={tmp_path / 'finetune'}", "model.vision_tower=null", "model.language_model=null"]
    assert train("finetune", *more, f"output_dir={tmp_path / 'more'}") == 0
    model, processor = load(tmp_path / "more", dtype=torch.float32)
    assert processor.transform.mode == "anyres" and model.projector.image_newline is not None


def test_a_resume_that_is_refused_leaves_what_the_run_wrote_of_itself(
    train: Command, tmp_path: Path, world: Path
) -> None:
    assert train("finetune", "save.every_steps=1", "save.keep=9") == 0
    (tmp_path / "finetune" / "config.json").unlink()
    files = [tmp_path / "finetune" / name for name in ("lineage.json", "left_out.jsonl", "train.yaml")]
    before = [file.read_text() for file in files]
    shutil.copy(world / "instructions.json", tmp_path / "other.json")
    (tmp_path / "other.json").write_text((tmp_path / "other.json").read_text().replace("red", "rot"))
    assert train("finetune", "resume=auto", f"data.path={tmp_path / 'other.json'}") == 2
    assert [file.read_text() for file in files] == before


def test_contrastive_writes_a_clip_folder_whose_tower_is_ready(train: Command, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPVisionModel

    assert train("contrastive") == 0
    CLIPModel.from_pretrained(tmp_path / "contrastive")
    CLIPVisionModel.from_pretrained(tmp_path / "contrastive")
    assert train("align", f"model.vision_tower={tmp_path / 'contrastive'}") == 0


def test_text_alone_trains_a_language_model(train: Command, tmp_path: Path, world: Path) -> None:
    from transformers import LlamaForCausalLM

    text = [f"data.path={world / 'dialogues.json'}", "model.vision_tower=null", "train=[language_model]"]
    assert train("finetune", *text) == 0
    LlamaForCausalLM.from_pretrained(tmp_path / "finetune")
    assert (
        train("finetune", *text, f"model.language_model={tmp_path / 'finetune'}", f"output_dir={tmp_path / 'two'}") == 0
    )


def what_trains(printed: str) -> dict[str, list[str]]:
    """The table at the start of a run, by part: parameters, trains, dtype, learning rate."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines()]
    return {cells[0]: cells[1:] for cells in rows if len(cells) > 4}


def test_the_start_says_what_trains_at_which_rate(train: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert train("finetune", "optim.projector_lr=0.03") == 0
    rows = what_trains(capfd.readouterr().err)
    assert rows["vision_tower"][1] == "0" and rows["vision_tower"][-1] == "frozen"
    assert rows["projector"][-1] == "0.03" and rows["language_model"][-1] == "0.01"
    assert all(cells[2] == "float32" for cells in rows.values())


def test_align_trains_nothing_but_the_projector(train: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert train("align") == 0
    rows = what_trains(capfd.readouterr().err)
    assert {part: cells[1] == cells[0] for part, cells in rows.items()} == {
        "vision_tower": False,
        "projector": True,
        "language_model": False,
    }
    assert rows["language_model"][1:] == ["0", "float32", "frozen"]


def edited(world: Path, tmp_path: Path, change: Callable[[dict], object]) -> str:
    """The world's instructions with one record changed, as an override."""
    records = json.loads((world / "instructions.json").read_text())[:6]
    change(records[2])
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(records))
    return f"data.path={path}"


MISTAKES: dict[str, tuple[Callable[[Path, Path], str], list[str]]] = {
    "misspelt key": (lambda world, tmp: "optim.lrr=1", ["optim.lrr", "did you mean", "optim.lr"]),
    "wrong type": (lambda world, tmp: "batch.samples=many", ["batch.samples", "many"]),
    "missing data file": (lambda world, tmp: f"data.path={world / 'nothing.json'}", ["nothing.json", "captions.json"]),
    "broken JSON": (
        lambda world, tmp: (tmp / "b.json").write_text('[{"id": 1,}]') and f"data.path={tmp / 'b.json'}",
        ["b.json", "line 1"],
    ),
    "unknown role": (
        lambda world, tmp: edited(world, tmp, lambda r: r["conversations"][0].update({"from": "bot"})),
        ["unknown role 'bot'", "human, gpt"],
    ),
    "no answer": (
        lambda world, tmp: edited(world, tmp, lambda r: r["conversations"].pop()),
        ["has no answer"],
    ),
    "image count": (
        lambda world, tmp: edited(world, tmp, lambda r: r.update(image=[r["image"]] * 2)),
        ["2 images but 1 <image>"],
    ),
    "missing image": (
        lambda world, tmp: edited(world, tmp, lambda r: r.update(image="gone.png")),
        ["no image file", "gone.png", "data.image_dir"],
    ),
    "missing model": (lambda world, tmp: f"model.language_model={tmp / 'none'}", ["none", "no model here"]),
    "unknown projector": (lambda world, tmp: "model.projector=qformer", ["qformer", "mlp2x_gelu"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_a_short_message_and_exit_code_2(
    mistake: str, train: Command, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    override, words = MISTAKES[mistake]
    assert train("finetune", override(world, tmp_path)) == 2
    message = capfd.readouterr().err.strip().splitlines()
    start = next(i for i, line in enumerate(message) if line.startswith("error: "))
    assert 1 <= len(message[start:]) <= 5 and "Traceback" not in "".join(message)
    assert all(word in "\n".join(message[start:]) for word in words)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_names_record_and_path(
    train: Command, world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    record = json.loads((world / "instructions.json").read_text())[2]
    whole = (images / record["image"]).read_bytes()
    (images / record["image"]).write_bytes(whole[: len(whole) // 2])
    assert train("finetune", f"data.image_dir={images}", f"loader.workers={workers}", "max_steps=20") == 2
    message = capfd.readouterr().err
    stem = Path(record["image"]).stem  # the records of one image are named after it
    assert f"error: sample {stem}" in message and record["image"] in message and "Traceback" not in message


def test_an_output_folder_with_a_run_says_how_to_go_on(
    train: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("finetune") == 0
    assert train("finetune") == 2
    assert "resume=auto" in (message := capfd.readouterr().err) and "overwrite=true" in message
    assert train("finetune", "resume=auto") == 0
    (tmp_path / "finetune" / "notes.txt").write_text("mine")
    assert train("finetune", "overwrite=true") == 0
    assert (tmp_path / "finetune" / "notes.txt").read_text() == "mine"


def test_a_loss_that_is_no_number_names_the_records(train: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert train("finetune", "optim.lr=1e30", "optim.clip=null", "max_steps=4", "optim.warmup_ratio=0") == 2
    assert "its records: " in capfd.readouterr().err


def test_the_model_is_looked_at_while_it_learns_and_a_run_that_gets_worse_stops(
    train: Command, tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    held_out = [f"evaluate.held_out.path={world / 'dialogues.json'}", f"evaluate.held_out.image_dir={world / 'images'}"]
    benchmark = [f"evaluate.benchmarks.shapes={world}", "evaluate.limit=4", "evaluate.every_steps=1"]
    assert train("finetune", *held_out, *benchmark, "evaluate.patience=2", "max_steps=9", "optim.lr=3") == 0
    out = tmp_path / "finetune"
    rows = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert [row["best"] for row in rows] == [True, False, False]
    assert all(row["figures"].keys() == {"held_out", "shapes.accuracy"} for row in rows)
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert (out / "step-0" / "state").is_dir() and (out / "config.json").is_file()
    assert (out / "evaluations" / "step-2" / "shapes" / "report.html").is_file()
    assert json.loads((out / "evaluations" / "lineage.json").read_text())["sources"][0]["path"].endswith(
        "dialogues.json"
    )
    assert "step 2: held_out" in capfd.readouterr().err


def test_looking_at_the_model_changes_nothing_of_what_it_learns(train: Command, tmp_path: Path, world: Path) -> None:
    """With dropout, checkpointing and sampling of batches beside it."""
    more = ["lora.rank=4", "lora.dropout=0.3", "gradient_checkpointing=full", "max_steps=3"]
    looks = [f"evaluate.benchmarks.shapes={world}", "evaluate.best_by=shapes", "evaluate.limit=4"]
    files = []
    for name, settings in (("plain", []), ("looks", [*looks, "evaluate.every_steps=1"])):
        assert train("finetune", *more, *settings, f"output_dir={tmp_path / name}") == 0
        files.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("recipe", ["align", "finetune"])
def test_a_dry_run_does_everything_once_and_leaves_nothing(
    train: Command, tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str], recipe: str
) -> None:
    before = sorted(tmp_path.iterdir())
    held_out = {"align": "test_captions.json", "finetune": "dialogues.json"}[recipe]
    looks = [f"evaluate.held_out.path={world / held_out}", f"evaluate.held_out.image_dir={world / 'images'}"]
    looks += [f"evaluate.benchmarks.shapes={world}", "evaluate.every_steps=500"]
    assert train(recipe, *looks, "--dry-run") == 0
    assert sorted(tmp_path.iterdir()) == before
    said = capfd.readouterr().err
    for told in ("step 0: held_out", "step 1: held_out", "shapes.accuracy", "after one step", "all of it works"):
        assert told in said


def test_a_dry_run_asks_about_samples_that_the_run_can_use(
    train: Command, tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, *rest = json.loads((world / "instructions.json").read_text())[:9]
    (tmp_path / "data.json").write_text(json.dumps([{**first, "id": "gone", "image": "gone.png"}, *rest]))
    data = [f"data.path={tmp_path / 'data.json'}", "data.on_bad_sample=skip", "data.max_bad=0.5"]
    assert train("finetune", *data, "--dry-run") == 0
    said = "".join(capfd.readouterr().err.split())
    assert "allofitworks" in said and "gone" not in said
    (tmp_path / "finetune.dry-run").mkdir()
    assert train("finetune", *data, "--dry-run") == 2
    assert (tmp_path / "finetune.dry-run").is_dir()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["evaluate.every_steps=1"], "best_by=held_out is not measured"),
        (
            ["evaluate.every_steps=1", "evaluate.benchmarks.shapes=W"],
            "best_by=held_out is not measured; there is shapes",
        ),
        (["evaluate.benchmarks.shapes=W"], "nothing is evaluated without evaluate.every_steps"),
        (["evaluate.every_steps=1", "evaluate.best_by=pop", "evaluate.benchmarks.pop=W"], "did you mean pope?"),
        (["evaluate.every_steps=1", "evaluate.best_by=pope", "evaluate.benchmarks.pope=gone"], "get it from"),
        (
            ["evaluate.every_steps=1", "evaluate.best_by=mmvet", "evaluate.benchmarks.mmvet=W"],
            "evaluate.benchmarks.mmvet: a judge would have to review its answers",
        ),
        (
            ["evaluate.every_steps=1", "evaluate.best_by=mmbench-xx", "evaluate.benchmarks.mmbench-xx=W"],
            "mmbench: no variant 'xx'",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_the_first_step(
    train: Command, tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str], overrides: list[str], told: str
) -> None:
    assert train("finetune", *(override.replace("=W", f"={world}") for override in overrides)) == 2
    assert told in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "finetune" / "log.jsonl").exists()


class Split(type(load_benchmark(ROOT / "eval" / "shapes.py"))):  # type: ignore[misc]
    title = "split"
    variants: ClassVar[dict[str, str]] = {"all": "all of shapes", "odd": "every other question", "test": "no answers"}

    def questions(self, data: Path) -> list[Question]:
        questions = super().questions(data)
        if self.variant == "test":
            return [replace(question, correct=()) for question in questions]
        return questions[:: 2 if self.variant == "odd" else 1]


def test_a_benchmarks_variant_is_looked_at_and_one_without_answers_is_refused_before_the_first_step(
    train: Command, tmp_path: Path, world: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "find_benchmark", lambda name: Split(name.partition("-")[2]))
    looks = ["evaluate.every_steps=9", "evaluate.limit=3", "evaluate.batch_size=2"]
    odd = [f"evaluate.benchmarks.split-odd={world}", "evaluate.best_by=split-odd"]
    assert train("finetune", *looks, *odd) == 0
    rows = [json.loads(line) for line in (tmp_path / "finetune" / "evaluations.jsonl").read_text().splitlines()]
    assert [row["figures"].keys() for row in rows] == [{"split-odd.accuracy"}] * 2
    written = json.loads((tmp_path / "finetune" / "evaluations" / "step-2" / "split-odd" / "scores.json").read_text())
    assert (written["benchmark"], written["modes"]["normal"]["n"]) == ("split-odd", 3)
    assert written["modes"]["normal"]["total"] == -(-len(Split().questions(world)) // 2)

    shutil.rmtree(tmp_path / "finetune")
    unlabelled = [f"evaluate.benchmarks.split-test={world}", "evaluate.best_by=split-test"]
    assert train("finetune", *looks, *unlabelled) == 2
    told = "evaluate.benchmarks.split-test: its files hold no correct answers, so it measures nothing here; choose a"
    assert told in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "finetune" / "log.jsonl").exists()


def test_the_recipe_files_run_by_themselves() -> None:
    import subprocess

    result = subprocess.run([sys.executable, ROOT / "train" / "align.py", "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "optim.lr" in result.stdout and "batch.samples" in result.stdout
