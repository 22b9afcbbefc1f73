"""A record is read as a conversation, or refused in one line that names it, its file and the remedy."""

from pathlib import Path

import pytest

from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.data.records import SampleError
from llava_lite.data.sample import Sample, read_sample

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
    "two answers": ({"conversations": [HUMAN, ANSWER, ANSWER]}, "turn 3 is the assistant's where the user's is due"),
    "empty answer": ({"conversations": [HUMAN, {"from": "gpt", "value": " \n"}]}, r"turn 2 \(gpt\) is empty"),
    "unknown role": (
        {"conversations": [{"from": "bot", "value": "Q"}]},
        "turn 1: unknown role 'bot'; known: human, gpt",
    ),
    "no role": ({"conversations": [{"value": "Q"}]}, "turn 1: unknown role None; known: human, gpt"),
    "no text": ({"conversations": [HUMAN, {"from": "gpt"}]}, "turn 2 has no text; write it as `value`"),
    "text of another kind": ({"conversations": [{"from": "human", "value": 3}]}, "turn 1 has no text"),
    "turn of another kind": ({"conversations": ["Q1", "A1"]}, "turn 1 is not an object but str"),
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


DATA_URI = "data:image/png;base64,AAAA"


def openai(*content: object, **fields: object) -> dict:
    return {**fields, "messages": [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "A1"}]}


def image_url(url: str) -> dict:
    return {"type": "image_url", "image_url": {"url": url}}


TEXT = {"type": "text", "text": "Q1"}


@pytest.mark.parametrize(
    ("record", "image"),
    [
        (openai(image_url("a.png"), TEXT), IMAGES / "a.png"),
        (openai(TEXT, image_url("a.png")), IMAGES / "a.png"),
        (openai(image_url(DATA_URI), TEXT), DATA_URI),
        (openai(image_url(f"file://{(IMAGES / 'a%20b.png').absolute()}"), TEXT), (IMAGES / "a b.png").absolute()),
        (openai({"type": "image_url", "image_url": "a.png"}, TEXT), IMAGES / "a.png"),
        (openai({"type": "image", "image": "a.png"}, TEXT), IMAGES / "a.png"),
        (openai({"type": "image"}, TEXT, images=["a.png"]), IMAGES / "a.png"),
        (openai({"type": "image", "path": "a.png"}, TEXT), IMAGES / "a.png"),
        (openai({"type": "image", "url": "a.png"}, TEXT), IMAGES / "a.png"),
        (openai({"type": "image", "text": None}, TEXT, images=["a.png"]), IMAGES / "a.png"),
        (openai({"type": "image"}, TEXT, image=b"bytes"), b"bytes"),
    ],
)
def test_openai_messages_are_read(record: dict, image: object) -> None:
    assert read(record).conversation == Conversation().ask("Q1", [image]).answer("A1")


def test_in_parts_the_word_is_a_word() -> None:
    record = openai({"type": "text", "text": "is <image> a word?"})
    assert read(record).conversation.messages[0].content == ("is <image> a word?",)


def test_messages_of_plain_text_take_the_records_images_at_their_marks() -> None:
    turns = [{"role": "user", "content": "<image>\nQ1"}, {"role": "assistant", "content": "A1"}]
    assert read({"messages": turns, "images": ["a.png"]}).conversation.images == (Image(IMAGES / "a.png"),)


def test_a_system_text_is_the_conversations() -> None:
    turns = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Q1"}, ANSWER]
    assert read({"conversations": turns}).conversation == Conversation(system="Be brief.").ask("Q1").answer("A1")


def test_an_opening_answer_is_left_out_and_noted() -> None:
    sample = read({"conversations": [ANSWER, {"from": "human", "value": "Q1"}, ANSWER]})
    assert sample.conversation == Conversation().ask("Q1").answer("A1")
    assert len(sample.notes) == 1 and "opening answer" in sample.notes[0]


@pytest.mark.parametrize("field", ["image", "images"])
def test_a_null_image_is_none(field: str) -> None:
    sample = read({field: None, "conversations": [{"from": "human", "value": "Q1"}, ANSWER]})
    assert sample.conversation.images == ()


