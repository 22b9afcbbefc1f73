"""README.md of a checkpoint's folder, as the Hub reads it: metadata in front, then text for people.

A card carries a hash of itself. One that we wrote is written anew; one that people wrote, or changed, is theirs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from llava_lite import __version__
from llava_lite.card.markdown import escape
from llava_lite.card.metadata import metadata
from llava_lite.card.model import model_section, use_section
from llava_lite.card.parts import read_contents
from llava_lite.card.results import Result, find_results
from llava_lite.card.scores import limits_section, scores_section
from llava_lite.card.stages import CardError, Start, not_at_hand, read_stages
from llava_lite.card.training import training_section
from llava_lite.checkpoint.folder import load_processor
from llava_lite.checkpoint.transformers_format import differences
from llava_lite.evaluation.files import write_whole
from llava_lite.evaluation.origin import hash_model

_MARK = re.compile(r"<!-- written by llava-lite card, ([0-9a-f]{16}) -->\n")


def write_card(
    model: Path,
    *,
    runs: Sequence[Path] = (),
    scores: Sequence[Path] = (),
    name: str | None = None,
    license: str | None = None,
    base_models: Sequence[str] = (),
    force: bool = False,
) -> list[str]:
    """Write README.md into a checkpoint's folder; return what went into it, and what did not, a line each.

    runs: the output_dirs of the runs that trained it, by default its own; those these started from are found
    scores: see `find_results`; base_models: see `metadata`
    Raises CardError, or what reading the folder raises; what people wrote stays unless `force`.
    """
    path = model / "README.md"
    contents = read_contents(model)
    if path.is_file() and not force and not is_ours(path.read_text(encoding="utf-8", errors="replace")):
        raise CardError(f"{path}: people wrote it, or changed what llava-lite card had written; to replace it: --force")
    stages = read_stages(runs or [model])
    results, left_out = find_results(model, scores)
    name = name or model.resolve().name
    data = metadata(contents, stages, results, name=name, license=license, base_models=base_models)
    gone = not_at_hand(stages)
    how = differences(load_processor(model)) if contents.kind == "native" else []
    blocks = [
        f"# {escape(name)}",
        *model_section(contents),
        *use_section(contents, name, how),
        *training_section(stages),
        *scores_section(results),
        *limits_section(results, [start.short for start in gone]),
        f"Written by `llava-lite card` {__version__} of the weights `{(hash_model(str(model)) or '')[:12]}`.",
    ]
    write_whole(path, sign(data, "\n\n".join(blocks) + "\n"))
    told = f"{path}: the card of {name}, trained in {', '.join(stage.name for stage in stages)}"
    return [told, *_told(data, results, gone), *(f"left out: {why}" for why in left_out)]


def sign(data: ModelCardData, body: str) -> str:
    """Put metadata, our mark and the text together."""
    front = f"---\n{data.to_yaml()}\n---\n"
    text = f"{front}<!-- written by llava-lite card, {_digest(front + body)} -->\n{body}"
    assert ModelCard(text).data.to_dict() == data.to_dict()
    return text


def is_ours(text: str) -> bool:
    """Whether a card is as `sign` wrote it."""
    mark = _MARK.search(text)
    return mark is not None and mark[1] == _digest(_MARK.sub("", text, count=1))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()[:16]


def _told(data: ModelCardData, results: Sequence[Result], gone: Sequence[Start]) -> list[str]:
    scores = ", ".join(f"{result.benchmark} {result.partial}".strip() for result in results)
    bases = ", ".join(data.base_model or ["none is known to be of the hub; name them with --base-model"])
    lines = [f"scores: {scores or 'none; give them with --scores, or evaluate first'}", f"base models: {bases}"]
    if data.license is None:
        lines.append("no license: give one with --license")
    return lines + [f"not recorded: how {start.name} was trained; name its folder with --run" for start in gone]
