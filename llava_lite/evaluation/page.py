"""The pieces of a report as one HTML file: tables, bar charts, cards with a picture, and the page around them.

Everything stands in the file itself (pictures as data: URIs, charts as SVG, no script), so that it opens offline and
can be mailed. All text is escaped here and nowhere else: models and data may write what they like.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from llava_lite.images.loading import ImageError, load_image

PICTURE_SIZE = 336
MAX_PNG_BYTES = 40_000
CHART_WIDTH, VALUE_WIDTH, BAR_HEIGHT = 360, 36, 13
CHARACTER_WIDTH, MAX_LABEL = 6.2, 22
LONG_LINE = 40

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #22252a; --quiet: #6a6f78; --line: #e2dfd9;
  --s0: #2f6fb7; --s1: #d08a2c; --s2: #8d6bb0; --right: #22794a; --wrong: #b3372f; --partly: #946200; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1f2227; --ink: #e6e4e0; --quiet: #9aa0aa; --line: #34383f;
  --s0: #6ea8e6; --s1: #e0a955; --s2: #b79ad6; --right: #5fc08b; --wrong: #ee857c; --partly: #dcb04f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; max-width: 46rem; }
.quiet { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere; }
.warning { color: var(--wrong); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--quiet); font-weight: 500; font-size: .9rem; white-space: normal; }
@media (max-width: 30rem) { th, td { padding-right: .55rem; font-size: .9rem; } }
.total tbody tr:last-child td { font-weight: 600; border-bottom: 0; }
svg { display: block; width: 100%; max-width: 29rem; height: auto; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; } svg .label { fill: var(--quiet); }
.s0 { fill: var(--s0); background: var(--s0); } .s1 { fill: var(--s1); background: var(--s1); }
.s2 { fill: var(--s2); background: var(--s2); }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 .5rem; font-size: .9rem; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
.note { margin-bottom: 1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.card img { display: block; width: 100%; height: 12rem; object-fit: contain; background: var(--line); }
.card .missing { padding: .75rem .9rem; background: var(--line); }
.card.small img { image-rendering: pixelated; }
.card div { padding: .75rem .9rem 1rem; }
.card p { margin: 0 0 .5rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.card dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem .75rem; margin: 0; font-size: .95rem; }
.card dt { color: var(--quiet); } .card dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
.card .stacked { display: block; } .card .stacked dt { font-size: .85rem; } .card .stacked dd { margin-bottom: .4rem; }
.mark { float: right; margin-left: .75rem; font-weight: 600; font-size: .85rem; }
.right { color: var(--right); } .wrong { color: var(--wrong); } .partly { color: var(--partly); }
"""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row, and the last row sums up, or is one of them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    sums_up: bool = True


@dataclass(frozen=True)
class Bars:
    """A bar chart: for every group one bar a series. At most three series; values from 0 up."""

    title: str
    groups: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Card:
    """One question, shown.

    image:  anything `load_image` opens, or None
    verdict: how right the answer was, and the words for it
    lines:  what was said, by whom: ("answer", "a red circle"), ("correct", "a blue circle")
    """

    image: object | None
    kind: str
    question: str
    verdict: tuple[Literal["right", "partly", "wrong"], str]
    lines: Sequence[tuple[str, str]]


def page(title: str, parts: Sequence[str], *, intro: Sequence[str] = (), warning: str = "") -> str:
    """Put rendered parts on one page."""
    head = [f"<h1>{escape(title)}</h1>"]
    head += [f'<p class="warning">{escape(warning)}</p>'] if warning else []
    head += [f'<p class="quiet">{escape(line)}</p>' for line in intro]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join([*head, *parts])
        + "\n</body>\n</html>\n"
    )


def number(value: float) -> str:
    """Write a figure: ratios, and CIDEr, with three digits, larger ones with one, counts whole."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def render_table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in table.rows)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    total = ' class="total"' if table.sums_up else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table{total}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def render_bars(bars: Bars) -> str:
    """Draw horizontal bars from 0 to 1, or to the largest value where that is more."""
    series = list(dict.fromkeys(name for group in bars.groups.values() for name in group))
    top = max([1.0, *(value for group in bars.groups.values() for value in group.values())])
    labels = {label: label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…" for label in bars.groups}
    left = CHARACTER_WIDTH * max(map(len, labels.values())) + 8
    room = CHART_WIDTH - left - VALUE_WIDTH
    drawn, y = [], 0
    for label, group in bars.groups.items():
        middle = y + BAR_HEIGHT * len(group) / 2 + 4
        place = f'class="label" x="{left - 8:g}" y="{middle:g}" text-anchor="end"'
        drawn.append(f"<text {place}>{escape(labels[label])}</text>")
        for name, value in group.items():
            width = max(1.0, room * max(0.0, value) / top)
            size = f'x="{left:g}" y="{y + 1}" width="{width:.1f}" height="{BAR_HEIGHT - 2}"'
            drawn.append(f'<rect class="s{series.index(name) % 3}" {size} rx="2"/>')
            drawn.append(f'<text x="{left + width + 5:.1f}" y="{y + 10}">{number(value)}</text>')
            y += BAR_HEIGHT
        y += 8
    keys = (f'<span><i class="s{index % 3}"></i>{escape(name)}</span>' for index, name in enumerate(series))
    legend = f'<p class="legend">{"".join(keys)}</p>\n' if len(series) > 1 else ""
    box = f'viewBox="0 0 {CHART_WIDTH} {y}" role="img" aria-label="{escape(bars.title)}"'
    return f"<h2>{escape(bars.title)}</h2>\n{legend}<svg {box}>\n" + "\n".join(drawn) + "\n</svg>"


def render_cards(title: str, cards: Sequence[Card], *, note: str = "") -> str:
    shown = "\n".join(_render_card(card) for card in cards)
    said = f'<p class="quiet note">{escape(note)}</p>\n' if note else ""
    return f'<h2>{escape(title)}</h2>\n{said}<div class="cards">\n{shown}\n</div>'


def _render_card(card: Card) -> str:
    picture, small = "", ""
    if card.image is not None:
        try:
            uri, is_small = _embed(card.image)
            picture, small = f'<img src="{uri}" alt="">', " small" if is_small else ""
        except ImageError as error:  # answers can be scored where the pictures are not at hand
            picture = f'<p class="missing quiet">{escape(str(error))}</p>'
    verdict, words = card.verdict
    stacked = ' class="stacked"' if any(len(text) > LONG_LINE for _, text in card.lines) else ""
    lines = "".join(f"<dt>{escape(who)}</dt><dd>{escape(text) or '—'}</dd>" for who, text in card.lines)
    return (
        f'<article class="card{small}">{picture}<div><span class="mark {verdict}">{escape(words)}</span>'
        f'<p class="quiet">{escape(card.kind)}</p><p>{escape(card.question)}</p>'
        f"<dl{stacked}>{lines}</dl></div></article>"
    )


def _embed(source: object) -> tuple[str, bool]:
    """Write a picture as a data: URI (PNG, or JPEG where that would be large), and say whether it is a small one."""
    image = load_image(source)
    small = max(image.size) < PICTURE_SIZE / 2
    image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
    for form, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        if form == "jpeg" or buffer.tell() <= MAX_PNG_BYTES:
            break
    return f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}", small
