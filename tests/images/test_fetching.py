"""Addresses come from strangers, and so do the servers behind them: no way into the network, no endless answers."""

import base64
import io
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from PIL import Image as PilImage

from llava_lite.images import fetching
from llava_lite.images.fetching import MAX_REDIRECTS, fetch_image
from llava_lite.images.loading import ImageError, load_image

_FILE = io.BytesIO()
PilImage.new("RGB", (4, 3), "teal").save(_FILE, "PNG")
PICTURE = _FILE.getvalue()
RESOLVE = socket.getaddrinfo

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self)
        self.server.answer(self)

    def log_message(self, *words: object) -> None: ...

    def send(self, *raw: bytes, pause: float = 0.0) -> None:
        """Send bytes as they are, slowly, for as long as somebody listens."""
        for part in raw:
            try:
                self.wfile.write(part)
            except OSError:
                break
            time.sleep(pause)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """A server that gives one answer, on one address."""

    def __init__(self, answer: Answer, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer = answer
        self.requests: list[Handler] = []
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(answer: Answer, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None) -> Server:
        server = Server(answer, host, port)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def picture(handler: Handler) -> None:
    handler.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(PICTURE), PICTURE)


def redirect_to(url: str, status: int = 302) -> Answer:
    return lambda handler: handler.send(f"HTTP/1.1 {status} Elsewhere\r\nLocation: {url}\r\n\r\n".encode())


def says(*parts: bytes, pause: float = 0.0) -> Answer:
    return lambda handler: handler.send(*parts, pause=pause)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that resolve to these addresses, one at a time, the last one for ever."""
    addresses: dict[str, list[str]] = {}

    def resolve(host: str, *rest: object, **options: object) -> list:
        if host in addresses:
            found = addresses[host]
            host = found.pop(0) if len(found) > 1 else found[0]
        return RESOLVE(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return addresses


@pytest.fixture
def one_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 plays the public internet; all else is as private as it is."""
    is_public = fetching._is_public
    monkeypatch.setattr(fetching, "_is_public", lambda a: a == ip_address("127.0.0.1") or is_public(a))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("form", ["sized", "chunked", "until it closes"])
def test_a_picture_arrives_as_it_is(serve: Callable[..., Server], host: str, form: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    half = len(PICTURE) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (PICTURE[:half], PICTURE[half:], b""))
    answer = {
        "sized": picture,
        "chunked": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks),
        "until it closes": says(b"HTTP/1.0 200 OK\r\n\r\n", PICTURE),
    }[form]
    server = serve(answer, host)
    data = fetch_image(f"{server.url}/my cat/ä.png?size=a b&x=%20#part", allow_private=True)
    assert data == PICTURE and load_image(data).getpixel((0, 0)) == (0, 128, 128)
    (request,) = server.requests
    assert request.path == "/my%20cat/%C3%A4.png?size=a%20b&x=%20"
    assert request.headers["Host"] == server.url.removeprefix("http://")
    assert request.headers["Accept-Encoding"] == "identity"


