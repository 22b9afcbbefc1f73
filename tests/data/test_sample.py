"""A record is read as a conversation, or refused in one line that names it, its file and the remedy."""

import json
from pathlib import Path

import pytest

from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.data.sample import Sample, SampleError, read_records, read_sample

IMAGES = Path("images")
QUESTION = {"from": "human", "value": "<image>\nQ1"}
ANSWER = {"from": "gpt", "value": "A1"}


def read(record: dict) -> Sample:
    return read_sample(record, source="mix.json", number=7, image_dir=IMAGES)


def read_human(value: str, image: object = "a.png") -> tuple:
    """The content of a human turn as it was read."""
    record = {"id": "x", "image": image, "conversations": [{"from": "human", "value": value}, ANSWER]}
    return read(record).conversation.messages[0].content


def write(tmp_path: Path, text: str, name: str = "mix.json") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_record_becomes_a_conversation() -> None:
    turns = [QUESTION, ANSWER, {"from": "human", "value": "Q2"}, {"from": "gpt", "value": "A2"}]
    sample = read({"id": "000123", "image": "coco/a.png", "conversations": turns, "model": ""})
    image = IMAGES / "coco" / "a.png"
    assert sample.conversation == Conversation().ask("Q1", [image]).answer("A1").ask("Q2").answer("A2")
    assert sample.name == "sample 000123 (mix.json)"


def test_a_record_without_image_is_text_only() -> None:
    sample = read({"id": 5, "conversations": [{"from": "human", "value": "Q1"}, ANSWER]})
    assert sample.conversation == Conversation().ask("Q1").answer("A1")


@pytest.mark.parametrize(
    "value", ["<image>\nQ1", "Q1\n<image>", "<image>Q1", " <image>  Q1 ", "\n<image>\n\nQ1\n", "Q<image>1"]
)
def test_a_lone_image_comes_first_wherever_it_was_written(value: str) -> None:
    assert read_human(value) == (Image(IMAGES / "a.png"), "Q1")


def test_several_images_stay_where_they_are_written() -> None:
    a, b = Image(IMAGES / "a.png"), Image(IMAGES / "b.png")
    assert read_human("Is <image> like <image>?", ["a.png", "b.png"]) == ("Is ", a, " like ", b, "?")
    assert read_human("<image>\n<image>\nQ", ["a.png", "b.png"]) == (a, b, "Q")


def test_images_go_to_the_turns_that_show_them() -> None:
    turns = [{"from": "human", "value": "Q1"}, ANSWER, QUESTION, ANSWER, {"from": "human", "value": "Q<image>"}, ANSWER]
    sample = read({"image": ["a.png", "b.png"], "conversations": turns})
    shown = [message.images for message in sample.conversation.messages]
    assert shown == [(), (), (Image(IMAGES / "a.png"),), (), (Image(IMAGES / "b.png"),), ()]


def test_an_empty_list_of_images_lets_the_word_be_a_word() -> None:
    assert read_human("is <image> a word?", []) == ("is <image> a word?",)


def test_an_answer_may_spell_the_word() -> None:
    turns = [QUESTION, {"from": "gpt", "value": "write <image>"}]
    sample = read({"image": "a.png", "conversations": turns})
    assert sample.conversation.messages[1] == Message("assistant", ("write <image>",))


@pytest.mark.parametrize("record", [{}, {"id": None}])
def test_a_record_without_id_is_named_by_its_place(record: dict) -> None:
    assert read({**record, "conversations": [{"from": "human", "value": "Q"}, ANSWER]}).id == "7"


