"""The card's section on how a model was trained: its stages side by side, their data, and what these lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava_lite.card.markdown import escape, names_only, table
from llava_lite.card.stages import LAST_STEPS, Stage

# Of train.yaml, where a stage says it.
_SETTINGS = (
    "epochs", "max_steps", "batch.samples", "batch.rows", "batch.tokens", "batch.packing",
    "optim.kind", "optim.lr", "optim.projector_lr", "optim.vision_tower_lr", "optim.betas", "optim.eps",
    "optim.weight_decay", "optim.schedule", "optim.warmup_ratio", "optim.clip", "optim.loss_average",
    "vision_layers", "lora.rank", "lora.alpha", "lora.dropout", "lora.targets", "model.quantize",
    "model.image_mode", "model.template",
    "parallel.strategy", "parallel.offload", "gradient_checkpointing", "fuse", "deterministic", "seed",
)  # fmt: skip
_PARTS = {
    "checkpoint": "the checkpoint",
    "vision_tower": "the vision tower",
    "projector": "the projector",
    "language_model": "the language model",
    "clip": "CLIP",
}
_TOKENS = ("text", "image", "learnt")
_EXAMPLES = 3
_LOST = {
    "bad record": "could not be used",
    "too long": "left out, being longer than the longest sample",
    "cut at the end": "longer than the longest sample, and learnt from as far as that",
    "opening answer": "answers no question, so it was not learnt from",
}


def training_section(stages: Sequence[Stage]) -> list[str]:
    """Write the blocks of the section, in order."""
    blocks = ["## Training", _order(stages), "### Data", _data(stages)]
    if lost := _lost(stages):
        blocks += ["What the stages did not learn from:", lost]
    return [*blocks, "### What was done", _totals(stages), "### Settings", _settings(stages)]


def _order(stages: Sequence[Stage]) -> str:
    lines = []
    for number, stage in enumerate(stages, start=1):
        learns = _and([_PARTS.get(part, part) for part in stage.learns])
        start = _and([f"{_PARTS[start.part]} **{escape(start.short)}**" for start in stage.starts])
        line = f"{number}. **{escape(stage.name)}** taught {escape(learns)}"
        lines.append(f"{line}, starting from {start}." if start else f"{line}.")
    return "\n".join(lines)


def _data(stages: Sequence[Stage]) -> str:
    rows = []
    for stage in stages:
        if stage.lineage is None:
            path = stage.run.settings.get("data.path")
            rows.append([escape(stage.name), escape(Path(str(path)).name), "", "", "", "", ""])
            continue
        for source in stage.lineage["sources"]:
            name = source["path"] if source.get("hub") else Path(source["path"]).name
            counts = [
                f"{source['records']:,}",
                escape(source["take"]),
                f"{source['repeat']:g}",
                f"{source['entries']:,}",
            ]
            rows.append([escape(stage.name), escape(name), *counts, escape(source["sha256"][:12])])
    return table(["stage", "data", "records", "taken", "repeated", "samples an epoch", "SHA-256"], rows)


def _lost(stages: Sequence[Stage]) -> str:
    rows = []
    for stage in stages:
        folders = _folders(stage)
        for what in dict.fromkeys(what for what, _ in stage.left_out):
            reasons = [why for kind, why in stage.left_out if kind == what]
            shown = [escape(names_only(why, folders)) for why in reasons[:_EXAMPLES]]
            more = [f"and {len(reasons) - _EXAMPLES:,} more"] if len(reasons) > _EXAMPLES else []
            meaning = f"{escape(what)}: {_LOST[what]}" if what in _LOST else escape(what)
            rows.append([escape(stage.name), meaning, f"{len(reasons):,}", "<br>".join(shown + more)])
    return table(["stage", "what", "samples", "which"], rows) if rows else ""


def _folders(stage: Stage) -> set[str]:
    """Where the stage's data was."""
    sources = (stage.lineage or {}).get("sources", [])
    return {place for source in sources for place in (source["image_dir"], str(Path(source["path"]).parent))} - {"."}


def _totals(stages: Sequence[Stage]) -> str:
    columns = [_done(stage) for stage in stages]
    labels = [label for label in columns[0] if any(column[label] for column in columns)]
    return table(
        ["", *(escape(stage.name) for stage in stages)],
        [[label, *(column[label] for column in columns)] for label in labels],
    )


def _done(stage: Stage) -> dict[str, str]:
    """What a stage did, by label; the labels are those of every stage."""
    totals, lineage = stage.totals, stage.lineage
    return {
        "samples of the data": f"{lineage['samples']:,}" if lineage else "",
        "longest sample, in tokens": f"{lineage['max_length']:,}" if lineage else "",
        "steps": f"{totals.steps:,}",
        "samples seen": _about(totals.samples),
        **{f"{sort} tokens": _about(totals.tokens[sort]) if sort in totals.tokens else "" for sort in _TOKENS},
        "time of the steps": _duration(totals.seconds),
        "hardware": "; ".join(dict.fromkeys(map(_machine, stage.machines))) or "not recorded",
        "most memory": _memory(stage),
        f"loss at the end (mean of up to {LAST_STEPS} logged steps)": f"{totals.loss:.4f}",
        "loss on held-out data": "" if stage.held_out is None else f"{stage.held_out:.4f}",
    }


def _settings(stages: Sequence[Stage]) -> str:
    rows = []
    for key in _SETTINGS:
        values = [stage.run.settings.get(key) for stage in stages]
        if any(value is not None for value in values):
            rows.append([f"`{key}`", *("" if value is None else escape(_plain(value)) for value in values)])
    shown = table(["", *(escape(stage.name) for stage in stages)], rows)
    return f"<details><summary>As train.yaml has them</summary>\n\n{shown}\n\n</details>"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _machine(row: dict[str, Any]) -> str:
    devices = _and([f"{count} x {escape(name)}" for name, count in row["devices"].items()])
    return f"{devices}, {escape(row['dtype'])}, torch {escape(row['torch'])}"


def _memory(stage: Stage) -> str:
    for key, of in (("gpu_peak_gib", "on the first GPU"), ("process_peak_gib", "of the process")):
        peaks = [row[key] for row in stage.run.rows.values() if key in row]
        if peaks:
            return f"{max(peaks):.1f} GiB {of}"
    return ""


def _about(count: float) -> str:
    """Write three digits, which is what rates rounded in a log can say."""
    for size, unit in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{float(f'{count:.3g}'):,.0f}"


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
