"""What somebody named a file shows as that name, whatever is in it; where the file was, does not show."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llava_lite.card.markdown import escape, names_only, table


def shown(text: str) -> list[str]:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(table(["a", "b"], [[text, "end"]]))
    return [unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", html, flags=re.DOTALL)]


@given(st.text(st.sampled_from("\\`*_[]()<>|~&$#!@-.:/ \n\tab1é\u2028&amp;"), min_size=1, max_size=30))
def test_any_text_shows_as_it_is_on_one_line(text: str) -> None:
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    assert shown(escape(text)) == [plain, "end"]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("no image file /home/me/data/gone.png; set it", "no image file gone.png; set it"),
        ("'C:\\Users\\me\\a b.png' is broken", "'a b.png' is broken"),
        ("https://host/secret/img.png: gone", "img.png: gone"),
        ("sample 7 (/mnt/my data/mix.json): bad", "sample 7 (mix.json): bad"),
        ("sample 7 (mix.json): 2 images but 1", "sample 7 (mix.json): 2 images but 1"),
    ],
)
def test_of_a_path_the_name_stays(told: str, kept: str) -> None:
    assert names_only(told, ["/mnt/my data", "/mnt"]) == kept
