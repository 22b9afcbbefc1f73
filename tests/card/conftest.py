"""Two small runs as the commands leave them, and what evaluating the second wrote."""

import json
import shutil
from pathlib import Path

import pytest

import llava_lite
from llava_lite import recipes
from llava_lite.evaluation.command import Request, evaluate, find_benchmark


@pytest.fixture(scope="session")
def kitchen(world: Path, clip_dir: Path, lm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align/, finetune/ (of data with a broken record, a long one and an odd name), eval/shapes/ and eval/partial/."""
    home = tmp_path_factory.mktemp("my kitchen")
    records = json.loads((world / "instructions.json").read_text())[:40]
    records[3]["image"] = "gone.png"
    records[5]["conversations"][-1]["value"] = "red " * 600
    (home / "odd|_name_.json").write_text(json.dumps(records))
    parts = [f"model.vision_tower={clip_dir}", f"model.language_model={lm_dir}"]
    captions = [f"data.path={world / 'captions.json'}", f"data.image_dir={world / 'images'}"]
    train(home / "align", "align", *parts, *captions)
    odd = [f"data.path={home}/odd|_name_.json", f"data.image_dir={world / 'images'}", "data.too_long=truncate"]
    start = f"model.checkpoint={home / 'align'}"
    train(home / "finetune", "finetune", start, *odd, "data.on_bad_sample=skip", "data.max_bad=0.1")
    for name, limit in (("shapes", None), ("partial", 3)):
        modes = ("normal", "blind", "shuffled")
        request = Request(data=world, model=str(home / "finetune"), out=home / "eval" / name, modes=modes, limit=limit)
        evaluate([find_benchmark("shapes")], request, llava_lite.open_model)
    return home


@pytest.fixture
def home(kitchen: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test, in another place than where it was trained."""
    shutil.copytree(kitchen, tmp_path / "home")
    return tmp_path / "home"


def train(out: Path, recipe: str, *overrides: str) -> None:
    options = ["batch.samples=4", "batch.tokens=512", "max_steps=3", "loader.workers=0"]
    assert recipes.launch(recipes.find("train", recipe), [f"output_dir={out}", *options, *overrides]) == 0
