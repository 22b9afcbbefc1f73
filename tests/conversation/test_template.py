"""Golden texts and trained spans of the templates (LLaVA commit c121f043), and the one spelling of a message."""

import pytest

from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation, ConversationError, Image, Message

PICTURE = Image("a.png")
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
TWO_ROUNDS = Conversation().ask("Q1", [PICTURE]).answer("A1").ask("Q2").answer("A2")


def learnt(name: str, conversation: Conversation) -> list[str]:
    prompt = find_template(name).render(conversation)
    return [prompt.text[start:end] for start, end in prompt.answers]


def test_vicuna_v1_writes_the_original_training_text() -> None:
    prompt = find_template("vicuna_v1").render(TWO_ROUNDS)
    assert prompt.text == f"{SYSTEM} USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT: A2</s>"


def test_vicuna_v1_ends_an_open_prompt_without_a_space() -> None:
    prompt = find_template("vicuna_v1").render(Conversation().ask("Q1", [PICTURE]))
    assert prompt.text == f"{SYSTEM} USER: <image>\nQ1 ASSISTANT:"


def test_vicuna_v1_learns_each_answer_with_its_leading_space_and_end() -> None:
    assert learnt("vicuna_v1", TWO_ROUNDS) == [" A1</s>", " A2</s>"]


def test_plain_keeps_the_image_and_learns_the_caption_with_its_newline() -> None:
    conversation = Conversation().ask("Describe the image concisely.", [PICTURE]).answer("C")
    assert find_template("plain").render(conversation).text == "<image>C\n"
    assert learnt("plain", conversation) == ["C\n"]


def test_plain_refuses_a_turn_without_image() -> None:
    with pytest.raises(ConversationError, match="needs an image"):
        find_template("plain").render(Conversation().ask("Q").answer("A"))


def test_content_spans_hold_exactly_what_people_wrote() -> None:
    prompt = find_template("vicuna_v1").render(Conversation().ask("is <image> a </s> word?", [PICTURE]).answer("no"))
    assert [prompt.text[a:b] for a, b in prompt.content] == [SYSTEM, "is <image> a </s> word?", "no"]
    assert [prompt.text[a:b] for (a, b), _ in prompt.images] == ["<image>"]


@pytest.mark.parametrize(
    ("content", "spelling"),
    [
        ((PICTURE, "\nQ"), (PICTURE, "Q")),
        (("Q\n", PICTURE), (PICTURE, "Q")),
        (("\n", PICTURE), (PICTURE,)),
        ((PICTURE, "\n", PICTURE, "\nQ"), (PICTURE, PICTURE, "Q")),
        (("Is ", PICTURE, " like ", PICTURE, "?"), ("Is ", PICTURE, " like ", PICTURE, "?")),
        (("a", "b"), ("ab",)),
        ((" a ",), (" a ",)),
    ],
)
def test_a_message_has_one_spelling(content: tuple, spelling: tuple) -> None:
    assert Message("user", content).content == spelling


def test_several_images_stay_where_they_are_and_leading_ones_get_a_newline() -> None:
    text = find_template("vicuna_v1").render(Conversation().ask("Q", [PICTURE, PICTURE])).text
    assert "USER: <image>\n<image>\nQ ASSISTANT:" in text
    turn = Message("user", ("Is ", PICTURE, " like ", PICTURE, "?"))
    text = find_template("vicuna_v1").render(Conversation((turn,))).text
    assert "USER: Is <image> like <image>? ASSISTANT:" in text


def test_a_system_text_of_ones_own_replaces_the_templates() -> None:
    conversation = Conversation(system="Be brief.").ask("Q")
    assert find_template("vicuna_v1").render(conversation).text == "Be brief. USER: Q ASSISTANT:"


def test_roles_must_alternate() -> None:
    with pytest.raises(ConversationError, match="turn 2 is the user's"):
        Conversation().ask("Q1").ask("Q2")


def test_an_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(ConversationError, match="known: plain, vicuna_v1"):
        find_template("vicuna")
