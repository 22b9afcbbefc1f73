"""The web page in a real Chromium, against a real server and a real tiny model.

Every test ends with the page's own rules: nothing was asked of another origin, and nothing broke in its script.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.generation.batching import Batcher
from llava_lite.generation.chat_model import Event, Finish, Load, Sampling
from llava_lite.serve.config import ServerConfig
from tests.serve.running import Address, running, wait_for

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PHONE = {"width": 360, "height": 740}
EXAMPLES = json.loads((Path(llava_lite.__file__).parent / "serve/web/examples.json").read_text("utf-8"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no browser; install Debian's package: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens the page of a server, and looks at what it asked for and at what broke when the test is over."""
    context = browser.new_context(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    asked: list[str] = []
    broken: list[str] = []
    origins: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: broken.append(str(error.error)))
    context.on("console", lambda message: broken.append(message.text) if "Content Security" in message.text else None)

    def open_page(server: Address, size: dict[str, int] | None = None) -> Page:
        page = context.new_page()
        if size:
            page.set_viewport_size(size)
        origins.append(server.url.removesuffix("/v1"))
        page.goto(origins[-1])
        expect(page.locator("#examples li")).to_have_count(len(EXAMPLES))
        return page

    yield open_page
    context.close()
    elsewhere = [url for url in asked if not url.startswith((*origins, "data:", "blob:" + origins[0]))]
    assert (elsewhere, broken) == ([], [])


def ask(page: Page, text: str) -> str:
    """Type a question, send it with Enter, and return what is shown as the answer when it is whole."""
    count = page.locator("#exchanges > li").count()
    page.fill("#text", text)
    page.press("#text", "Enter")
    expect(page.locator("#exchanges > li")).to_have_count(count + 1)
    return whole(page)


def whole(page: Page) -> str:
    """Wait for the end of the last answer and return it as it is shown."""
    expect(page.locator("#exchanges > li").last.locator(".note")).not_to_be_empty()
    expect(page.locator("#stop")).to_be_hidden()
    return page.locator(".answer .text").last.inner_text()


def attach(page: Page, *pictures: Path) -> None:
    """Choose images and wait until their thumbnails are there."""
    count = page.locator("#images li").count()
    page.set_input_files("#files", [str(path) for path in pictures])
    expect(page.locator("#images li")).to_have_count(count + len(pictures))


def conversation(page: Page) -> dict[str, Any]:
    """Download what was said."""
    with page.expect_download() as download:
        page.click("#download")
    return json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def setting(page: Page, **values: str) -> None:
    """Set settings as people do, by their fields."""
    page.click("#open-settings")
    for name, value in values.items():
        page.fill(f"#{name}", value)
    page.click("#settings .strong")


def test_a_streamed_answer_is_the_apis_own_and_the_image_reaches_it_as_it_is(
    visit: Visit, server: Address, pictures: list[Path], uris: list[str]
) -> None:
    page = visit(server)
    expect(page.locator("#state")).to_have_text("tiny")
    setting(page, max_tokens="24")
    attach(page, pictures[0])
    shown = ask(page, "What color is it?")
    attach(page, pictures[1])
    ask(page, "And\nthis one?")
    said = conversation(page)
    answers = [message.pop("content") for message in said["messages"][1::2]]
    assert said["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": uris[0]}},
        {"type": "text", "text": "What color is it?"},
    ]
    assert said["messages"][2]["content"][1] == {"type": "text", "text": "And\nthis one?"}
    assert shown.split() == answers[0].split()
    for i in (0, 1):  # the same body again, not streamed
        turns = [dict(message) for message in said["messages"][: 2 * i + 1]]
        for turn, answer in zip(turns[1::2], answers, strict=False):
            turn["content"] = answer
        reply = server.post({**said, "messages": turns})
        assert reply.json["choices"][0]["message"]["content"] == answers[i]


