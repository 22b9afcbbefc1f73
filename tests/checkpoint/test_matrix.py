"""The matrix of docs/interchange.md is what happens: every cell is exported for real and read back.

`WRITE_MATRIX=1 pytest tests/checkpoint/test_matrix.py` writes the page anew.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from llava_lite.checkpoint.export import FORMATS, export_checkpoint
from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import CheckpointError, Parts, assemble
from llava_lite.models.projector import ProjectorError
from tests.checkpoint.test_export import assert_native, assert_same_weights
from tests.families import LANGUAGES, write_language, write_tower
from tests.test_house import ROOT

ON = ("transformers", "original", "gguf")
"""The formats whose writers are here."""
PROJECTORS = ("linear", "mlp2x_gelu", "pool2_mlp2x_gelu", "shuffle3_mlp2x_gelu")
TOWERS = ("clip", "siglip", "dinov2")
MODES = ("pad", "crop", "resize", "anyres", "anyres_max_9")
PAGE = ROOT / "docs" / "interchange.md"
START, END = "<!-- matrix: written by tests/checkpoint/test_matrix.py -->", "<!-- end of the matrix -->"


# What each format's refusals begin with.
_SAID = {
    "transformers": "transformers' Llava classes cannot express ",
    "original": "the original LLaVA cannot express this model: ",
    "gguf": "llama.cpp cannot run this model as it is: ",
}
Tried = dict[str, str]
"""What each format made of one model: `exact`, or why not."""


class Bench:
    """The parts of all cells, and a place to write in."""

    def __init__(self, clip_dir: Path, lm_dir: Path, folder: Path) -> None:
        self.folder = folder
        self.towers = {"clip": clip_dir}
        for name, model_type in (("siglip", "siglip_vision_model"), ("dinov2", "dinov2")):
            write_tower(folder / name, model_type)
            self.towers[name] = folder / name
        self.languages = {
            name: write_language(folder / name.replace(" ", "-"), language, lm_dir)
            for name, language in LANGUAGES.items()
        }
        self.count = 0

    def parts(self, family: str, tower: str | None, projector: str = "mlp2x_gelu", mode: str = "pad") -> Parts:
        where = str(self.towers[tower]) if tower else None
        return Parts(where, str(self.languages[family]), projector=projector, image_mode=mode, template="vicuna_v1")

    def try_all(self, parts: Parts) -> Tried:
        """Assemble a model, save it, and write it in every format."""
        self.count += 1
        source = self.folder / f"{self.count}"
        torch.manual_seed(0)
        try:
            model, processor = assemble(parts, dtype=torch.float32)
        except ProjectorError as error:
            return dict.fromkeys(ON, f"not applicable: {str(error).partition(': ')[2].replace(';', ',')}")
        save(source, model, processor)
        return {format: self._try(format, source) for format in ON}

    def _try(self, format: str, source: Path) -> str:
        out = source.with_name(f"{source.name}-{format}")
        try:
            export_checkpoint(str(source), out, format=format)
        except CheckpointError as error:
            return str(error).removeprefix(f"{source}: ").partition(_SAID[format])[2] or str(error)
        if format == "transformers":
            theirs, ours = (load(folder, dtype=torch.float32)[0] for folder in (out, source))
            assert_same_weights(theirs, ours)
            if ours.vision_tower is not None and ours.projector.image_newline is None:
                assert_native(out)
        return "exact"


def matrix(bench: Bench) -> Iterator[str]:
    """Write the page's section, a table for each format."""
    columns = [(tower, projector) for tower in TOWERS for projector in PROJECTORS]
    cells = {
        (family, *column): bench.try_all(bench.parts(family, *column)) for family in LANGUAGES for column in columns
    }
    alone = {family: bench.try_all(bench.parts(family, None)) for family in LANGUAGES}
    modes = {mode: bench.try_all(bench.parts("llama", "clip", mode=mode)) for mode in MODES}
    for format in ON:
        reasons = Reasons(format)
        yield f"### {format}\n"
        for tower in TOWERS:
            rows = {name: [cells[name, tower, projector] for projector in PROJECTORS] for name in LANGUAGES}
            yield from reasons.table(f"{tower} tower, and", PROJECTORS, rows)
        yield from reasons.table("no tower", ("alone",), {name: [alone[name]] for name in LANGUAGES})
        yield from reasons.table("image mode of llama, clip, mlp2x_gelu", ("",), {m: [modes[m]] for m in MODES})
        yield f"Refused, because {_SAID[format].strip(': ')}:\n"
        yield from (f"{number}. {reason}" for reason, number in reasons.numbers.items())
        yield ""


class Reasons:
    """The tables of a format, with a number for each reason."""

    def __init__(self, format: str) -> None:
        self.format = format
        self.numbers: dict[str, int] = {}

    def table(self, title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Tried]]) -> Iterator[str]:
        yield f"| {title} | {' | '.join(columns)} |"
        yield "|---" * (1 + len(columns)) + "|"
        for name, row in rows.items():
            yield f"| {name} | {' | '.join(map(self._shown, row))} |"
        yield ""

    def _shown(self, tried: Tried) -> str:
        outcome = tried[self.format]
        if outcome == "exact":
            return outcome
        reasons = outcome.split("; ") if self.format == "original" else [outcome]  # which tells all at once
        return ", ".join(str(self.numbers.setdefault(reason, 1 + len(self.numbers))) for reason in reasons)


@pytest.mark.slow
def test_the_page_shows_what_every_cell_does(clip_dir: Path, lm_dir: Path, tmp_path: Path) -> None:
    found = "\n".join([START, "", *matrix(Bench(clip_dir, lm_dir, tmp_path))]).rstrip() + f"\n\n{END}"
    page = PAGE.read_text("utf-8")
    section = page[page.index(START) : page.index(END) + len(END)]
    if os.environ.get("WRITE_MATRIX"):
        PAGE.write_text(page.replace(section, found), "utf-8")
    else:
        assert section == found


def test_every_format_is_in_the_matrix_once_its_writer_is_here() -> None:
    here = {path.stem.removesuffix("_format") for path in (ROOT / "llava_lite" / "checkpoint").glob("*_format.py")}
    assert set(ON) == here & set(FORMATS)
