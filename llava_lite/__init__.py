"""llava_lite: assemble, train and use LLaVA-style vision-language models.

The public names below are resolved on first use, so that `import llava_lite` and `llava-lite --help` stay fast: neither
imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llava_lite.conversation.message import Conversation, Image, Message
    from llava_lite.generation.assistant import Assistant, load
    from llava_lite.generation.chat_model import Sampling
    from llava_lite.generation.opening import open_model
    from llava_lite.generation.remote import RemoteChat
    from llava_lite.images.fetching import fetch_image
    from llava_lite.models.llava import Llava
    from llava_lite.processor import Processor

__version__ = "0.1.0"
__all__ = [
    "Assistant", "Conversation", "Image", "Llava", "Message", "Processor", "RemoteChat", "Sampling",
    "fetch_image", "load", "open_model",
]  # fmt: skip

_HOMES = {
    "load": "llava_lite.generation.assistant",
    "Assistant": "llava_lite.generation.assistant",
    "RemoteChat": "llava_lite.generation.remote",
    "open_model": "llava_lite.generation.opening",
    "Sampling": "llava_lite.generation.chat_model",
    "Conversation": "llava_lite.conversation.message",
    "Message": "llava_lite.conversation.message",
    "Image": "llava_lite.conversation.message",
    "fetch_image": "llava_lite.images.fetching",
    "Processor": "llava_lite.processor",
    "Llava": "llava_lite.models.llava",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