def test_an_answer_can_be_drawn_again_and_copied(visit: Visit, server: Address) -> None:
    page = visit(server)
    setting(page, max_tokens="16", temperature="2", seed="1")
    first = ask(page, "What is it?")
    page.click(".again")
    assert whole(page) == first  # of the same seed
    setting(page, seed="2")
    page.click(".again")
    assert whole(page) != first
    page.click(".copy")
    expect(page.locator(".copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == conversation(page)["messages"][1]["content"]
    assert len(conversation(page)["messages"]) == 2


def test_a_question_can_be_edited_or_left_as_it_was(visit: Visit, server: Address, pictures: list[Path]) -> None:
    page = visit(server)
    attach(page, pictures[0])
    ask(page, "What is it?")
    page.click(".edit")
    expect(page.locator("#images li")).to_have_count(1)
    expect(page.locator("#text")).to_have_value("What is it?")
    page.click("#editing button")
    expect(page.locator("#text")).to_have_value("")
    assert [m["role"] for m in conversation(page)["messages"]] == ["user", "assistant"]
    page.click(".edit")
    page.fill("#text", "What color is it?")
    page.press("#text", "Enter")
    expect(page.locator(".question .text")).to_have_text(["What color is it?"])
    whole(page)
    assert len(conversation(page)["messages"]) == 2


def test_stopping_frees_the_place_and_keeps_what_was_said(visit: Visit, long_server: tuple[Address, Batcher]) -> None:
    server, model = long_server
    page = visit(server)
    page.fill("#text", "What is it?")
    page.press("#text", "Shift+Enter")
    page.press("#text", "Enter")
    expect(page.locator(".answer .text")).not_to_be_empty()
    assert model.load().num_answering == 1
    page.click("#stop")
    wait_for(lambda: model.load().num_answering == 0, seconds=5)
    expect(page.locator(".note")).to_have_text("Stopped.")
    assert 0 < len(conversation(page)["messages"][1]["content"].split()) < 1000
    page.fill("#text", "Again?")
    page.press("#text", "Enter")
    expect(page.locator("#stop")).to_be_visible()
    page.click("#new")  # ends it too
    wait_for(lambda: model.load().num_answering == 0, seconds=5)
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()


@pytest.fixture
def long_server(llava_dir: Path, config: ServerConfig) -> Iterator[tuple[Address, Batcher]]:
    """One that gives long answers, one at a time."""
    model = Batcher(llava_lite.load(llava_dir), max_answering=1, max_waiting=0)
    with running(model, replace(config, max_new_tokens=1500)) as server:
        yield server, model
    model.close()


def test_a_busy_model_says_so_and_is_asked_again(visit: Visit, long_server: tuple[Address, Batcher]) -> None:
    server, model = long_server
    page = visit(server)
    other = model.submit(Conversation().ask("Hello."), Sampling(max_new_tokens=1500), lambda event: None)
    page.fill("#text", "What is it?")
    page.press("#text", "Enter")
    expect(page.locator(".error")).to_contain_text("The model is busy.")
    other.cancel()
    wait_for(lambda: model.load().num_answering == 0)
    page.click("text=Try again")
    expect(page.locator(".error")).to_be_hidden()
    expect(page.locator(".answer .text")).not_to_be_empty()
    page.click("#stop")


def test_images_can_be_pasted_dropped_and_removed(visit: Visit, server: Address, uris: list[str]) -> None:
    page = visit(server)
    give = """([uri, kind]) => {
        const bytes = Uint8Array.from(atob(uri.split(",")[1]), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const init = { bubbles: true, cancelable: true, clipboardData: data, dataTransfer: data };
        document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, init) : new DragEvent(kind, init));
    }"""
    page.evaluate(give, [uris[0], "paste"])
    expect(page.locator("#images li")).to_have_count(1)
    page.evaluate(give, [uris[1], "drop"])
    expect(page.locator("#images li")).to_have_count(2)
    page.get_by_role("button", name="Remove paste.png").click()
    expect(page.locator("#images li")).to_have_count(1)
    ask(page, "What is it?")
    urls = [part.get("image_url", {}).get("url") for part in conversation(page)["messages"][0]["content"]]
    assert urls == [uris[1], None]
    expect(page.locator("#images li")).to_have_count(0)


def test_what_cannot_be_sent_is_said_before(
    visit: Visit, server: Address, config: ServerConfig, pictures: list[Path], tmp_path: Path
) -> None:
    page = visit(server)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "broken.png").write_bytes(b"neither")
    (tmp_path / "huge.png").write_bytes(bytes(config.max_body_bytes))
    for name, words in (
        ("notes.txt", "notes.txt is not an image."),
        ("broken.png", "broken.png cannot be opened"),
        ("huge.png", "huge.png is too large: 0.3 MiB to send, of 0.2 MiB."),
    ):
        page.set_input_files("#files", str(tmp_path / name))
        expect(page.locator("#notice")).to_contain_text(words)
    attach(page, *pictures[:3])
    expect(page.locator("#notice")).to_be_hidden()
    page.set_input_files("#files", str(pictures[3]))
    expect(page.locator("#notice")).to_have_text("A conversation has at most 3 images here.")
    page.fill("#text", "word " * (config.max_body_bytes // 5))
    page.press("#text", "Enter")
    expect(page.locator(".error")).to_contain_text("Too large for this server.")
    page.click(".edit")  # nothing is lost
    expect(page.locator("#images li")).to_have_count(3)
    page.fill("#text", "What are they?")
    page.press("#text", "Enter")
    whole(page)
    expect(page.locator(".error")).to_be_hidden()


def test_an_error_is_said_in_the_conversation_and_does_not_stay_in_it(
    visit: Visit, server: Address, pictures: list[Path], tmp_path: Path
) -> None:
    page = visit(server)
    page.fill("#text", "word " * 3000)
    page.press("#text", "Enter")
    expect(page.locator(".error")).to_contain_text("Too long for this model.")
    expect(page.locator(".error")).to_contain_text("tokens")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:60])  # what a browser still shows
    attach(page, tmp_path / "cut.png")
    page.press("#text", "Enter")
    expect(page.locator(".error").last).to_contain_text("An image cannot be read.")
    ask(page, "What is it?")
    assert [m["content"] for m in conversation(page)["messages"]][::2] == ["What is it?"]
    expect(page.locator(".left-out")).to_have_count(2)


def test_a_server_that_went_away_is_noticed_and_found_again(
    visit: Visit, shared: Batcher, config: ServerConfig
) -> None:
    with running(shared, config) as server:
        page = visit(server)
        expect(page.locator("#state")).to_have_attribute("data-is", "ready")
    page.fill("#text", "What is it?")
    page.press("#text", "Enter")
    expect(page.locator(".error")).to_contain_text("The server cannot be reached.")
    expect(page.locator("#state")).to_have_text("not connected")


def test_a_key_is_asked_for_only_where_one_is_needed(visit: Visit, shared: Batcher, config: ServerConfig) -> None:
    with running(shared, replace(config, api_key="open sesame".replace(" ", "-"))) as server:
        page = visit(server)
        expect(page.locator("#state")).to_have_text("needs an API key")
        for key, state in (("wrong", "locked"), ("open-sesame", "ready")):
            page.fill("#key-field", key)
            page.press("#key-field", "Enter")
            expect(page.locator("#state")).to_have_attribute("data-is", state)
        expect(page.locator("#key")).to_be_hidden()
        ask(page, "What is it?")
        page.reload()
        expect(page.locator("#state")).to_have_text("tiny")


def test_an_example_is_one_click(visit: Visit, server: Address) -> None:
    page = visit(server)
    expect(page.locator("#key")).to_be_hidden()
    page.click(f"text={EXAMPLES[0]['questions'][0]}")
    whole(page)
    expect(page.locator("#welcome")).to_be_hidden()
    (image, text), _ = (message["content"] for message in conversation(page)["messages"])
    assert text == {"type": "text", "text": EXAMPLES[0]["questions"][0]}
    served = server.send("GET", f"/{EXAMPLES[0]['image']}").body
    assert server.post({"model": "tiny", "messages": [{"role": "user", "content": [image, text]}]}).status == 200
    assert len(image["image_url"]["url"]) == len("data:image/png;base64,") + 4 * -(-len(served) // 3)
    page.click("#new")
    page.get_by_role("button", name=EXAMPLES[1]["description"]).click()
    expect(page.locator("#images li")).to_have_count(1)


def test_settings_outlive_a_reload(visit: Visit, server: Address) -> None:
    page = visit(server)
    setting(page, temperature="0.7", top_p="0.9", max_tokens="12", seed="3", system="Be brief.")
    page.reload()
    expect(page.locator("#examples li")).to_have_count(len(EXAMPLES))
    ask(page, "What is it?")
    said = conversation(page)
    del said["messages"][2]
    assert said == {
        "model": "tiny",
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 12,
        "seed": 3,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}],
    }
    page.click("#open-settings")
    page.click("#settings [type=reset]")
    expect(page.locator("output[for=temperature]")).to_have_text("0")
    expect(page.locator("#system")).to_have_value("")


