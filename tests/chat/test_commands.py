"""Commands: what they change, and how mistakes are told. Nobody types here, so only what is asked for is shown."""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llava_lite.chat.commands import COMMANDS
from llava_lite.chat.terminal import chat
from llava_lite.conversation.message import Conversation, Message
from llava_lite.data.sample import read_sample
from llava_lite.generation.chat_model import Sampling, TooLong


class Parrot:
    """A ChatModel that says what it was asked: how many turns and images, the system text, the seed and the words."""

    name = "parrot"

    def __init__(self) -> None:
        self.asked: list[tuple[Conversation, Sampling]] = []

    def reply(self, conversations: Sequence[Conversation], sampling: Sampling = Sampling()) -> list[str]:
        return ["".join(self.stream(conversation, sampling)) for conversation in conversations]

    def stream(self, conversation: Conversation, sampling: Sampling = Sampling()) -> Iterator[str]:
        self.asked.append((conversation, sampling))
        last = conversation.messages[-1]
        yield f"{len(conversation.messages)} {len(last.images)} "
        if last.text == "fail":
            raise RuntimeError("out of\nmemory")
        if len(conversation.messages) > 5:
            raise TooLong("the conversation has 9 tokens, but the model's context is 8")
        yield f"{conversation.system} {sampling.seed} {last.text}"


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parrot: Parrot):
    """Chat through a pipe: lines in; exit code, output and errors out."""

    def lines(*said: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in said)))
        code = chat(parrot)
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return lines


@pytest.fixture
def images(world: Path) -> list[str]:
    return [str(path) for path in sorted((world / "images").glob("*.png"))[:2]]


def test_a_dialogue_goes_on_until_it_is_reset(talk, images: list[str]) -> None:
    said = ["a", f"/image {images[0]}", f"/image {images[1]}", "b", "/reset", f"/image {images[0]}", "/reset", "c"]
    assert talk(*said) == (0, ["1 0 None 0 a", "3 2 None 0 b", "1 0 None 0 c"], [])


def test_undo_takes_back_images_that_wait_before_the_last_turn(talk, images: list[str]) -> None:
    said = ["a", "b", f"/image {images[0]}", "/undo", "c", "/undo", "/undo", "/undo", "/undo", "d"]
    assert talk(*said)[1] == ["1 0 None 0 a", "3 0 None 0 b", "5 0 None 0 c", "1 0 None 0 d"]


def test_regenerate_asks_the_same_with_the_next_seed(talk, parrot: Parrot, images: list[str]) -> None:
    code, out, _ = talk("/set seed 4", f"/image {images[0]}", "a", "/regenerate", "/regenerate", "b")
    assert (code, out) == (0, ["1 1 None 4 a", "1 1 None 5 a", "1 1 None 6 a", "3 0 None 6 b"])
    assert parrot.asked[-1][0].messages[1] == Message("assistant", (out[2],))
    assert talk("/regenerate")[2] == ["error: /regenerate: nothing was answered yet; ask something first"]


def test_a_system_text_outlives_a_reset_and_can_be_taken_away(talk) -> None:
    assert talk("/system Be brief. ", "a", "/reset", "b", "/system", "c")[1] == [
        "1 0 Be brief. 0 a",
        "1 0 Be brief. 0 b",
        "3 0 None 0 c",
    ]


