"""The whole visit: examine, print what people want to know, write what programs want to read.

`bad.jsonl` has one finding a line, `report.txt` is what was printed, and a clean copy is written on request.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llava_lite.data.doctor.examine import Report, Rules, dump_record, examine
from llava_lite.data.doctor.faults import FAULTS, Finding, Severity
from llava_lite.data.mixture import DataConfig, Source, SourceConfig, list_sources
from llava_lite.data.records import SampleError

BAD = "bad.jsonl"
TEXT = "report.txt"
_COLORS: dict[Severity, str] = {"error": "red", "warning": "yellow"}
_BARS = 10


def data_config(data: Path, *, images: Path | None, split: str, reader: str | None) -> DataConfig:
    """Turn what the command names into what `examine` takes. Raises SampleError."""
    if images is not None and not images.is_dir():
        raise SampleError(f"--images {images}: no such folder; name the one that the records' paths start from")
    if data.suffix in (".yaml", ".yml"):
        if reader is not None or split != "train":
            raise SampleError(f"{data}: a mixture names readers and splits itself; write them there")
        return DataConfig(path=data, image_dir=images)
    return DataConfig(sources=(SourceConfig(path=data, image_dir=images, split=split, reader=reader),))


def visit(
    config: DataConfig,
    rules: Rules,
    *,
    out: Path,
    evals: Sequence[Path] = (),
    clean: Path | None = None,
    strict: bool = False,
    console: Console,
) -> bool:
    """Examine data, print the report, write its files into `out`; return whether nothing is wrong.

    clean: where the records without errors are copied to; strict: warnings count as errors.
    Raises SampleError or ConfigError for what was asked wrongly.
    """
    if clean:
        _check_clean(clean, config)
    report, sources = examine(config, rules, evals)
    bad = report.bad(strict)
    parts = [*_sections(report), *_verdict(report, bad, strict)]
    for part in parts:
        console.print(part)
    out.mkdir(parents=True, exist_ok=True)
    with _writing(out / BAD) as file:
        file.writelines(_line(finding) for finding in report.findings)
    with _writing(out / TEXT) as file:
        page = Console(file=file, width=120)
        for part in parts:
            page.print(part)
    console.print(f"Every finding: {out / BAD}", soft_wrap=True)
    if clean and sources:
        kept = _write_clean(clean, report, sources[0], {finding.number for finding in bad})
        console.print(f"Clean copy: {clean} ({kept} of {len(report.rows)} records)", soft_wrap=True)
    return not bad


def _check_clean(path: Path, config: DataConfig) -> None:
    sources = list_sources(config)
    if path.suffix not in (".json", ".jsonl"):
        raise SampleError(f"--clean {path}: name it .json or .jsonl")
    if len(sources) > 1:
        raise SampleError(
            f"--clean {path}: copies one source, and {config.path} lists {len(sources)}; name one of them"
        )
    if path.exists() and path.samefile(sources[0].path):
        raise SampleError(f"--clean {path}: this is the data itself; name another file")


def _sections(report: Report) -> Iterator[RenderableType]:
    yield _header(report)
    severities: tuple[Severity, ...] = ("error", "warning")
    for severity in severities:
        findings = [finding for finding in report.findings if FAULTS[finding.kind].severity == severity]
        if findings:
            yield _title(f"{severity.capitalize()}s", _COLORS[severity])
            yield from _fault_list(findings, report)
    if len(report.rows):
        yield _title("Sources")
        yield source_table(report)
        yield from _histogram(report)


def _header(report: Report) -> Text:
    rules = report.rules
    counts = [
        _count(len(report.rows), "record"),
        _count(len(report.sources), "source"),
        f"{_count(report.num_images, 'image')} ({'decoded' if rules.full else 'by their headers'})",
        f"{report.seconds:.1f} s",
    ]
    return Text(", ".join(counts), style="bold")


def _title(words: str, color: str = "") -> Text:
    return Text(f"\n{words}", style=f"bold {color}".strip())


def _fault_list(findings: list[Finding], report: Report) -> Iterator[RenderableType]:
    """Tell of each kind, the most frequent first: how many there are, one of them, and the remedy."""
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind].append(finding)
    for kind, found in sorted(kinds.items(), key=lambda item: (-len(item[1]), FAULTS[item[0]].number)):
        fault, first = FAULTS[kind], found[0]
        line = Text(f"  {len(found):,} ", style="bold")
        line.append(kind, style=_COLORS[fault.severity])
        yield line
        where = [first.source] if len(report.sources) > 1 or first.number is None else []
        where += [] if first.number is None else [f"record {first.number}"]
        where += [] if first.id in ("", str(first.number)) else [f"({first.id})"]
        yield Padding(Text(f"{' '.join(where)}: {first.detail}"), (0, 0, 0, 4))
        yield Padding(Text(f"-> {fault.remedy}", style="dim"), (0, 0, 0, 4))


def source_table(report: Report) -> Table:
    """Draw a row a source; its lengths are in tokens or characters, as the title of the histogram says."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", overflow="ellipsis", max_width=20)  # what gives way where the table is too wide
    for name in ("records", "image", "text", "turns", "mean", "median", "max", "learnt", "bad"):
        table.add_column(name, justify="right", no_wrap=True)
    bad: dict[str, set[int | None]] = defaultdict(set)
    for finding in report.bad(strict=False):
        bad[finding.source].add(finding.number)
    for place, name in enumerate(report.sources):
        rows = report.rows[report.rows["source"] == place]
        if len(rows):
            table.add_row(name, *_figures(rows), f"{len(bad[name]):,}")
    if len(report.sources) > 1:
        table.add_row("all", *_figures(report.rows), f"{sum(map(len, bad.values())):,}", style="bold")
    return table