def test_all_can_be_reached_on_a_phone(visit: Visit, server: Address, pictures: list[Path]) -> None:
    page = visit(server, PHONE)
    attach(page, *pictures[:3])
    ask(page, "What is in " + "averylongword" * 9 + "?")
    page.evaluate("document.querySelector('main').scrollTop = 1e9")
    controls = ("#new", "#download", "#open-settings", "#choose", "#text", "#send", ".copy", ".again", ".edit")
    for control in controls:
        box = page.locator(control).bounding_box()
        assert box is not None and min(box["width"], box["height"]) >= 32, control
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], control
        assert box["y"] >= 0 and box["y"] + box["height"] <= PHONE["height"], control
        page.locator(control).click(trial=True)
    for scroller in ("document.documentElement", "document.querySelector('main')"):
        assert page.evaluate(f"{scroller}.scrollWidth <= {scroller}.clientWidth")
    page.click("#open-settings")
    for field in ("#temperature", "#system", "#settings .strong"):
        page.locator(field).scroll_into_view_if_needed()
        page.locator(field).click(trial=True)
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= PHONE["width"]


def test_everything_can_be_done_from_the_keyboard(visit: Visit, server: Address) -> None:
    page = visit(server)
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type("What is it?")
    page.keyboard.press("Enter")
    whole(page)
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = {"new", "download", "open-settings", "quiet copy", "quiet again", "quiet edit", "choose", "text", "send"}
    assert wanted <= reached
    expect(page.locator("#announcement")).to_contain_text(page.locator(".note").inner_text())


