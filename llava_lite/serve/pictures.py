"""Where a request's images come from: its own data: URIs, and files or addresses where the operator allows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llava_lite.conversation.message import Conversation, Image
from llava_lite.images.loading import MAX_BYTES, ImageError, image_size
from llava_lite.serve.config import ServerConfig
from llava_lite.serve.errors import Refusal


def read_picture(url: str, config: ServerConfig, param: str) -> Image:
    """Return the image of an `image_url`; one that is to be fetched keeps its address. Raises Refusal.

    The header alone is looked at here, to tell which of many images is broken.
    """
    scheme = url[:10].partition(":")[0].lower()
    if scheme == "data":
        source: str | bytes = "data:" + url[5:]
    elif scheme == "file":
        source = _read_file(url, config.files_dir, param)
    elif scheme in ("http", "https"):
        if not config.allow_fetch:
            raise _refused(param, "this server fetches no addresses; send the image as a data: URI")
        return Image(url)
    else:
        raise _refused(param, "an image is a data: URI, as data:image/png;base64,...; this address is of no known kind")
    _check(source, param)
    return Image(source)


def fetch_pictures(conversation: Conversation, config: ServerConfig) -> Conversation:
    """Fetch the images that are still addresses, one after the other. Raises Refusal."""
    left = config.max_body_bytes
    messages = []
    for message in conversation.messages:
        parts: list[str | Image] = []
        for part in message.content:
            if not isinstance(part, str) and is_address(part):
                data = _fetch(str(part.source), config, left)
                left -= len(data)
                part = Image(data)
            parts.append(part)
        messages.append(replace(message, content=tuple(parts)))
    return replace(conversation, messages=tuple(messages))


def is_address(image: Image) -> bool:
    """Whether an image is still to be fetched."""
    return isinstance(image.source, str) and not image.source.startswith("data:")


def _fetch(url: str, config: ServerConfig, left: int) -> bytes:
    from llava_lite.images.fetching import fetch_image

    if left <= 0:
        raise _refused("messages", f"images of more than {config.max_body_bytes} bytes together; send fewer")
    try:
        data = fetch_image(url, allow_private=config.allow_private, max_bytes=min(MAX_BYTES, left))
    except ImageError as error:
        raise _refused("messages", str(error)) from None
    _check(data, "messages")
    return data


def _read_file(url: str, folder: Path | None, param: str) -> bytes:
    if folder is None:
        raise _refused(param, "this server reads no files; send the image as a data: URI")
    # one message for all that is not there or not below it, so that nobody learns what lies elsewhere
    missing = _refused(param, "no such file below the folder whose images may be read")
    try:
        address = urlsplit(url)
        path = Path(unquote(address.path, errors="strict")).resolve(strict=True)  # follows links and ..
        if address.netloc not in ("", "localhost") or not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise missing
        if path.stat().st_size > MAX_BYTES:
            raise _refused(param, f"larger than {MAX_BYTES // 2**20} MiB; save it smaller")
        return path.read_bytes()
    except (OSError, RuntimeError, UnicodeDecodeError):  # RuntimeError: a circle of links
        raise missing from None
    except Refusal:
        raise
    except ValueError:  # an address or a path that cannot be
        raise missing from None


def _check(source: str | bytes, param: str) -> None:
    try:
        image_size(source)
    except ImageError as error:
        raise _refused(param, str(error)) from None


def _refused(param: str, message: str) -> Refusal:
    return Refusal(f"{param}: {message}", param=param, code="invalid_image")
