"""What an operator allows: how much of everything, from where images may come, and who may ask."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

KEY_VARIABLE = "LLAVA_LITE_API_KEY"


class ServeError(ValueError):
    """A server that cannot be started as it was asked for."""


@dataclass(frozen=True)
class ServerConfig:
    """What is allowed.

    model_name:     what clients call the model; None: as the model calls itself
    max_new_tokens: the longest answer that may be asked for, and what is given where nothing is asked
    max_images, max_messages, max_characters: of one request; a message has no more parts than that either. The
        characters are counted before the tokens, which takes a second for each million
    max_body_bytes: of one request, and again of all the images that are fetched for it
    body_timeout:   seconds in which a request must have arrived
    timeout:        seconds in which it must be answered, and in which a client must take a piece of its answer
    allow_fetch:    images may be http(s) addresses, of public hosts; allow_private: and of any other
    files_dir:      images may be file:// addresses below this folder; None: no files
    api_key:        what clients must show as `Authorization: Bearer KEY`; None: nothing
    allow_origins:  web pages of other origins that may ask; "*": all
    """

    model_name: str | None = None
    max_new_tokens: int = 1024
    max_images: int = 16
    max_messages: int = 1000
    max_characters: int = 1_000_000
    max_body_bytes: int = 32 * 2**20
    body_timeout: float = 60.0
    timeout: float = 600.0
    allow_fetch: bool = False
    allow_private: bool = False
    files_dir: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    allow_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = {
            "max_new_tokens": self.max_new_tokens,
            "max_messages": self.max_messages,
            "max_characters": self.max_characters,
            "max_body_bytes": self.max_body_bytes,
            "body_timeout": self.body_timeout,
            "timeout": self.timeout,
        }
        if wrong := [f"{name}={value}" for name, value in limits.items() if not value > 0]:
            raise ServeError(f"limits must be above 0: {', '.join(wrong)}")
        if self.allow_private and not self.allow_fetch:
            raise ServeError("allow_private goes with allow_fetch; allow fetching too")
        if self.files_dir is not None and not self.files_dir.is_dir():
            raise ServeError(f"{self.files_dir}: not a folder; name the one whose images may be read")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise ServeError("the API key must be printable ASCII, as it travels in a header")

    def describe(self) -> str:
        """Say in a line what is allowed."""
        fetched = f"addresses ({'any' if self.allow_private else 'public'} hosts)" if self.allow_fetch else ""
        places = ["data: URIs", fetched, f"files below {self.files_dir}" if self.files_dir else ""]
        return (
            f"images from {', '.join(filter(None, places))}, {self.max_images} a request; "
            f"answers of up to {self.max_new_tokens} tokens; "
            f"{'an API key is asked for' if self.api_key else 'no API key is asked for'}"
        )


def read_api_key(file: Path | None) -> str | None:
    """Return the key in a file, or else in the environment; None where there is neither.

    Not an option's value: every user of a machine sees what its processes were called with.
    """
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"{file}: the API key cannot be read ({error})") from None
    if not key:
        raise ServeError(f"{file}: empty, where an API key should stand")
    return key
