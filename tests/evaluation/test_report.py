"""The report: one file that opens offline and on a phone, shows the pictures, and trusts no text."""

import base64
import io
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from pixel_world import PixelModel, Pixels, write_world

from llava_lite.conversation.message import Conversation
from llava_lite.evaluation.benchmark import Mark, Question, Scores
from llava_lite.evaluation.mistakes import most_frequent, telling
from llava_lite.evaluation.page import Bars, Card, Table, page, render_bars, render_cards, render_table
from llava_lite.evaluation.report import CARDS_A_KIND
from llava_lite.evaluation.runner import run

EVIL = "<script>alert('x')</script> & <b>\"bold\"</b>"


class Outline(HTMLParser):
    """Collects tags, and checks that each one opened is closed."""

    VOID = ("meta", "img", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.images += [value or "" for name, value in attrs if name == "src"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag


@pytest.fixture
def report(tmp_path: Path) -> str:
    """The page of a run in which one question of each kind was answered wrong."""
    data = write_world(tmp_path / "data")
    out = tmp_path / "out"
    run(Pixels(), PixelModel(), data=data, out=out, mode="blind")
    run(Pixels(), PixelModel(), data=data, out=out)
    answers = out / "answers.jsonl"
    answers.write_text(re.sub(r'("question_id": [67], .*"text": )"[a-z]+"', r'\1"mauve"', answers.read_text()))
    run(Pixels(), PixelModel(), data=data, out=out)
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_stands_alone(report: str) -> None:
    outline = Outline(report)
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|<iframe|\son\w+=", strip_data(report))
    assert outline.images and all(source.startswith("data:image/") for source in outline.images)
    assert 'name="viewport"' in report
    assert "prefers-color-scheme: dark" in report
    assert "svg" in outline.tags


def test_pictures_questions_answers_and_corrections_are_shown(report: str) -> None:
    pictures = [Image.open(io.BytesIO(base64.b64decode(s.partition(",")[2]))) for s in Outline(report).images]
    words = re.sub(r"<[^>]+>", "\n", report)
    assert {picture.convert("RGB").getpixel((0, 0)) for picture in pictures} == {
        (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    }  # fmt: skip
    assert len(pictures) == 2 * CARDS_A_KIND
    assert words.count("mauve") == 2 and words.count("\nwrong\n") == 2
    assert words.count("\nright\n") == 2 * CARDS_A_KIND - 2
    assert "Color 6?" in words and "What color is it, asked for the time number 7?" in words
    lines = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report)
    assert ("answer", "mauve") in lines and lines.count(("no image", "red")) == 2 * CARDS_A_KIND
    assert lines[lines.index(("answer", "mauve")) + 1] == ("correct", "blue")


def test_figures_of_all_modes_stand_in_table_and_chart(report: str) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", report)
    cells = [[unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)] for row in rows]
    assert cells == [
        ["", "n", "normal", "blind", "visual gain"],
        ["short", "10", "0.900", "0.500", "+0.400"],
        ["long", "10", "0.900", "0.000", "+0.900"],
        ["all", "20", "0.900 [0.800, 1.000]", "0.250 [0.000, 0.750]", "+0.650 [0.200, 0.950]"],
    ]
    assert re.findall(r"<rect.*?</text>", report.replace("\n", ""))[0].endswith(">0.900</text>")
    assert len(re.findall("<rect", report)) == 6


def test_all_text_is_escaped() -> None:
    cards = [Card(None, EVIL, EVIL, ("wrong", EVIL), [(EVIL, EVIL)])]
    parts = [
        render_table(Table(EVIL, [EVIL], [[EVIL]])),
        render_bars(Bars(EVIL, {EVIL: {EVIL: 0.5, "other": 1.0}})),
        render_cards(EVIL, cards, note=EVIL),
    ]
    text = page(EVIL, parts, intro=[EVIL], warning=EVIL)
    assert not {"script", "b"} & set(Outline(text).tags)
    assert text.count("&lt;script&gt;") == 18


def test_a_card_without_its_picture_says_so(tmp_path: Path) -> None:
    text = render_cards("t", [Card(tmp_path / "gone<.png", "", "q", ("right", "right"), [("answer", "")])])
    assert "gone&lt;.png" in text and "<img" not in text
    assert "—" in text  # an empty answer is shown as one


def test_a_photo_is_embedded_small(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.effect_noise((1600, 1200), 80).save(path)
    (source,) = Outline(render_cards("t", [Card(path, "", "q", ("right", "right"), [])])).images
    assert source.startswith("data:image/jpeg;base64,")
    assert len(source) < 200_000
    assert max(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size) <= 336


def test_bars_grow_with_their_values_up_to_the_largest() -> None:
    text = render_bars(Bars("t", {"a": {"x": 400.0}, "b": {"x": 1600.0}, "c": {"x": 0.0}}))
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height', text)]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)
    assert widths[2] == 1.0


def strip_data(text: str) -> str:
    return re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "data", text)


def test_mistakes_that_tell_something_come_first(tmp_path: Path) -> None:
    def ask(number: int, correct: str) -> Question:
        return Question(number, Conversation().ask("?"), (correct,))

    questions = [ask(0, "dog"), ask(1, "cat"), ask(2, "cat"), ask(3, "cow"), ask(4, "hen"), ask(5, "ox")]
    said = ["cat", "dog", "dog", None, "owl", "ox"]
    marks = {q.id: Mark(float(q.correct[0] == text), text) for q, text in zip(questions, said, strict=True)}
    scores = Scores({"accuracy": 1 / 6}, {}, {}, marks, 6, 6)
    blind = Scores({"accuracy": 1 / 6}, {}, {}, {0: Mark(1.0, "dog"), 5: Mark(1.0, "ox")}, 2, 6)
    assert [(m.question.id, m.why) for m in telling(questions, scores, blind)] == [
        (0, "right blind"), (3, "could not be read"), (1, "2 times"),
    ]  # fmt: skip
    table = most_frequent(questions, scores)
    assert table is not None and table.rows == [["cat", "dog", "2"]]
    assert most_frequent(questions[:2], scores) is None
