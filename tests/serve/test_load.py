"""Hundreds of good and bad requests at once, from clients that come and go: nothing of them stays in the server."""

import base64
import io
import json
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serve.running import CHAT, Address, question, read_until, request, start_verb, wait_for

pytestmark = pytest.mark.slow
NUM_CLIENTS = 16
NUM_PLACES = 12


@pytest.fixture(scope="module")
def process(llava_dir: Path, world: Path) -> Iterator[tuple[Address, int]]:
    """A server of its own, whose threads and memory are nobody else's: where it listens, and its process."""
    limits = ("--max-answering", "4", "--max-waiting", str(NUM_PLACES - 4), "--max-body-mib", "1", "--max-images", "2")
    server = start_verb(llava_dir, *limits, "--allow-files", str(world))
    line = next(line for line in server.stderr if "http://" in line)
    reader = threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True)  # its log must not fill a pipe
    reader.start()
    address = Address(int(re.search(r":(\d+)/v1", line)[1]))
    wait_for(address.listens)
    yield address, server.pid
    server.terminate()
    assert server.wait(timeout=60) == 0
    reader.join()


def picture(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def bomb() -> str:
    """A small PNG that says it has 30,000 x 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return "data:image/png;base64," + base64.b64encode(data).decode()


def animation(path: Path) -> str:
    from PIL import Image

    frames = [Image.open(path).convert("RGB").rotate(angle) for angle in (0, 90, 180)]
    frames[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=frames[1:])
    return "data:image/gif;base64," + base64.b64encode(file.getvalue()).decode()


def bodies(pictures: list[Path], uris: list[str]) -> dict[str, tuple[bytes, int]]:
    """Requests by name, and the status that each gets."""
    text = {"type": "text", "text": "What is it?"}
    cut = uris[0][:200]

    def asked(content: object, **fields: object) -> bytes:
        return json.dumps(question(messages=[{"role": "user", "content": content}], **fields)).encode()

    return {
        "text": (asked("Hello."), 200),
        "drawn": (asked("Hello.", temperature=1.5, top_k=9, repetition_penalty=1.2, max_tokens=40), 200),
        "stream": (asked("Hello.", stream=True, max_tokens=60), 200),
        "image": (asked([picture(uris[0]), text]), 200),
        "two images": (asked([picture(uris[0]), text, picture(uris[1])], stream=True), 200),
        "file": (asked([picture(pictures[0].as_uri()), text]), 200),
        "animation": (asked([picture(animation(pictures[1])), text]), 200),
        "json": (b'{"model": "tiny", "messages": [', 400),
        "field": (asked("Hello.", temprature=1), 400),
        "tools": (asked("Hello.", tools=[{"type": "function"}]), 400),
        "model": (json.dumps({**question(), "model": "gpt-4o"}).encode(), 404),
        "bomb": (asked([picture(bomb()), text]), 400),
        "half an image": (asked([picture(cut[: len(cut) // 4 * 4 - 2]), text]), 400),
        "three images": (asked([picture(uris[0])] * 3), 400),
        "passwd": (asked([picture("file:///etc/passwd")]), 400),
        "fetched": (asked([picture("http://127.0.0.1:1/a.png")]), 400),
        "too long": (asked("word " * 5000), 400),
        "mark": (asked("<image> </s> <image>"), 200),
        "large": (b" " * (2**20 + 1), 413),
        "deep": (b"[" * 100_000, 400),
    }


def come_and_go(address: Address, body: bytes, how: str, draw: random.Random) -> None:
    """Be a client that does not stay until the end."""
    with address.connect() as connection:
        if how == "in the body":
            connection.sendall(request("POST", CHAT, body)[: draw.randrange(20, 200)])
        elif how == "before the answer":
            connection.sendall(request("POST", CHAT, body))
        elif how == "in the stream":
            connection.sendall(request("POST", CHAT, json.dumps(question(stream=True, max_tokens=900)).encode()))
            read_until(connection, b"HTTP/1.1 ")
        elif how == "with a reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(request("POST", CHAT, json.dumps(question(max_tokens=900)).encode()))
        else:
            connection.sendall(draw.randbytes(300))


LEAVING = ("in the body", "before the answer", "in the stream", "with a reset", "after garbage")


def storm(address: Address, kinds: dict[str, tuple[bytes, int]], count: int, seed: int) -> Counter[int]:
    """Send so many requests, several at a time; return how often each status came, 0 for clients that left."""

    def ask(number: int) -> Counter[int]:
        draw = random.Random(seed * 10_000 + number)
        name = draw.choice([*kinds, *LEAVING])
        if name in LEAVING:
            come_and_go(address, kinds["text"][0], name, draw)
            return Counter({0: 1})
        body, status = kinds[name]
        statuses: Counter[int] = Counter({status: 1})
        while (reply := address.send("POST", CHAT, body)).status == 429:
            statuses[429] += 1
            time.sleep(draw.uniform(0.02, 0.1))
        assert reply.status == status, (name, reply)
        if reply.status != 200:
            assert reply.error["message"]
        elif b"text/event-stream" in reply.headers["content-type"].encode():
            assert reply.body.endswith(b"data: [DONE]\n\n")
        return statuses

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        return sum(pool.map(ask, range(count)), Counter())


def state(pid: int) -> dict[str, int]:
    """Threads, open files and resident MiB of a process."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {"threads": int(status["Threads"]), "files": files, "MiB": int(status["VmRSS"].split()[0]) // 1024}


def at_rest(address: Address) -> bool:
    health = address.send("GET", "/health").json
    metrics = address.send("GET", "/metrics").body.decode()
    return (health["answering"], health["waiting"]) == (0, 0) and "llava_lite_open_requests 0.0" in metrics


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_storm_leaves_nothing_behind(process: tuple[Address, int], pictures: list[Path], uris: list[str]) -> None:
    address, pid = process
    kinds = bodies(pictures, uris)
    for body, status in kinds.values():  # each kind alone, and a good one behind it
        assert address.send("POST", CHAT, body).status == status
        assert address.post(question()).status == 200
    storm(address, kinds, 200, seed=0)
    wait_for(lambda: at_rest(address))
    before = state(pid)
    statuses = storm(address, kinds, 600, seed=1)
    wait_for(lambda: at_rest(address))
    after = state(pid)
    print(f"{dict(statuses)}: {before} -> {after}")
    assert statuses.keys() == {0, 200, 400, 404, 413, 429}
    assert statuses.total() - statuses[429] == 600
    assert (after["threads"], after["files"]) == (before["threads"], before["files"])
    assert after["MiB"] - before["MiB"] < 100
    assert address.post(question()).status == 200