PRIVATE = {
    "loopback": ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "127.1", "0x7f000001", "2130706433", "017700000001"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "[fc00::1]", "[fd12::1]", "[fec0::1]"],
    "link-local": ["169.254.1.1", "[fe80::1]", "[fe80::1%251]"],
    "unspecified": ["0.0.0.0", "0", "[::]", "0.1.2.3"],
    "multicast": ["224.0.0.1", "239.255.255.250", "[ff02::1]", "[ff0e::1]"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.8", "198.18.0.1", "192.0.2.1", "[2001:db8::1]", "[3fff::1]"],
    "mapped": ["[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]"],
    "translated": ["[64:ff9b::7f00:1]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]", "[2002:808:808::]", "[2001:0:1::1]"],
    "carrier": ["100.64.0.1", "100.127.255.255"],
    "metadata": ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "192.0.0.192", "168.63.129.16"],
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_an_address_that_is_not_public_is_refused_before_it_is_reached(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was reached"))
    for host in PRIVATE[kind]:
        with pytest.raises(ImageError, match=re.escape(f"http://{host}/a.png: ") + ".* is no public address; download"):
            fetch_image(f"http://{host}/a.png")


@pytest.mark.parametrize("address", ["8.8.8.8", "100.128.0.1", "172.32.0.1", "2600::1", "2a00:1450:4001::1"])
def test_an_address_of_everybody_is_public(address: str) -> None:
    assert fetching._is_public(ip_address(address))


def test_a_host_of_which_one_address_is_private_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [*RESOLVE("8.8.8.8", 80, type=socket.SOCK_STREAM), *RESOLVE("10.0.0.1", 80, type=socket.SOCK_STREAM)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was reached"))
    with pytest.raises(ImageError, match=r"10\.0\.0\.1 is no public address"):
        fetch_image("http://pictures.test/a.png")


@pytest.mark.usefixtures("one_is_public")
def test_the_connection_goes_to_the_address_that_was_checked(
    serve: Callable[..., Server], names: dict[str, list[str]]
) -> None:
    outside = serve(picture)
    inside = serve(says(b"HTTP/1.1 200 OK\r\n\r\nsecret"), "127.0.0.2", outside.server_address[1])
    names["rebinding.test"] = ["127.0.0.1", "127.0.0.2"]
    url = f"http://rebinding.test:{outside.server_address[1]}/a.png"
    assert fetch_image(url) == PICTURE
    assert outside.requests[0].headers["Host"] == url.split("/")[2]
    with pytest.raises(ImageError, match=r"127\.0\.0\.2 is no public address"):
        fetch_image(url)
    assert not inside.requests


@pytest.mark.usefixtures("one_is_public")
def test_a_redirect_into_the_network_is_refused(serve: Callable[..., Server], names: dict[str, list[str]]) -> None:
    inside = serve(picture, "127.0.0.2")
    names["inside.test"] = ["127.0.0.2"]
    port = inside.server_address[1]
    for target in (f"http://127.0.0.2:{port}/x?key=1", f"http://inside.test:{port}/x?key=1"):
        for status in (301, 302, 303, 307, 308):
            outside = serve(redirect_to(target, status))
            told = rf"{outside.url}/a\.png, redirected to {target.partition('?')[0]}\?\.\.\.: 127\.0\.0\.2 is no public"
            with pytest.raises(ImageError, match=told):
                fetch_image(f"{outside.url}/a.png")
    assert not inside.requests


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1:25/x"])
def test_a_redirect_to_another_scheme_is_refused(serve: Callable[..., Server], target: str) -> None:
    server = serve(redirect_to(target))
    with pytest.raises(ImageError, match=f"redirected to {target}: only http and https are fetched"):
        fetch_image(server.url, allow_private=True)


def test_a_few_redirects_are_followed_also_to_a_path_and_no_more(serve: Callable[..., Server]) -> None:
    def count_down(handler: Handler) -> None:
        left = int(handler.path.rpartition("/")[2])
        answer = redirect_to(f"{left - 1}") if left else picture
        answer(handler)

    server = serve(count_down)
    assert fetch_image(f"{server.url}/a/{MAX_REDIRECTS}", allow_private=True) == PICTURE
    assert [request.path for request in server.requests] == [f"/a/{n}" for n in range(MAX_REDIRECTS, -1, -1)]
    with pytest.raises(ImageError, match=f"redirected more than {MAX_REDIRECTS} times"):
        fetch_image(f"{server.url}/a/{MAX_REDIRECTS + 1}", allow_private=True)


DRIPS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", *[b"x"] * 100),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 100),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 100),
    "nothing": (b"", b""),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n",) * 100,
}


@pytest.mark.parametrize("kind", DRIPS)
def test_a_server_that_drips_ends_with_the_deadline(serve: Callable[..., Server], kind: str) -> None:
    server = serve(says(*DRIPS[kind], pause=1.0 if kind == "nothing" else 0.05))
    start = time.monotonic()
    with pytest.raises(ImageError, match=f"{server.url}/a: not there within 0.3 seconds"):
        fetch_image(f"{server.url}/a", allow_private=True, timeout=0.3)
    assert time.monotonic() - start < 3


def test_redirects_share_one_deadline(serve: Callable[..., Server]) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.15)
        redirect_to("/again")(handler)

    with pytest.raises(ImageError, match=r"not there within 0\.3 seconds"):
        fetch_image(serve(slow).url, allow_private=True, timeout=0.3)