def test_settings_are_checked_and_shown(talk, parrot: Parrot) -> None:
    said = ["/set temperature 0.7", "/set stop 'the end' .", "/set max_new_tokens 3", "/set", "a", "/set stop", "b"]
    code, out, errors = talk(*said)
    assert code == 0 and errors == []
    assert "temperature 0.7" in out and "stop 'the end' ." in out
    assert parrot.asked[0][1] == Sampling(temperature=0.7, stop=("the end", "."), max_new_tokens=3)
    assert parrot.asked[1][1].stop == ()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/sett", "/sett: no such command; did you mean /set? (a message that begins with / begins with //)"),
        ("/xyzzy", "/xyzzy: no such command; see /help (a message that begins with / begins with //)"),
        ("/", "/: no such command; see /help (a message that begins with / begins with //)"),
        ("/set temprature 1", "/set temprature: no such setting; did you mean temperature?"),
        ("/set top_k 1.5", "/set top_k: should be a whole number, not '1.5'"),
        ("/set temperature", "/set temperature: should be a number, not ''"),
        ("/set temperature nan", "out of range: temperature=nan"),
        ("/set max_new_tokens 0", "out of range: max_new_tokens=0"),
        ("/image 'a", "'a: no closing quotation; put names with blanks or quotes between quotes"),
        ("/image gone.png", "gone.png: cannot be read (No such file or directory); check the path"),
        (f"/image {'a' * 300}", f"{'a' * 300}: cannot be read (File name too long); check the path"),
        ("/save", "/save: name one file; .md gives Markdown, any other JSON"),
        ("/save a b", "/save: name one file; .md gives Markdown, any other JSON"),
        ("/save a", "/save: nothing was said yet"),
        ('"""', 'the input ends within a block of lines; close it with """'),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(talk, parrot: Parrot, line: str, error: str) -> None:
    assert talk(line) == (1, [], [f"error: {error}"])
    assert parrot.asked == []


def test_where_answering_fails_the_question_is_not_kept_and_its_images_wait(talk, images: list[str]) -> None:
    code, out, errors = talk(f"/image {images[0]}", "fail", "a", "b", "c", "d")
    assert code == 1
    assert out == ["1 1 ", "1 1 None 0 a", "3 0 None 0 b", "5 0 None 0 c", "7 0 "]
    assert errors == [
        "error: out of memory",
        "error: the conversation has 9 tokens, but the model's context is 8; /reset forgets the dialogue, /undo its "
        "last turn",
    ]


def test_of_several_images_one_that_is_broken_keeps_all_away(talk, images: list[str], tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(images[0]).read_bytes()[:100])
    code, out, errors = talk(f"/image {images[0]} {cut}", "a")
    assert (code, out) == (1, ["1 0 None 0 a"])
    assert len(errors) == 1 and str(cut) in errors[0]


@pytest.mark.parametrize("line", ['/image "{}"', "/image '{}'", "/image {}"])
def test_names_with_blanks_are_understood(talk, images: list[str], tmp_path: Path, line: str) -> None:
    place = tmp_path / "a picture.png"
    place.write_bytes(Path(images[0]).read_bytes())
    assert talk(line.format(place), "/image")[:2] == (0, [str(place)])


def test_a_double_slash_and_a_block_are_no_commands(talk) -> None:
    assert talk("//help", '"""', "/reset", '"""', '"""', " a", '"""')[1] == [
        "1 0 None 0 /help",
        "3 0 None 0 /reset",
        "5 0 None 0  a",
    ]


def test_quit_ends_and_blank_lines_say_nothing(talk) -> None:
    assert talk("", "  ", "a", "/quit", "b") == (0, ["1 0 None 0 a"], [])


def test_help_names_every_command(talk) -> None:
    _, out, _ = talk("/help")
    assert [line.split()[0] for line in out[: len(COMMANDS)]] == [f"/{name}" for name in COMMANDS]


def test_a_saved_chat_is_a_record_that_can_be_trained_on(talk, images: list[str], world: Path, tmp_path: Path) -> None:
    place = world / "images" / "chat.json"
    said = ["/system Be brief.", f"/image {images[0]} {images[1]}", "a", "b", f"/save {place}", "c", f"/save {place}"]
    code, out, errors = talk(*said)
    assert code == 1 and errors == [f"error: {place}: there is such a file; /save! overwrites it"]
    (record,) = json.loads(place.read_text())
    sample = read_sample(record, source="", number=0, image_dir=place.parent)
    expected = Conversation(system="Be brief.").ask("a", map(Path, images)).answer(out[0]).ask("b").answer(out[1])
    assert sample.conversation == expected

    assert talk(f"/image {images[0]}", "a", f"/save! {place}") == (0, ["1 1 None 0 a"], [])
    (record,) = json.loads(place.read_text())
    assert len(record["messages"]) == 2
    elsewhere = tmp_path / "a" / "chat.json"
    assert "cannot be written" in talk("a", f"/save {elsewhere}")[2][0]
    elsewhere.parent.mkdir()
    talk(f"/image {images[0]}", "a", f"/save {elsewhere}")
    assert images[0] in elsewhere.read_text() and len(list(elsewhere.parent.iterdir())) == 1
    place.unlink()


def test_markdown_is_written_into_md(talk, images: list[str], world: Path) -> None:
    place = world / "images" / "chat.md"
    talk(f"/image {images[0]}", "a", f"/save {place}")
    name = Path(images[0]).name
    assert place.read_text() == f"# parrot\n\n## user\n\n![]({name})\n\na\n\n## assistant\n\n1 1 None 0 a\n"
    place.unlink()
