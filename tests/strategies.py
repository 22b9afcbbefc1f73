"""Conversations as hypothesis draws them: words, white space, and what spells markup."""

from hypothesis import settings
from hypothesis import strategies as st

from llava_lite.conversation.message import Conversation, Image, Message

ANY = settings(deadline=None, max_examples=50, derandomize=True, database=None)
"""How many are drawn: the same ones in every run."""

WHITE = (" ", "\n")
MARKUP = ("{}", "<image>", "</s>", "<|im_end|>", "###", "[/INST]", "USER:", "'\"\\", "$")
PIECES = ("a", "Q 1", "é", "🦙", *WHITE, *MARKUP)

words = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)
systems = st.one_of(st.none(), words)


pictures = st.builds(Image, st.sampled_from(["a.png", "b.png"]))
spaced = st.sampled_from((" a", "b\n", "\n"))
contents = st.lists(st.one_of(words, spaced, pictures, pictures), min_size=1, max_size=5).map(tuple)
"""What a user says, of texts and images in any order, before `Message` gives it one spelling."""


def questions(*, images: bool) -> st.SearchStrategy[Message]:
    """A user's turn, of text alone or with images anywhere."""
    return (contents if images else words.map(lambda text: (text,))).map(lambda parts: Message("user", parts))


@st.composite
def conversations(draw: st.DrawFn, *, images: bool) -> Conversation:
    """One to three rounds, the last one perhaps open, perhaps with a system text."""
    messages: list[Message] = []
    for _ in range(draw(st.integers(1, 3))):
        messages += [draw(questions(images=images)), Message("assistant", (draw(words),))]
    return Conversation(tuple(messages[: len(messages) - draw(st.booleans())]), draw(systems))
