"""A sample on the terminal. What a colour says, a sign or a word says as well."""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from llava_lite.data.inspect.view import Stretch, View

NEWLINE = "↵\n"
LEARNT = "bold green underline"
CUT = "red strike"
STYLES = {"text": "", "special": "dim", "unknown": "yellow", "image": "cyan"}


def legend() -> Text:
    """Say how the samples are written."""
    signs = [
        Text("⟦learnt⟧", LEARNT),
        Text("<special token>", STYLES["special"]),
        Text("⟨unknown to the tokenizer⟩", STYLES["unknown"]),
        Text.assemble(("✂", "red"), ("beyond the limit", CUT)),
        Text("↵ newline"),
    ]
    return Text("  ").join(signs)


def render(view: View, *, place: str) -> Text:
    """Write one sample; place: which of those shown, as `1/5`."""
    lines = [Text.assemble((f"{place}  {view.id}", "bold"), ("  " + view.source, "dim"))]
    lines += [Text(view.words)] if view.words else []
    lines += [Text(f"note: {remark}", "yellow") for remark in view.remarks]
    lines += [Text(f"error: {view.error}", "bold red")] if view.error else []
    if view.stretches:
        lines += [Text(), _write(view)]
    return Text("\n").join(lines)


def _write(view: View) -> Text:
    text, was_cut = Text(), False
    for (learnt, cut), run in groupby(view.stretches, key=lambda stretch: (stretch.learnt, stretch.cut)):
        text.append("✂" if cut and not was_cut else "", "red")
        was_cut = cut
        text.append("⟦" if learnt else "", "dim")
        around = f"{LEARNT if learnt else ''} {CUT if cut else ''}"  # of two colours the last one counts
        for kind, alike in groupby(run, key=lambda stretch: stretch.kind):
            text.append("".join(map(_word, alike)), f"{STYLES[kind]} {around}".strip())
        text.append("⟧" if learnt else "", "dim")
    return text


def _word(stretch: Stretch) -> str:
    if stretch.kind == "image":
        return f"[{stretch.words}]"
    text = stretch.text.replace("\n", NEWLINE)
    return f"⟨{text}⟩" if stretch.kind == "unknown" else text
