"""What holds for any conversation and every row: spans are exactly what is learnt and what people wrote."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llava_lite.conversation.families import TEMPLATES
from llava_lite.conversation.message import Conversation, Image, Message
from llava_lite.conversation.template import ChatTemplate
from tests.strategies import ANY, conversations, questions, words

rows = st.sampled_from(list(TEMPLATES.values()))


@ANY
@given(rows, conversations(images=True))
def test_answer_spans_are_the_answers_with_what_surrounds_them(row: ChatTemplate, conversation: Conversation) -> None:
    conversation = fitting(row, conversation)
    prompt = row.render(conversation)
    before, after = row.answer.split("{}")
    said = [written(row, message.text) for message in conversation.messages if message.role == "assistant"]
    assert [prompt.text[a:b] for a, b in prompt.answers] == [f"{before}{words}{after}" for words in said]
    assert ordered([*prompt.answers])


@ANY
@given(rows, conversations(images=True))
def test_content_spans_are_what_people_wrote(row: ChatTemplate, conversation: Conversation) -> None:
    conversation = fitting(row, conversation)
    prompt = row.render(conversation)
    said = row.system_text if conversation.system is None else conversation.system
    said += "".join(m.text for m in conversation.messages if m.role == "assistant" or row.user_text)
    stands = "".join(prompt.text[a:b] for a, b in prompt.content)
    assert "".join(stands.split()) == "".join(said.split()) if row.trim else stands == said
    assert tuple(image for _, image in prompt.images) == conversation.images
    assert all(prompt.text[a:b] == "<image>" for (a, b), _ in prompt.images)
    assert ordered([*prompt.content, *(span for span, _ in prompt.images)])


@ANY
@given(rows, conversations(images=True), questions(images=True), words)
def test_a_conversation_that_goes_on_only_grows(
    row: ChatTemplate, conversation: Conversation, question: Message, answer: str
) -> None:
    """What is asked is what was trained: each open prompt is a beginning of the whole text."""
    if conversation.awaits_answer:
        conversation = conversation.answer(answer)
    asked = fitting(row, Conversation((*conversation.messages, question), conversation.system))
    texts = [
        row.render(talk).text for talk in (Conversation(asked.messages[:-1], asked.system), asked, asked.answer(answer))
    ]
    assert texts[1].startswith(texts[0]) and texts[2].startswith(texts[1])


def fitting(row: ChatTemplate, conversation: Conversation) -> Conversation:
    """The conversation with what a row needs, and without what it has no place for."""
    system = conversation.system if row.system else None
    if row.user_text:
        return replace(conversation, system=system)
    messages = (
        m if m.role == "assistant" or m.images else Message("user", (Image("a.png"), *m.content))
        for m in conversation.messages
    )
    return Conversation(tuple(messages), system)


def written(row: ChatTemplate, words: str) -> str:
    return words.strip() if row.trim else words


def ordered(spans: list[tuple[int, int]]) -> bool:
    """Whether no two spans overlap."""
    spans = sorted(spans)
    return all(a <= b for a, b in spans) and all(b <= c for (_, b), (c, _) in pairwise(spans))
