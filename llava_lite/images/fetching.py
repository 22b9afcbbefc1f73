"""Fetch a picture from an address that a stranger may have written, from a machine that stands in somebody's network.

Written on http.client, because both things that make it safe need the socket itself: it is connected to the very
address that was checked, for a name may resolve to another one the next time; and all waits share one deadline, where
the timeouts of HTTP libraries start anew with every byte that drips in. Proxies that the environment names are not
used: a proxy resolves the name itself, so that what was checked would not be what is reached.
"""

from __future__ import annotations

import http.client
import io
import queue
import re
import socket
import ssl
import string
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from llava_lite import __version__
from llava_lite.images.loading import MAX_BYTES, ImageError

MAX_REDIRECTS = 5

_PIECE = 2**16
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": f"llava-lite/{__version__}"}
_REDIRECTS = (301, 302, 303, 307, 308)
_UNICAST = ip_network("2000::/3")  # all of IPv6 that has been given out to the public
# What Python's `is_global` lets pass, in some or all of its versions
_NOT_PUBLIC = (
    ip_network("192.0.0.0/24"),  # of protocols; a cloud's metadata among them
    ip_network("168.63.129.16/32"),  # the host of a cloud's machine, as its guests see it
    ip_network("192.88.99.0/24"),  # relays of 6to4
    ip_network("2002::/16"),  # 6to4: holds any IPv4 address
    ip_network("3fff::/20"),  # documentation
)


def fetch_image(url: str, *, allow_private: bool = False, max_bytes: int = MAX_BYTES, timeout: float = 20.0) -> bytes:
    """Return what an http or https address holds, for `load_image` to open. May be called from any thread.

    allow_private: reach addresses that are not public as well: of this machine, its network, its cloud
    timeout: seconds for all of it: resolving the name, up to MAX_REDIRECTS redirects, the last byte

    Raises ImageError that names the address, without its query, for one that cannot be reached in time, is not public
    or sends on to one that is not, holds a user or password, answers with an error, compressed, or with more than
    max_bytes.
    """
    name = _name(url)
    place = _parse(url, name)
    fetch = _Fetch(allow_private, max_bytes, until=time.monotonic() + timeout)
    for _ in range(1 + MAX_REDIRECTS):
        with _named(name, timeout):
            answer = fetch.get(place, name)
        if isinstance(answer, bytes):
            return answer
        name = f"{_name(url)}, redirected to {_name(answer)}"
        place = _parse(answer, name, seen_from=place.url)
    raise ImageError(f"{name}: redirected more than {MAX_REDIRECTS} times; give the last address")


@dataclass(frozen=True)
class _Place:
    """An address, taken apart.

    authority: host and port as the server is told them; target: path and query
    """

    url: str
    secure: bool
    host: str
    port: int
    authority: str
    target: str


