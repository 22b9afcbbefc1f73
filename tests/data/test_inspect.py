"""`llava-lite inspect`: what is shown is what is trained, and nothing in the data steers a terminal or a page."""

import io
import json
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from llava_lite.checkpoint.folder import load_processor
from llava_lite.conversation.template import ChatTemplate
from llava_lite.data.inspect import page, terminal
from llava_lite.data.inspect.show import choose, show
from llava_lite.data.inspect.view import View, Viewer
from llava_lite.data.mixture import DataConfig, Mixture, SourceConfig, with_data
from llava_lite.data.records import SampleError
from llava_lite.example import IGNORE
from llava_lite.processor import Processor, prepare_tokenizer

HOSTILE = "<script>alert(1)</script> & \x1b[31mred \u202eback \x07\r'\""


@pytest.fixture(scope="module")
def processor(llava_dir: Path) -> Processor:
    return load_processor(llava_dir)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    sizes = {"cat.png": (24, 16), "wide.png": (1600, 200), "large.jpg": (640, 480)}
    for name, size in sizes.items():
        PilImage.linear_gradient("L").resize(size).convert("RGB").save(tmp_path / name)
    return tmp_path


def talk(*turns: str, image: str | list[str] | None = None, id: str = "1") -> dict:
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"id": id, **({"image": image} if image else {}), "conversations": said}


TALKS = {
    "text": talk("Hello?", "Hi, é 🦙."),
    "one image": talk("<image>\nWhat is it?", "A cat.", "Where?", "Here.", image="cat.png"),
    "a wide image": talk("<image>\nWhat is it?", "A cat.", image="wide.png"),
    "two images": talk("<image><image>\nWhat differs?", "The size.", image=["cat.png", "large.jpg"]),
    "spelled": talk("Say </s> twice.", "</s></s>"),
}


def viewer(
    folder: Path, records: Sequence[dict], processor: Processor, limit: int | None = None, **policy: object
) -> Viewer:
    (folder / "mix.json").write_text(json.dumps(records))
    return Viewer(Mixture(DataConfig(path=folder / "mix.json", **policy)), processor, limit=limit)


def learnt_on_page(html: str) -> list[str]:
    """The text of each learnt run, without the signs for newlines."""
    tokens = "".join(re.findall(r'<p class="tokens">(.*?)</p>', html, flags=re.DOTALL))
    runs = re.findall(r'<b class="learnt(?: cut)?">(.*?)</b>', tokens, flags=re.DOTALL)
    return [unescape(re.sub(r"<[^>]*>", "", run)).replace("↵", "") for run in runs]


@pytest.mark.parametrize("mode", ["pad", "crop", "anyres", "anyres_max_1"])
@pytest.mark.parametrize("record", TALKS.values(), ids=TALKS)
def test_what_is_shown_is_what_is_trained(processor: Processor, images: Path, record: dict, mode: str) -> None:
    shows = viewer(images, [record], processor.with_image_mode(mode), limit=4096)
    view, example = (
        shows.view(0),
        shows.processor.encode(shows.mixture.sample(0).conversation, 4096),
    )
    assert [token for stretch in view.stretches for token in stretch.ids] == example.input_ids.tolist()
    learnt = [stretch.learnt for stretch in view.stretches for _ in stretch.ids]
    assert learnt == (example.labels != IGNORE).tolist()
    num_image = len(example.patch_index)
    assert view.counts == {
        "text": len(example.input_ids) - num_image,
        "image": num_image,
        "learnt": sum(learnt),
        "total": len(example.input_ids),
    }
    tiles = [tile for picture in view.pictures for tile in picture.tiles]
    assert len(tiles) == len(example.pixel_values) and view.error is None
    assert sum(len(picture.layout.index) for picture in view.pictures) == num_image


@pytest.mark.parametrize("record", TALKS.values(), ids=TALKS)
def test_page_and_terminal_mark_the_answers_and_their_ends(processor: Processor, images: Path, record: dict) -> None:
    view = viewer(images, [record], processor).view(0)
    answers = [f" {turn['value']}</s>" for turn in record["conversations"] if turn["from"] == "gpt"]
    assert learnt_on_page(page.render(view)) == answers
    assert re.findall("⟦(.*?)⟧", terminal.render(view, place="1/1").plain, flags=re.DOTALL) == answers


