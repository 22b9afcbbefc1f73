"""Choose samples and show them, on the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from llava_lite.data.inspect import page, terminal
from llava_lite.data.inspect.view import Viewer, visible
from llava_lite.data.mixture import Mixture
from llava_lite.data.records import SampleError
from llava_lite.processor import Processor


def show(viewer: Viewer, entries: Sequence[int], *, out: Path, title: str, console: Console) -> bool:
    """Print entries and write them to a page; return whether all of them can be used."""
    if out.is_dir():
        raise SampleError(f"{out}: is a folder; name a file, as {out / 'inspect.html'}")
    title, intro = visible(title), [describe(viewer.processor, viewer.limit)]
    plain = not console.is_terminal  # a file gets no other line breaks than its data's
    console.print(Text("\n").join([Text(title, "bold"), *map(Text, intro), terminal.legend()]), soft_wrap=plain)
    samples, num_bad = [], 0
    for number, entry in enumerate(entries, start=1):
        view = viewer.view(entry)
        num_bad += view.error is not None
        words = terminal.render(view, place=f"{number}/{len(entries)}")
        console.print(Text(), words, sep="\n", soft_wrap=plain)
        samples.append(page.render(view))
    new = out.with_name(f".{out.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    new.write_text(page.page(title, intro, samples), encoding="utf-8")
    new.replace(out)
    console.print()
    if num_bad:
        console.print(Text(f"{num_bad} of {len(entries)} samples cannot be used", "bold red"))
    console.print(Text(f"{out}"), soft_wrap=True)
    return not num_bad


def choose(mixture: Mixture, *, count: int, ids: Sequence[str], seed: int | None) -> list[int]:
    """Return the entries to show: of these ids, or so many drawn at random with a seed, or the first.

    Raises SampleError for an id that no record has.
    """
    if ids:
        return _find(mixture, ids)
    if seed is None:
        return list(range(min(count, len(mixture))))
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(len(mixture), generator=generator)[:count].tolist()


def describe(processor: Processor, limit: int | None) -> str:
    """Say in a line what encodes the samples."""
    told = [f"template {processor.template.name}"]
    if processor.transform is None:
        told.append("no vision tower")
    else:
        side = processor.transform.size
        told.append(
            f"images: {processor.transform.mode}, tiles of {side} x {side}, {processor.num_patches} tokens each"
        )
    if limit is not None:
        told.append(f"at most {limit:,} tokens a sample")
    return " · ".join(told)


def _find(mixture: Mixture, ids: Sequence[str]) -> list[int]:
    found: dict[str, dict[tuple[int, int], int]] = {wanted: {} for wanted in ids}
    for entry in range(len(mixture)):
        entry_id = mixture.entry_id(entry)
        if entry_id in found:  # a record that is repeated is shown once
            place = int(mixture.source_of[entry]), int(mixture.record_of[entry])
            found[entry_id].setdefault(place, entry)
    for wanted, entries in found.items():
        if not entries:
            known = ", ".join(visible(mixture.entry_id(entry)) for entry in islice(range(len(mixture)), 3))
            raise SampleError(f"no record has the id {wanted!r}; the first are: {known}")
    return [entry for entries in found.values() for entry in entries.values()]