class Sayer:
    """A SharedModel that says, in pieces of three letters, what a real one would hardly say."""

    name = "sayer"

    def __init__(self, words: str) -> None:
        self._words = words

    def submit(self, conversation: Conversation, sampling: Sampling, listen: Callable[[Event], None]) -> "Sayer":
        for start in range(0, len(self._words), 3):
            listen(self._words[start : start + 3])
        listen(Finish("length", 1, 1, num_dropped_turns=2))
        return self

    def cancel(self) -> None: ...

    def load(self) -> Load:
        return Load(0, 0, 1, 0)


HOSTILE = """<img src=x onerror="document.title='owned'"> <script>document.title='owned'</script>
**<b onclick=alert(1)>** `<i>` [link](javascript:alert(1)) ![](https://elsewhere.example/x.png)

```html
<style>body { display: none }</style>
```
- <a href="https://elsewhere.example">x</a>"""


def test_what_a_model_says_is_never_markup(visit: Visit, config: ServerConfig) -> None:
    with running(Sayer(HOSTILE), config) as server:  # type: ignore[arg-type]
        page = visit(server)
        shown = ask(page, HOSTILE)
    for words in ("<img src=x onerror=", "<script>", "<b onclick", "<i>", "![](https://", "<style>", "<a href"):
        assert words in shown
    assert page.locator(".answer .text :is(img, script, b, i, a, style)").count() == 0
    assert page.locator(".question .text").inner_text().strip() == HOSTILE
    assert page.title() == "llava-lite"


def test_paragraphs_lists_code_and_bold_are_shown_as_such(visit: Visit, config: ServerConfig) -> None:
    words = (
        "# Title\nOne **bold** and\n`code`.\n\n2. two\n3. three\n* star\n\n```py\na  = 1\n\nb = **2**\n```\nEnd **open"
    )
    with running(Sayer(words), config) as server:  # type: ignore[arg-type]
        page = visit(server)
        ask(page, "Say it.")
    assert page.locator(".answer .text").inner_html() == (
        "<p><strong>Title</strong></p><p>One <strong>bold</strong> and<br><code>code</code>.</p>"
        '<ol start="2"><li>two</li><li>three</li></ol><ul><li>star</li></ul>'
        "<pre><code>a  = 1\n\nb = **2**</code></pre><p>End **open</p>"
    )
    expect(page.locator(".note")).to_contain_text("The first 2 turns did not fit")
    expect(page.locator(".note")).to_contain_text("Cut off at the longest answer.")


def test_the_end_stays_in_sight_unless_one_reads_above(
    visit: Visit, config: ServerConfig, pictures: list[Path]
) -> None:
    end = "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)"
    with running(Sayer("Line.\n\n" * 99), config) as server:  # type: ignore[arg-type]
        page = visit(server)
        ask(page, "Say it.")
        left = f"{end}(document.querySelector('main'))"
        assert page.evaluate(left) < 2
        attach(page, pictures[0])
        page.wait_for_function(f"{left} < 2")
        page.evaluate("document.querySelector('main').scrollTop = 50")
        page.fill("#text", "a\nb\nc\nd")
        page.wait_for_timeout(100)
        assert page.evaluate("document.querySelector('main').scrollTop") == 50


def test_nothing_moves_while_the_page_appears(visit: Visit, server: Address) -> None:
    page = visit(server)
    expect(page.locator("#state")).to_have_text("tiny")
    shift = """() => new Promise((resolve) => {
        new PerformanceObserver((list) => resolve(list.getEntries().reduce((sum, one) => sum + one.value, 0)))
            .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => resolve(0), 300);
    })"""
    assert page.evaluate(shift) < 0.01


def test_the_policy_lets_in_nothing_from_elsewhere(server: Address) -> None:
    for path in ("/", "/page.css", "/page.js", "/api.js", "/examples.json", f"/{EXAMPLES[0]['image']}"):
        headers = server.send("GET", path).headers
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert server.send("GET", "/examples/../config.py").status == 404