def test_a_wide_picture_shows_the_tiles_it_was_cut_into_and_the_patches_that_are_dropped(
    processor: Processor, images: Path
) -> None:
    view = viewer(images, [TALKS["a wide image"]], processor.with_image_mode("anyres")).view(0)
    [picture] = view.pictures
    assert picture.words == "image 1600x200 -> 3x1 grid + base: 4 tiles, 42 tokens"  # 16 + 2 rows of 12 and a newline
    assert picture.used[0].all()
    assert [tile.reshape(4, 4).any(1).tolist() for tile in picture.used[1:]] == [[False, True, True, False]] * 3
    mosaic = np.concatenate(picture.tiles[1:], axis=1)
    assert mosaic[:9].max() == 0 == mosaic[23:].max() and mosaic[16].max() > 0  # on black, in the middle
    html = page.render(view)
    assert html.count('<svg viewBox="0 0 4 4">') == 3 and html.count("<rect") == 3 * 2
    assert "repeat(3, 1fr)" in html and html.count('src="data:image/png;base64,') == 5


def test_a_sample_that_is_too_long_is_shown_whole_with_what_lies_beyond(processor: Processor, images: Path) -> None:
    record, whole = TALKS["one image"], processor.template.answer.format("A cat.")
    length = processor.length(viewer(images, [record], processor).mixture.sample(0).conversation)[0]
    views = {
        policy: viewer(images, [record], processor, limit=length - 3, too_long=policy).view(0)
        for policy in ("error", "skip", "truncate")
    }
    for policy, view in views.items():
        cut = [token for stretch in view.stretches if stretch.cut for token in stretch.ids]
        assert len(cut) == 3 and len(view.pictures) == 1
        assert view.counts["total"] == (length - 3 if policy == "truncate" else length)
        shown = terminal.render(view, place="1/1").plain
        assert shown.count("✂") == 1 and whole in shown.replace("⟦", "").replace("⟧", "").split("✂")[0]
        assert 'class="learnt cut"' in page.render(view)
    assert "raise batch.tokens" in str(views["error"].error)
    assert views["skip"].error is None and "data.too_long=skip" in views["skip"].remarks[0]
    assert views["truncate"].error is None and "data.too_long=truncate" in views["truncate"].remarks[0]


def test_a_limit_within_the_last_character_is_found(row_processor: Processor, tmp_path: Path) -> None:
    template = ChatTemplate(name="t", user="{} ", answer="{}")
    record = talk("Q", "🦙")
    shows = viewer(tmp_path, [record], row_processor.with_template(template))
    length = shows.view(0).counts["total"]
    for policy in ("error", "truncate"):
        view = viewer(tmp_path, [record], shows.processor, limit=length - 1, too_long=policy).view(0)
        assert f"{length} tokens do not fit in {length - 1}" in f"{view.error} {view.remarks}"
        assert view.counts["total"] == (length if policy == "error" else length - 1)


def test_an_image_beyond_the_limit_is_named_and_has_no_tiles(processor: Processor, images: Path) -> None:
    view = viewer(images, [TALKS["one image"]], processor, limit=20, too_long="truncate").view(0)
    assert view.pictures == [] and view.counts["image"] == view.counts["learnt"] == 0
    assert "[image, 16 tokens]" in terminal.render(view, place="1/1").plain
    assert view.remarks[-1] == "nothing of it is learnt: it is left out"


def test_text_that_the_tokenizer_has_no_token_for_is_named_unknown(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    template = ChatTemplate(name="t", user="{} ", answer="{}</s>")
    processor = Processor(tokenizer, template, None, 0, prepare_tokenizer(tokenizer, image=False))
    view = viewer(tmp_path, [talk("a zebra", "b")], processor).view(0)
    assert [(s.text, s.kind) for s in view.stretches] == [
        ("a", "text"),
        (" zebra", "unknown"),
        (" b", "text"),
        ("</s>", "special"),
    ]
    assert "⟨ zebra⟩" in terminal.render(view, place="1/1").plain
    assert '<span class="unknown"' in page.render(view)


def write(shows: Viewer, entries: Sequence[int], out: Path) -> tuple[bool, str, str]:
    """Show entries; return whether all can be used, the page, and what is printed."""
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=80)
    usable = show(shows, entries, out=out, title=HOSTILE, console=console)
    assert list(out.parent.glob(".*")) == []
    return usable, out.read_text("utf-8"), printed.getvalue()