HUMAN = {"from": "human", "value": "Q1"}
TWO = ["a.png", "b.png"]
BAD = {
    "no turns": ({}, "no `conversations`"),
    "turns of another kind": ({"conversations": "Q1"}, "no `conversations`"),
    "no answer": ({"conversations": [HUMAN]}, r"turn 1 \(human\) has no answer; add one or drop the turn"),
    "no last answer": ({"conversations": [HUMAN, ANSWER, HUMAN]}, r"turn 3 \(human\) has no answer"),
    "two questions": ({"conversations": [HUMAN, HUMAN, ANSWER]}, "turn 2 is the user's where the assistant's is due"),
    "answer first": ({"conversations": [ANSWER, HUMAN, ANSWER]}, "turn 1 is the assistant's where the user's is due"),
    "empty answer": ({"conversations": [HUMAN, {"from": "gpt", "value": " \n"}]}, r"turn 2 \(gpt\) is empty"),
    "unknown role": (
        {"conversations": [{"from": "bot", "value": "Q"}]},
        "turn 1: unknown role 'bot'; known: human, gpt",
    ),
    "no role": ({"conversations": [{"value": "Q"}]}, "turn 1: unknown role None; known: human, gpt"),
    "no text": ({"conversations": [HUMAN, {"from": "gpt"}]}, "turn 2 has no text; write it as `value`"),
    "text of another kind": ({"conversations": [{"from": "human", "value": 3}]}, "turn 1 has no text"),
    "turn of another kind": ({"conversations": ["Q1", "A1"]}, "turn 1 has no text"),
    "more images": (
        {"image": TWO, "conversations": [QUESTION, ANSWER]},
        "2 images but 1 <image>; remove an image, or add",
    ),
    "image unmarked": ({"image": "a.png", "conversations": [HUMAN, ANSWER]}, "1 images but 0 <image>; remove an image"),
    "fewer images": (
        {"image": "a.png", "conversations": [QUESTION, ANSWER, QUESTION, ANSWER]},
        "1 images but 2 <image>; add an image, or remove a <image>",
    ),
    "no image": ({"conversations": [QUESTION, ANSWER]}, r'0 images but 1 <image>; add `image`, or write "image": \[\]'),
    "image of another kind": (
        {"image": 3, "conversations": [QUESTION, ANSWER]},
        "`image` is neither a path nor a list",
    ),
    "null image": ({"image": None, "conversations": [HUMAN, ANSWER]}, "neither a path .* leave it out for text only"),
    "empty path": ({"image": "", "conversations": [QUESTION, ANSWER]}, "`image` is neither a path nor a list"),
    "absolute": (
        {"image": "/etc/a.png", "conversations": [QUESTION, ANSWER]},
        "'/etc/a.png' leads out of the image folder",
    ),
    "upward": (
        {"image": "b/../../a.png", "conversations": [QUESTION, ANSWER]},
        "leads out of the image folder; give a path",
    ),
}


@pytest.mark.parametrize(("record", "complaint"), BAD.values(), ids=BAD)
def test_a_bad_record_is_named_with_its_file_and_the_remedy(record: dict, complaint: str) -> None:
    with pytest.raises(SampleError, match=rf"^sample 000123 \(mix\.json\): .*{complaint}") as caught:
        read({"id": "000123", **record})
    assert "\n" not in str(caught.value)


def test_records_are_read_from_a_list_and_from_lines(tmp_path: Path) -> None:
    records = [{"id": "a"}, {"id": "b"}]
    assert read_records(write(tmp_path, json.dumps(records))) == records
    lines = "\n".join(map(json.dumps, records))
    assert read_records(write(tmp_path, f"{lines}\n\n", "mix.jsonl")) == records


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert read_records(write(tmp_path, '\ufeff[{"id": "a"}]')) == [{"id": "a"}]
    (tmp_path / "mix.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a"}\r\n{"id": "b"}\r\n')
    assert read_records(tmp_path / "mix.jsonl") == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_inside_a_string_does_not_end_a_line(tmp_path: Path, letter: str) -> None:
    record = {"id": f"a{letter}b"}
    assert read_records(write(tmp_path, json.dumps(record, ensure_ascii=False), "mix.jsonl")) == [record]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("mix.json", '[{"id": 1},\n {"id" 2}]', "broken JSON at line 2, column 8: Expecting ':' delimiter"),
        ("mix.json", '{"id": 1}\n{"id": 2}', r"broken JSON at line 2, column 1: .*; name it \.jsonl"),
        ("mix.jsonl", '{"id": 1}\n\n{"id" 2}\n', "broken JSON at line 3, column 7: Expecting ':' delimiter"),
        ("mix.json", '{"id": 1}', "holds a dict; write a list of records"),
        ("mix.json", '[{"id": 1}, "two"]', "record 1 is not an object but str"),
        ("mix.jsonl", '{"id": 1}\n[2]', "record 1 is not an object but list"),
        ("mix.json", "[]", "holds no record"),
        ("mix.jsonl", "\n", "holds no record"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = write(tmp_path, text, name)
    with pytest.raises(SampleError, match=rf"^{path}: {complaint}"):
        read_records(path)


def test_a_missing_file_is_named_with_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "[]", "mix665k.json")
    with pytest.raises(SampleError, match=r"mix\.json: no such data file; beside it: mix665k\.json"):
        read_records(tmp_path / "mix.json")
    with pytest.raises(SampleError, match=r"gone/mix\.json: no such data file$"):
        read_records(tmp_path / "gone" / "mix.json")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_bytes(b"PK\x03\x04\xff\xff")
    with pytest.raises(SampleError, match=r"mix\.json: cannot be read"):
        read_records(tmp_path / "mix.json")