@dataclass(frozen=True)
class _Fetch:
    """What holds for all requests of one fetch. until: the end of its time, on the monotonic clock"""

    allow_private: bool
    max_bytes: int
    until: float

    def get(self, place: _Place, name: str) -> bytes | str:
        """Return the body, or where the server redirects to."""
        connection = http.client.HTTPConnection(place.host, place.port)
        with self.connect(place, self.resolve(place, name)) as wire:
            connection.sock = _Wire(wire, self)
            connection.request("GET", place.target, headers={"Host": place.authority, **_HEADERS})
            return self.read(connection.getresponse(), name)

    def resolve(self, place: _Place, name: str) -> list[Any]:
        """Return all addresses of a host, as `getaddrinfo` does. Raises ImageError where one of them is not allowed."""
        answers: queue.Queue[Any] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM))
            except (OSError, ValueError) as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()  # the resolver has no timeout that could be set
        try:
            found = answers.get(timeout=self.left())
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(found, Exception):
            raise found
        for *_, (address, *_) in found:
            if not (self.allow_private or _is_public(ip_address(address))):
                raise ImageError(
                    f"{name}: {address} is no public address; download the image and give its path, or allow private "
                    "addresses (allow_private=True, --allow-private)"
                )
        return found

    def connect(self, place: _Place, addresses: list[Any]) -> socket.socket:
        """Connect to the first address that answers; each has an even share of the time that is left."""
        failure = OSError("it has no address")
        for i, (family, kind, protocol, _, address) in enumerate(addresses):
            wire = socket.socket(family, kind, protocol)
            try:
                wire.settimeout(self.left() / (len(addresses) - i))
                wire.connect(address)
                wire.settimeout(self.left())
                if place.secure:  # the certificate must bear the name, whatever the address
                    wire = ssl.create_default_context().wrap_socket(wire, server_hostname=place.host)
                return wire
            except OSError as error:
                wire.close()
                failure = error
        raise failure

    def read(self, response: http.client.HTTPResponse, name: str) -> bytes | str:
        """Return the body, of which never more than a piece over max_bytes is held, or where it redirects to."""
        location = response.headers["Location"]
        if response.status in _REDIRECTS and location:
            return location
        if response.status != 200:
            status = f"{response.status} {http.client.responses.get(response.status, '')}".strip()
            raise ImageError(f"{name}: the server answers {status}; check the address")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ImageError(f"{name}: comes compressed, which was not asked for; download the image and give its path")
        body = bytearray()
        size = response.length or 0  # as it was announced
        while size <= self.max_bytes and (piece := response.read(_PIECE)):
            body += piece
            size = max(size, len(body))
        if size > self.max_bytes:
            raise ImageError(f"{name}: larger than {self.max_bytes / 2**20:g} MiB; save it smaller")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return bytes(body)

    def left(self) -> float:
        """Return the seconds left. Raises TimeoutError where there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Wire(io.RawIOBase):
    """What http.client uses of a socket, with every wait ending when the fetch does."""

    def __init__(self, wire: socket.socket, fetch: _Fetch) -> None:
        self.wire = wire
        self.fetch = fetch

    def sendall(self, data: bytes) -> None:
        self.wire.settimeout(self.fetch.left())
        self.wire.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.wire.settimeout(self.fetch.left())
        return self.wire.recv_into(buffer)

    def close(self) -> None:
        """Leave it to `_Fetch.get`: http.client closes its socket before the answer is read."""


def _parse(url: str, name: str, *, seen_from: str = "") -> _Place:
    try:
        parts = urlsplit(urljoin(seen_from, url))
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:  # its text may hold a password
        raise ImageError(f"{name}: not a whole address; check it") from None
    if parts.scheme not in ("http", "https"):
        raise ImageError(f"{name}: only http and https are fetched; download the image and give its path")
    if not host:
        raise ImageError(f"{name}: names no host; check the address")
    if "@" in parts.netloc:
        raise ImageError(f"{name}: a user or password is not sent; download the image and give its path")
    secure = parts.scheme == "https"
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = quote(target, safe=string.punctuation)
    return _Place(parts.geturl(), secure, host, port or (443 if secure else 80), authority, target)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is everybody's. IPv4 within IPv6 (mapped, NAT64, 6to4, Teredo) is not."""
    return (
        address.is_global
        and not address.is_multicast
        and (address.version == 4 or address in _UNICAST)
        and not any(address in network for network in _NOT_PUBLIC)
    )


@contextmanager
def _named(name: str, timeout: float) -> Iterator[None]:
    """Tell what goes wrong on the way as an ImageError."""
    remedy = "check the address, or download the image and give its path"
    try:
        yield
    except TimeoutError:
        raise ImageError(f"{name}: not there within {timeout:g} seconds; {remedy}") from None
    except ssl.SSLCertVerificationError as error:
        raise ImageError(f"{name}: its certificate does not hold ({error.verify_message}); {remedy}") from None
    except http.client.IncompleteRead:
        raise ImageError(f"{name}: the answer is cut off; try again") from None
    except http.client.HTTPException as error:
        raise ImageError(f"{name}: does not answer as HTTP does ({type(error).__name__}); {remedy}") from None
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{name}: cannot be reached ({reason}); {remedy}") from None


def _name(url: str) -> str:
    """Name an address without what may be secret (a user, a password, a query), and what a terminal would obey."""
    place, query, _ = url.partition("?")
    place = "".join(filter(str.isprintable, re.sub("//[^/]*@", "//", place)))
    return f"{place[:200]}{'...' if len(place) > 200 else ''}{'?...' if query else ''}"
