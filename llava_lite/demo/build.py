"""The main job on the demo world, end to end: world, parts, stage zero, text, align, finetune, measure, report.

Each stage is what a user would run: the same recipe files, the configs under configs/demo/. What a former run finished
and nothing has changed since is kept; what it left half done is resumed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from llava_lite import __version__, recipes
from llava_lite.demo import measure, parts, scene, world
from llava_lite.demo.report import write_report
from llava_lite.demo.watch import MemoryWatch

console = Console(stderr=True)


@dataclass(frozen=True)
class Stage:
    """One stage of the demo.

    settings: what its result depends on besides the stages it needs; any change makes it run again
    run:      makes the result; told whether to go on with what an interrupted run of the same stage left
    """

    name: str
    needs: tuple[str, ...]
    settings: str
    run: Callable[[bool], None]


def build_demo(*, out: Path, short: bool) -> None:
    """Run what is due, measure, print, and write report.json and report.html into `out`."""
    done, fingerprint = run_stages(stages(out, short), out)
    with MemoryWatch() as memory:
        measured = measure.measure(out, fingerprint=fingerprint)
    seconds = {name: stage["seconds"] for name, stage in done.items()} | {"evaluate": measured.seconds}
    peak = max(memory.peak_mb, *(stage["peak_memory_mb"] for stage in done.values()))
    write_report(out, measured, seconds=seconds, peak_memory_mb=peak, short=short)


def stages(out: Path, short: bool) -> list[Stage]:
    """The stages in order. Short: a small world and few steps, to see that everything runs."""
    size = {"num_scenes": 300, "num_test_scenes": 24, "questions_per_kind": 5, "pope_scenes": 4} if short else {}
    code = "".join(Path(module.__file__ or "").read_text(encoding="utf-8") for module in (world, scene, parts))
    data = out / "world"
    images = f"data.image_dir={data / 'images'}"

    def write_world(resume: bool) -> None:
        shutil.rmtree(data, ignore_errors=True)
        world.write_world(data, **size)

    def write_parts(resume: bool) -> None:
        shutil.rmtree(out / "parts", ignore_errors=True)
        parts.write_clip(out / "parts" / "clip", data)
        parts.write_language_model(out / "parts" / "language_model", data)

    def train(name: str, recipe: str, needs: tuple[str, ...], *overrides: str) -> Stage:
        config = recipes.find("configs", f"demo/{name}")
        arguments = [f"output_dir={out / name}", *overrides, *(["max_steps=8", "batch.samples=16"] if short else [])]

        def run(resume: bool) -> None:
            again = "resume=auto" if resume else "overwrite=true"
            exit_code = recipes.launch(recipes.find("train", recipe), ["--config", str(config), *arguments, again])
            if exit_code:
                raise SystemExit(exit_code)

        return Stage(name, needs, config.read_text(encoding="utf-8") + " ".join(arguments), run)

    return [
        Stage("world", (), f"{size}{code}", write_world),
        Stage("parts", ("world",), code, write_parts),
        train(
            "contrastive",
            "contrastive",
            ("parts",),
            f"model.clip={out / 'parts' / 'clip'}",
            f"data.path={data / 'contrastive.json'}",
            images,
        ),
        train(
            "language_model",
            "finetune",
            ("parts",),
            f"model.language_model={out / 'parts' / 'language_model'}",
            f"data.path={data / 'dialogues.json'}",
        ),
        train(
            "align",
            "align",
            ("contrastive", "language_model"),
            f"model.vision_tower={out / 'contrastive'}",
            f"model.language_model={out / 'language_model'}",
            f"data.path={data / 'captions.json'}",
            images,
        ),
        train(
            "finetune",
            "finetune",
            ("align",),
            f"model.checkpoint={out / 'align'}",
            f"data.path={data / 'instructions.json'}",
            images,
        ),
    ]


def run_stages(todo: list[Stage], out: Path) -> tuple[dict[str, dict], str]:
    """Run the stages that are due.

    Returns the `seconds` and `peak_memory_mb` of each when it ran, and the last one's fingerprint.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "stages.json"
    known: dict[str, dict] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    prints: dict[str, str] = {}
    for number, stage in enumerate(todo, start=1):
        upstream = [prints[name] for name in stage.needs]
        prints[stage.name] = hashlib.sha256(json.dumps([__version__, stage.settings, upstream]).encode()).hexdigest()
        before = known.get(stage.name, {})
        same = before.get("fingerprint") == prints[stage.name]
        if same and before["done"]:
            console.print(f"[{number}/{len(todo)}] {stage.name}: unchanged, kept", markup=False)
            continue
        console.print(f"[{number}/{len(todo)}] {stage.name}", style="bold", markup=False)
        spent = float(before["seconds"]) if same else 0.0
        known[stage.name] = {"fingerprint": prints[stage.name], "done": False, "seconds": spent}
        _write(path, known)
        began = time.perf_counter()
        with MemoryWatch() as memory:
            stage.run(same)
        seconds = spent + time.perf_counter() - began
        known[stage.name] |= {"done": True, "seconds": seconds, "peak_memory_mb": memory.peak_mb}
        _write(path, known)
    return {stage.name: known[stage.name] for stage in todo}, prints[todo[-1].name]


def _write(path: Path, content: object) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content, indent=1), encoding="utf-8")
    new.replace(path)