def _figures(rows: np.ndarray) -> list[str]:
    """Return the columns between a source's name and how many of its records are bad."""
    measured = rows[rows["length"] > 0]
    lengths = measured["length"] if len(measured) else np.zeros(1)
    learnt = measured["learnt"].sum() / max(1, measured["length"].sum())
    return [
        f"{len(rows):,}",
        f"{(rows['images'] > 0).mean():.0%}",
        f"{(rows['images'] == 0).mean():.0%}",
        f"{rows['turns'].mean():.1f}",
        f"{lengths.mean():,.0f}",
        f"{np.median(lengths):,.0f}",
        f"{lengths.max():,}",
        f"{learnt:.0%}",
    ]


def _unit(report: Report) -> str:
    return "tokens" if report.rules.processor else "characters"


def _histogram(report: Report) -> Iterator[RenderableType]:
    """Draw how many records are how long, in steps that a person would choose; the last bar holds all longer ones."""
    lengths = report.rows["length"][report.rows["length"] > 0]
    if not len(lengths):
        return
    yield _title(f"Lengths in {_unit(report)}")
    top = float(np.percentile(lengths, 98))
    step = next(n * 10**k for k in range(9) for n in (1, 2, 5) if n * 10**k * _BARS > top)
    counts = np.bincount(np.minimum(lengths // step, _BARS))
    width = len(f"{_BARS * step:,}")
    for bar in range(int(np.flatnonzero(counts)[0]), len(counts)):
        upper = f"{(bar + 1) * step - 1:>{width},}" if bar < _BARS else "".rjust(width)
        blocks = "█" * round(40 * counts[bar] / counts.max()) or ("▏" if counts[bar] else "")
        yield Text(f"{bar * step:>{width},} - {upper}  {blocks} {counts[bar]:,}")


def _verdict(report: Report, bad: list[Finding], strict: bool) -> Iterator[RenderableType]:
    """Say how it stands, and what to do next."""
    records = {(finding.source, finding.number) for finding in bad if finding.number is not None}
    num_warnings = sum(not finding.is_error for finding in report.findings)
    if bad:
        what = "finding" if strict else "error"
        where = f" in {len(records):,} of {_count(len(report.rows), 'record')}" if records else ""
        yield _title(f"{_count(len(bad), what)}{where}.", "red")
        yield Text("Mend them, or train without them: data.on_bad_sample=skip, or --clean FILE.")
    elif num_warnings:
        yield _title(f"No errors, {_count(num_warnings, 'warning')}: training takes all of it.", "yellow")
    else:
        yield _title("Nothing found.", "green")
    lost = sum(finding.kind in ("missing-image", "misnamed-image") for finding in bad)
    if lost > 0.5 * max(1, (report.rows["images"] > 0).sum()):
        yield Text("Most images are not found: do the records' paths start from --images?")
    if report.rules.processor is None:
        yield Text("Without --model, what is too long is not known.", style="dim")
    if not report.rules.full:
        yield Text("Without --full, images are not decoded, and some damage stays unseen.", style="dim")


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _line(finding: Finding) -> str:
    fault = FAULTS[finding.kind]
    line = {
        "source": finding.source,
        "record": finding.number,
        "id": finding.id,
        "kind": finding.kind,
        "number": fault.number,
        "severity": fault.severity,
        "reason": finding.detail,
        "remedy": fault.remedy,
    }
    return json.dumps(line) + "\n"  # in ASCII: a reason may quote half a character


def _write_clean(path: Path, report: Report, source: Source, bad: set[int | None]) -> int:
    """Copy the records that are not in `bad`, unchanged; return how many they are."""
    kept = [int(number) for number in report.rows["number"] if int(number) not in bad]
    before, between, after = ("", "", "") if path.suffix == ".jsonl" else ("[\n", ",", "]\n")
    with _writing(path) as file:
        file.write(before)
        for place, number in enumerate(kept):
            file.write(dump_record(source.record(number)) + (between if place + 1 < len(kept) else "") + "\n")
        file.write(after)
    return len(kept)


@contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """Write a file under another name, and put it in its place when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.writing")
    with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file
    draft.replace(path)
