"""The demo's figures as a table in the terminal, report.json for programs, and report.html to look at."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table as RichTable

from llava_lite.demo.measure import Measured, as_json
from llava_lite.evaluation.page import Bars, Card, Table, number, page, render_bars, render_cards, render_table
from llava_lite.evaluation.report import card, sample

COLUMNS = ("aligned", "finetuned", "blind", "shuffled")
PACKAGES = ("llava-lite", "torch", "transformers", "tokenizers", "sentencepiece", "pillow", "numpy")


def write_report(
    out: Path, measured: Measured, *, seconds: dict[str, float], peak_memory_mb: float, short: bool
) -> None:
    """Print the table and the conversations; write report.json and report.html."""
    figures = as_json(measured) | {
        "seconds": {"total": sum(seconds.values()), **seconds},
        "peak_memory_mb": peak_memory_mb,
        "short": short,
        "versions": {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "seeds": _seeds(out),
    }
    (out / "report.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(_page(measured, seconds, peak_memory_mb, short), encoding="utf-8")
    _print(measured, seconds, peak_memory_mb, out)


def _page(measured: Measured, seconds: dict[str, float], peak_memory_mb: float, short: bool) -> str:
    texts = {answer.question_id: answer.text for answer in measured.answers}
    finetuned = measured.scores["finetuned"]
    shown = sample(measured.questions, finetuned)
    bars = {
        kind: {name: measured.scores[name].kinds[kind]["accuracy"] for name in ("finetuned", "blind", "shuffled")}
        for kind in finetuned.kinds
    }
    return page(
        "llava_lite: what the demo learnt",
        [
            render_table(_table(measured)),
            render_bars(Bars("Accuracy on held-out scenes, by kind of question", bars)),
            render_cards("Three conversations", _conversations(measured)),
            render_cards(
                "Questions, answers and correct answers",
                [card(question, finetuned, {"normal": texts}, "normal") for question in shown],
                note="Some of each kind, half of them wrong where some are: not a fair sample.",
            ),
            render_table(_times(seconds)),
        ],
        intro=[
            "Vision tower, language model and projector trained from nothing on scenes of colored shapes; all figures "
            "are of scenes that no stage has seen. Blind: asked without the image; shuffled: shown another one.",
            f"POPE F1 {measured.pope.figures['f1']:.3f} · caption loss after align "
            f"{measured.caption_loss['true_image']:.3f} with the true image, "
            f"{measured.caption_loss['shuffled_image']:.3f} with another · peak memory {peak_memory_mb:,.0f} MB",
        ],
        warning="A short run: it shows that everything runs, not what it can learn." if short else "",
    )


def _table(measured: Measured) -> Table:
    kinds = measured.scores["finetuned"].kinds
    rows = [
        [kind, str(kinds[kind]["n"]), *(number(measured.scores[name].kinds[kind]["accuracy"]) for name in COLUMNS)]
        for kind in kinds
    ]
    total = str(measured.scores["finetuned"].n)
    rows.append(["all", total, *(number(measured.scores[name].figures["accuracy"]) for name in COLUMNS)])
    return Table("Accuracy on held-out scenes", ["kind", "n", *COLUMNS], rows)


def _times(seconds: dict[str, float]) -> Table:
    rows = [[name, f"{value:.0f}"] for name, value in seconds.items()]
    return Table("Seconds", ["stage", "seconds"], [*rows, ["total", f"{sum(seconds.values()):.0f}"]])


def _conversations(measured: Measured) -> list[Card]:
    cards = []
    for image, turns in measured.conversations:
        lines = [line for turn in turns for line in (("user", turn.question), ("assistant", turn.answer))]
        right = sum(turn.answer.strip(". ").lower() == turn.correct.strip(". ").lower() for turn in turns)
        words = f"{right} of {len(turns)} right"
        cards.append(Card(image, image.name, "", ("right" if right == len(turns) else "partly", words), lines))
    return cards


def _print(measured: Measured, seconds: dict[str, float], peak_memory_mb: float, out: Path) -> None:
    console = Console()
    content = _table(measured)
    table = RichTable(title=content.title, title_justify="left")
    for index, column in enumerate(content.columns):
        table.add_column(column, justify="right" if index else "left")
    for index, row in enumerate(content.rows):
        table.add_row(*row, style="bold" if index == len(content.rows) - 1 else "")
    console.print(table)
    for image, turns in measured.conversations:
        console.print(f"\n{image}", style="bold", markup=False)
        for turn in turns:
            console.print(f"  user       {turn.question}", markup=False, soft_wrap=True)
            console.print(f"  assistant  {turn.answer}   (correct: {turn.correct})", markup=False, soft_wrap=True)
    console.print(
        f"\nPOPE F1 {measured.pope.figures['f1']:.3f}; caption loss {measured.caption_loss['true_image']:.3f}, "
        f"with another image {measured.caption_loss['shuffled_image']:.3f}; "
        f"{sum(seconds.values()):.0f} s, {peak_memory_mb:,.0f} MB\n{out / 'report.html'}",
        markup=False,
    )


def _seeds(out: Path) -> dict[str, int]:
    """The seeds the stages ran with: the world's and the parts' own, and those of the training runs."""
    runs = {path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in out.glob("*/train.yaml")}
    return {"world": 0, "parts": 0} | {name: int(config["seed"]) for name, config in sorted(runs.items())}
