"""Samples as one HTML file: the text cut into its tokens, and each picture beside the tiles that the tower gets.

Everything stands in the file itself (pictures as data: URIs, no script), so that it opens offline and can be mailed.
All text is escaped here and nowhere else: data may hold what it likes.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

import numpy as np
from PIL import Image as PilImage

from llava_lite.data.inspect.view import Picture, Stretch, View

ORIGINAL_SIZE, TILE_SIZE, BASE_SIZE, MOSAIC_SIZE = 280, 252, 168, 504  # longest sides in the file, in pixels
SMALL = 100  # tiles of fewer pixels a side are drawn larger, their pixels as squares

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --card: #fff; --ink: #22252a; --quiet: #6a6f78; --line: #d9d5ce;
  --learnt: #d5efdd; --right: #1c6b3f; --wrong: #b3372f; --image: #2f6fb7; --odd: #946200; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1f2227; --ink: #e6e4e0; --quiet: #9aa0aa; --line: #3d424a;
  --learnt: #1d4230; --right: #7fd6a4; --wrong: #ee857c; --image: #6ea8e6; --odd: #dcb04f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 0; } h2 small { color: var(--quiet); font-weight: 400; }
p { margin: .25rem 0; max-width: 46rem; }
.quiet { color: var(--quiet); font-size: .9rem; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .75rem 0 1.5rem; font-size: .9rem; }
article { margin: 0 0 1.5rem; padding: 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.remark { color: var(--odd); } .error { color: var(--wrong); font-weight: 600; }
.tokens { max-width: none; margin: .75rem 0 0; white-space: pre-wrap; tab-size: 4;
  font: .9rem/1.9 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.tokens span, .legend .token { box-shadow: inset 1px 0 0 var(--line); padding: .15em 0; }
.tokens b { font-weight: inherit; }
.tokens b.learnt, .legend .learnt { background: var(--learnt); color: var(--right); font-weight: 600;
  text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: .3em; }
.special { color: var(--quiet); font-style: italic; font-weight: 400; }
.unknown { outline: 2px dashed var(--odd); outline-offset: -2px; }
.image { color: var(--image); border: 1px solid currentColor; border-radius: 4px; padding: .1em .4em; }
b.cut, .legend .cut { color: var(--wrong); text-decoration: line-through; }
.tokens b.learnt.cut { background: none; color: var(--wrong); text-decoration: underline line-through; }
figure { margin: 1rem 0 0; } figcaption { margin-bottom: .4rem; font-size: .9rem; }
.views { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.views > div { max-width: 100%; }
.views img, .views svg { display: block; width: 100%; height: auto; }
.small img { image-rendering: pixelated; }
.frame { border: 1px solid var(--line); max-width: 100%; }
.grid { display: grid; gap: 3px; max-width: 100%; }
.tile { position: relative; outline: 1px solid var(--line); } .tile svg { position: absolute; inset: 0; height: 100%; }
.swatch { display: inline-block; width: 1.1em; height: 1.1em; vertical-align: -.2em; }
"""
HATCH = (
    '<pattern id="hatch" width="1" height="1" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="1" height="1" fill="#fff" fill-opacity=".45"/><rect width=".4" height="1" fill="#b3372f"/></pattern>'
)


def page(title: str, intro: Sequence[str], samples: Sequence[str]) -> str:
    """Put rendered samples on one page."""
    said = "".join(f'<p class="quiet">{escape(line)}</p>\n' for line in intro)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
        f'{said}<p class="legend"><span><span class="token learnt">learnt</span></span>'
        '<span><span class="token special">special token</span></span><span><span class="token">tok</span>'
        '<span class="token">ens</span> (point at one for its id)</span><span><span class="image">image</span></span>'
        '<span><span class="token unknown">unknown to the tokenizer</span></span>'
        '<span><span class="token cut">beyond the limit</span></span>'
        f'<span><svg class="swatch" viewBox="0 0 5 5"><defs>{HATCH}</defs>'
        '<rect width="5" height="5" fill="url(#hatch)"/></svg> patch that the language model does not get</span></p>\n'
        + "\n".join(samples)
        + "\n</body>\n</html>\n"
    )