def test_data_of_strangers_steers_neither_a_terminal_nor_a_page(processor: Processor, images: Path) -> None:
    bad = talk("<image>\nWhat?", "Nothing.", image=f"{HOSTILE}.png", id=HOSTILE)
    shows = viewer(images, [talk(HOSTILE, HOSTILE, id=f"{HOSTILE}\ud83e"), bad], processor)
    usable, html, printed = write(shows, [0, 1], images / "page.html")
    assert not usable
    colors = re.compile(r"\x1b\[(?:\d+;)*\d+m")
    assert "\x1b[31mred" not in printed and not re.search("[\x00-\x08\x0b-\x1f\u202e]", colors.sub("", printed))
    assert "\\u001b[31mred" in printed and "alert(1)" in printed
    assert "<script" not in html and not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)
    assert "&lt;script&gt;" in html and not re.search(r'"alert|(src|href)="(?!data:)', html)


def test_the_page_stands_alone(processor: Processor, images: Path) -> None:
    _, html, _ = write(viewer(images, list(TALKS.values()), processor), range(len(TALKS)), images / "new" / "page.html")
    assert html.count("<article>") == len(TALKS) and html.rstrip().endswith("</html>")
    assert not re.search(r"https?:|<script|<link|@import|url\((?!#)", html)


def test_a_bad_record_is_named_and_the_others_still_appear(processor: Processor, images: Path) -> None:
    bad = talk("<image>\nWhat?", "Nothing.", image="gone.png", id="bad")
    shows = viewer(images, [TALKS["text"], bad, {"id": "worse"}, TALKS["spelled"]], processor)
    usable, html, printed = write(shows, range(4), images / "page.html")
    assert not usable and html.count('class="tokens"') == 2
    errors = re.findall('<p class="error">(.*?)</p>', html)
    assert "gone.png: cannot be read" in errors[0] and errors[1].startswith("no `conversations`")
    assert "2 of 4 samples cannot be used" in printed


def test_a_note_says_what_reading_left_out(processor: Processor, images: Path) -> None:
    record = talk("Who?", "I.")
    record["conversations"].insert(0, {"from": "gpt", "value": "Hello."})
    assert "the opening answer" in viewer(images, [record], processor).view(0).remarks[0]


def test_samples_are_the_first_or_drawn_or_named(processor: Processor, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(json.dumps([talk("Q", "A", id=f"r{i}") for i in range(20)]))
    mixture = Mixture(DataConfig(sources=(SourceConfig(path=tmp_path / "mix.json", repeat=2),)))
    assert choose(mixture, count=3, ids=[], seed=None) == [0, 1, 2]
    assert len(choose(mixture, count=99, ids=[], seed=None)) == 40
    drawn = choose(mixture, count=5, ids=[], seed=1)
    assert drawn == choose(mixture, count=5, ids=[], seed=1) != choose(mixture, count=5, ids=[], seed=2)
    assert len(set(drawn)) == 5
    assert choose(mixture, count=1, ids=["r7", "r3"], seed=None) == [7, 3]
    with pytest.raises(SampleError, match="no record has the id 'r77'; the first are: r0, r1, r2"):
        choose(mixture, count=1, ids=["r7", "r77"], seed=None)


def test_other_data_takes_the_place_of_path_or_sources(tmp_path: Path) -> None:
    sources = DataConfig(sources=(SourceConfig(path=Path("a.json")),), seed=3)
    assert with_data(sources, Path("b.json"), Path("images")) == DataConfig(
        path=Path("b.json"), image_dir=Path("images"), seed=3
    )
    assert with_data(sources, None, None) == sources
    with pytest.raises(SampleError, match=r"each of data\.sources has its own"):
        with_data(sources, None, Path("images"))


def test_a_view_without_tokens_has_no_counts() -> None:
    assert View("1", "mix.json", 100, error="gone").words == ""
