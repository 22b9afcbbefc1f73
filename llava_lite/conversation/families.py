"""The table of chat templates. A row adds a family; which row a model was trained with is stored in its checkpoint."""

from __future__ import annotations

from llava_lite.conversation.message import ConversationError
from llava_lite.conversation.template import ChatTemplate

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

TEMPLATES: dict[str, ChatTemplate] = {
    template.name: template
    for template in (
        # LLaVA's stage one: the image, the caption and a newline; no end-of-sequence token.
        ChatTemplate(name="plain", user="{}", answer="{}\n", user_text=False),
        # Vicuna v1.1 as LLaVA trains it: one space after the system text, none after </s>.
        ChatTemplate(
            name="vicuna_v1",
            user="USER: {} ASSISTANT:",
            answer=" {}</s>",
            system="{} ",
            system_text=_VICUNA_SYSTEM,
        ),
    )
}


def find_template(name: str) -> ChatTemplate:
    """Return the template of that exact name; raise ConversationError that lists the known ones."""
    if name not in TEMPLATES:
        raise ConversationError(f"unknown template {name!r}; known: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]