def test_a_name_that_does_not_resolve_in_time_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    with pytest.raises(ImageError, match=r"not there within 0\.2 seconds"):
        fetch_image("http://pictures.test/", timeout=0.2)


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(picture)
    with silent() as (host, port):
        both = [
            *RESOLVE(host, port, type=socket.SOCK_STREAM),
            *RESOLVE(*server.server_address, type=socket.SOCK_STREAM),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        assert fetch_image("http://pictures.test/", allow_private=True, timeout=2) == PICTURE


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """A port whose queue of connections is full, so that it takes no more and refuses none."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for other in (first, second):
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.mark.parametrize("announced", [True, False])
def test_more_bytes_than_the_limit_are_not_read(serve: Callable[..., Server], announced: bool) -> None:
    sent = []

    def endless(handler: Handler) -> None:
        header = b"Content-Length: 100000000\r\n" if announced else b""
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n")
        try:
            for _ in range(100):
                handler.wfile.write(bytes(1_000_000))
                sent.append(1)
        except OSError:
            handler.close_connection = True

    with pytest.raises(ImageError, match=r"larger than 0\.5 MiB; save it smaller"):
        fetch_image(serve(endless).url, allow_private=True, max_bytes=2**19)
    time.sleep(0.1)
    assert len(sent) < 20


def test_too_many_bytes_are_refused_as_they_are_announced(serve: Callable[..., Server]) -> None:
    server = serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", b"x", b"x", pause=1))
    with pytest.raises(ImageError, match="larger than"):
        fetch_image(server.url, allow_private=True, max_bytes=1000, timeout=0.5)


def test_as_many_bytes_as_the_limit_are_read(serve: Callable[..., Server]) -> None:
    server = serve(picture)
    assert fetch_image(server.url, allow_private=True, max_bytes=len(PICTURE)) == PICTURE
    with pytest.raises(ImageError, match="larger than"):
        fetch_image(server.url, allow_private=True, max_bytes=len(PICTURE) - 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says(b"HTTP/1.1 404 Not Found\r\n\r\n"), "the server answers 404 Not Found; check the address"),
        (says(b"HTTP/1.1 403 \x1b[2J\r\n\r\n"), "the server answers 403 Forbidden; check"),
        (redirect_to("http://\x1b[2J/"), r"redirected to http://\[2J/: not a whole address"),
        (says(b"HTTP/1.1 302 Found\r\n\r\n"), "the server answers 302 Found"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"), "comes compressed, which was not asked for"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), "the answer is cut off; try again"),
        (says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"), "the answer is cut off; try again"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000), r"does not answer as HTTP does \(LineTooLong\)"),
        (says(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200), r"does not answer as HTTP does \(HTTPException\)"),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n"), r"does not answer as HTTP does \(BadStatusLine\)"),
        (says(b""), r"does not answer as HTTP does \(RemoteDisconnected\)"),
        (redirect_to("http://[::1/"), r"redirected to http://\[::1/: not a whole address"),
        (redirect_to("http://a:b@127.0.0.1/"), "redirected to http://127.0.0.1/: a user or password is not sent"),
    ],
)
def test_a_bad_answer_is_named(serve: Callable[..., Server], answer: Answer, message: str) -> None:
    server = serve(answer)
    with pytest.raises(ImageError, match=rf"^{server.url}/a\.png\?\.\.\.(, |: ){message}"):
        fetch_image(f"{server.url}/a.png?token=secret", allow_private=True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com/a.png", "only http and https are fetched"),
        ("file:///etc/passwd", "only http and https are fetched"),
        ("a.png", "only http and https are fetched"),
        ("http:///a.png", "names no host"),
        ("http://example.com:99999/a.png", "not a whole address"),
        ("http://[::1/a.png", "not a whole address"),
        (f"http://{'a' * 70}.com/a.png", "not a whole address"),
        ("http://me:secret@example.com/a.png", "a user or password is not sent"),
        ("http://me@example.com/a.png", "a user or password is not sent"),
        ("http://nowhere.invalid/a.png", "cannot be reached"),
        ("http://127.0.0.1:1/a.png", r"cannot be reached \(Connection refused\)"),
    ],
)
def test_a_bad_address_is_named_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(ImageError, match=rf": {message}.*; ") as caught:
        fetch_image(f"{url}?key=secret", allow_private=True)
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_no_picture_is_told_when_it_is_opened(serve: Callable[..., Server]) -> None:
    page = fetch_image(serve(says(b"HTTP/1.1 200 OK\r\n\r\n<html>")).url, allow_private=True)
    with pytest.raises(ImageError, match="not an image of a kind this reads"):
        load_image(page)


def test_proxies_of_the_environment_are_not_used(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = serve(says(b"HTTP/1.1 200 OK\r\n\r\nproxy")), serve(picture)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    assert fetch_image(server.url, allow_private=True) == PICTURE


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for pictures.test, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    kind = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=pictures.test"
    use = "-addext subjectAltName=DNS:pictures.test -addext keyUsage=critical,digitalSignature,keyCertSign"
    command = f"openssl req {kind} {use} -keyout key.pem -out certificate.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


def test_a_certificate_bears_the_name_and_not_the_address(
    serve: Callable[..., Server], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = serve(picture, context=context)
    there = RESOLVE(*server.server_address, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    with pytest.raises(ImageError, match=r"its certificate does not hold \(self.signed certificate\)"):
        fetch_image("https://pictures.test/", allow_private=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch_image("https://pictures.test/", allow_private=True) == PICTURE
    assert [request.headers["Host"] for request in server.requests] == ["pictures.test"]
    for host in ("other.test", "127.0.0.1"):
        with pytest.raises(ImageError, match="its certificate does not hold"):
            fetch_image(f"https://{host}/", allow_private=True)


def test_many_threads_fetch_at_once_and_none_is_left(serve: Callable[..., Server]) -> None:
    good, bad = serve(picture), serve(says(*DRIPS["body"], pause=0.05))
    before = threading.active_count()
    results: list[object] = []

    def fetch(url: str) -> None:
        try:
            results.append(fetch_image(url, allow_private=True, timeout=1.5))
        except ImageError as error:
            results.append(error)

    threads = [threading.Thread(target=fetch, args=[server.url]) for server in (good, bad) * 10]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(result == PICTURE for result in results) == 10
    assert sum(isinstance(result, ImageError) for result in results) == 10
    time.sleep(0.3)  # the servers' own threads
    assert threading.active_count() <= before


def test_load_image_opens_what_was_fetched_and_no_address(serve: Callable[..., Server]) -> None:
    server = serve(picture)
    with pytest.raises(ImageError, match=r"give what llava_lite\.fetch_image returns"):
        load_image(server.url)
    data = fetch_image(server.url, allow_private=True)
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    assert load_image(data).tobytes() == load_image(uri).tobytes()