def test_keys_that_a_table_filled_with_nothing_are_not_there() -> None:
    turns = [
        {"from": None, "value": None, "role": "user", "content": "Q1"},
        {"from": "gpt", "value": "A1", "role": None, "content": None},
    ]
    assert read({"conversations": turns}).conversation == Conversation().ask("Q1").answer("A1")


def test_an_absolute_path_is_read_below_a_folder_that_goes_up_and_down() -> None:
    path = Path.cwd() / "images" / "a.png"
    record = {"image": str(path), "conversations": [QUESTION, ANSWER]}
    sample = read_sample(record, source="x", number=0, image_dir=Path("elsewhere/../images"))
    assert sample.conversation.images == (Image(path),)


def test_an_id_of_several_lines_is_named_on_one() -> None:
    with pytest.raises(SampleError) as caught:
        read({"id": "a\nb", "conversations": [HUMAN]})
    assert str(caught.value).startswith(r"sample 'a\nb' (mix.json): ")


def test_an_empty_system_text_is_no_system_text() -> None:
    turns = [{"from": "system", "value": ""}, {"from": "human", "value": "Q1"}, ANSWER]
    assert read({"conversations": turns}).conversation.system == ""


def test_an_absolute_path_below_the_image_folder_is_read() -> None:
    path = (IMAGES / "a.png").absolute()
    assert read({"image": str(path), "conversations": [QUESTION, ANSWER]}).conversation.images == (Image(path),)


MORE_BAD = {
    "both formats": ({"conversations": [HUMAN, ANSWER], "messages": []}, "has both `conversations` and `messages`"),
    "video": ({"video": "a.mp4", "conversations": [HUMAN, ANSWER]}, "has a `video`, which is not read"),
    "both image fields": ({"image": "a", "images": ["a"], "conversations": [QUESTION, ANSWER]}, "`image` is neither"),
    "http": ({"image": "http://a/b.png", "conversations": [QUESTION, ANSWER]}, "addresses are not fetched"),
    "http part": (openai(image_url("https://a/b.png"), TEXT), "addresses are not fetched; download it"),
    "file outside": (openai(image_url("file:///etc/a.png"), TEXT), "leads out of the image folder"),
    "sound": (openai({"type": "input_audio"}, TEXT), "turn 1: a part is neither text nor image_url but 'input_audio'"),
    "part without address": (openai({"type": "image_url"}, TEXT), "turn 1: an image_url part without its address"),
    "too few images": (openai({"type": "image"}, TEXT), "0 images but 1 <image>"),
    "too many images": (openai(TEXT, image="a.png"), "1 images but 0 <image>"),
    "an image beside the parts": (openai({"type": "image", "path": "b.png"}, TEXT, image="a.png"), "1 images but 0"),
    "broken address": (openai(image_url("file://[x/a.png"), TEXT), "not an address"),
    "order after a system turn": (
        {"conversations": [{"from": "system", "value": "S"}, ANSWER, HUMAN, HUMAN, ANSWER]},
        "turn 4 is the user's where the assistant's is due",
    ),
    "late system": (
        {"conversations": [HUMAN, ANSWER, {"from": "system", "value": "S"}]},
        "turn 3: a system text stands",
    ),
    "only a system text": ({"conversations": [{"from": "system", "value": "S"}]}, "no human turn"),
    "image in an answer": (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": [image_url("a.png")]}]},
        "turn 2: only text may stand here; images belong to human turns",
    ),
    "a number for an image": ({"image": [3], "conversations": [QUESTION, ANSWER]}, "`image` is neither a path nor"),
}


@pytest.mark.parametrize(("record", "complaint"), MORE_BAD.values(), ids=MORE_BAD)
def test_a_bad_record_of_either_format_is_named(record: dict, complaint: str) -> None:
    with pytest.raises(SampleError, match=rf"^sample 000123 \(mix\.json\): .*{complaint}"):
        read({"id": "000123", **record})
