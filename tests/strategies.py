"""Conversations as hypothesis draws them: words, white space, and what spells markup."""

from hypothesis import settings
from hypothesis import strategies as st

from llava_lite.conversation.message import Conversation, Image, Message

settings.register_profile("house", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("house")

WHITE = (" ", "\n")
MARKUP = ("{}", "<image>", "</s>", "<|im_end|>", "###", "[/INST]", "USER:", "'\"\\", "$")
PIECES = ("a", "Q 1", "é", "🦙", *WHITE, *MARKUP)

words = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
systems = st.one_of(st.none(), words)


def questions(*, images: bool) -> st.SearchStrategy[Message]:
    """A user's turn, of text alone or with images anywhere."""
    part = st.one_of(words, st.builds(Image, st.sampled_from(["a.png", "b.png"]))) if images else words
    return st.lists(part, min_size=1, max_size=4).map(lambda parts: Message("user", tuple(parts)))


@st.composite
def conversations(draw: st.DrawFn, *, images: bool) -> Conversation:
    """One to three rounds, the last one perhaps open, perhaps with a system text."""
    messages: list[Message] = []
    for _ in range(draw(st.integers(1, 3))):
        messages += [draw(questions(images=images)), Message("assistant", (draw(words),))]
    return Conversation(tuple(messages[: len(messages) - draw(st.booleans())]), draw(systems))