def render(view: View) -> str:
    """Write one sample."""
    parts = [f"<h2>{escape(view.id)} <small>{escape(view.source)}</small></h2>"]
    parts += [f"<p>{escape(view.words)}</p>"] if view.words else []
    parts += [f'<p class="remark">{escape(remark)}</p>' for remark in view.remarks]
    parts += [f'<p class="error">{escape(view.error)}</p>'] if view.error else []
    parts += ['<p class="tokens">' + "".join(_runs(view.stretches)) + "</p>"] if view.stretches else []
    parts += [_figure(picture, number) for number, picture in enumerate(view.pictures, start=1)]
    return "<article>" + "\n".join(parts) + "</article>"


def _runs(stretches: Sequence[Stretch]) -> Iterator[str]:
    """Write the tokens, each run of learnt ones and of cut ones within one mark."""
    for (learnt, cut), run in groupby(stretches, key=lambda stretch: (stretch.learnt, stretch.cut)):
        words = "".join(map(_token, run))
        names = " ".join(name for name, holds in (("learnt", learnt), ("cut", cut)) if holds)
        yield f'<b class="{names}">{words}</b>' if names else words


def _token(stretch: Stretch) -> str:
    if stretch.kind == "image":
        told = f"{len(stretch.ids)} x {stretch.ids[0]} {stretch.names[0]}"
        return f'<span class="image" title="{escape(told)}">{escape(stretch.words)}</span>'
    told = "  ".join(f"{token} {name!r}" for token, name in zip(stretch.ids, stretch.names, strict=False))
    kind = f' class="{stretch.kind}"' if stretch.kind != "text" else ""
    return f'<span{kind} title="{escape(told)}">{escape(stretch.text).replace(chr(10), "↵" + chr(10))}</span>'


def _figure(picture: Picture, number: int) -> str:
    """Show a picture beside its tiles, laid out as they were cut."""
    side, grid = picture.tiles.shape[1], picture.layout.grid
    views = [_frame(picture.original)]
    if grid is None:
        views.append(_mosaic(picture, slice(0, 1), 1, TILE_SIZE, f"the tile, {side} x {side}"))
    else:
        across, down = grid
        views.append(_mosaic(picture, slice(0, 1), 1, BASE_SIZE, f"base view, {side} x {side}"))
        name = f"{across} x {down} tiles of {side} x {side}"
        views.append(_mosaic(picture, slice(1, None), across, MOSAIC_SIZE, name))
    caption = f"<figcaption><b>{number}. {escape(picture.name)}</b> {escape(picture.words)}</figcaption>"
    small = ' class="small"' if side < SMALL else ""
    return f'<figure{small}>{caption}<div class="views">{"".join(views)}</div></figure>'


def _mosaic(picture: Picture, which: slice, across: int, size: int, name: str) -> str:
    """Lay tiles out in rows of `across`, at most `size` pixels wide in all."""
    side = picture.tiles.shape[1]
    width = min(side, size // across)
    tiles = [_tile(tile, used, width) for tile, used in zip(picture.tiles[which], picture.used[which], strict=True)]
    style = f"grid-template-columns: repeat({across}, 1fr); width: {across * max(width, min(SMALL, size // across))}px"
    return f'<div><div class="grid" style="{style}">{"".join(tiles)}</div><p class="quiet">{name}</p></div>'


def _frame(image: PilImage.Image) -> str:
    shown = image.copy()
    shown.thumbnail((ORIGINAL_SIZE, ORIGINAL_SIZE), PilImage.Resampling.LANCZOS)
    width = shown.width * max(1, SMALL // max(shown.size))
    return (
        f'<div><div class="frame" style="width: {width + 2}px"><img src="{_embed(shown)}" alt=""></div>'
        '<p class="quiet">the picture</p></div>'
    )


def _tile(tile: np.ndarray, used: np.ndarray, width: int) -> str:
    image = PilImage.fromarray(tile)
    image = image.resize((width, width), PilImage.Resampling.LANCZOS) if width < image.width else image
    return f'<div class="tile"><img src="{_embed(image)}" alt="">{_dropped(used)}</div>'


def _dropped(used: np.ndarray) -> str:
    """Hatch the patches that are not used, where they lie in a square."""
    side = math.isqrt(len(used))
    if used.all() or side * side != len(used):
        return ""
    drawn = []
    for row, flags in enumerate(used.reshape(side, side).tolist()):
        column = 0
        for is_used, run in groupby(flags):
            length = len(list(run))
            if not is_used:
                drawn.append(f'<rect x="{column}" y="{row}" width="{length}" height="1" fill="url(#hatch)"/>')
            column += length
    return f'<svg viewBox="0 0 {side} {side}">{"".join(drawn)}</svg>'


def _embed(image: PilImage.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
