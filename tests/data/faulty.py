"""A clean data set, and the fault corpus: each kind of fault, made from one clean record or file by one mutation."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from PIL import Image as PilImage

PLAIN, TALK, SEVERAL, PARTS = 5, 3, 2, 4  # numbers of clean records: with one image, text only, two images, OpenAI's
LONG = (
    "The picture shows a quiet harbour in the evening. Three fishing boats lie at the pier, two of them blue and one "
    "white, and behind them rises a hill with a small chapel. A man in a yellow coat mends a net while two gulls wait "
    "on the railing for their share."
)
SUBJECTS = ("cat", "dog", "cup", "tree", "boat", "lamp", "chair", "clock", "horse", "train", "apple", "bird", "bus")


def paint(seed: int, size: tuple[int, int] = (24, 16)) -> PilImage.Image:
    generator = Random(seed)
    return PilImage.frombytes("RGB", size, generator.randbytes(3 * size[0] * size[1]))


def clean_records() -> list[dict]:
    """Records of every shape, none with a fault: LLaVA's and OpenAI's, of none, one and two images, many languages."""
    records = []
    for number, subject in enumerate(SUBJECTS):
        turns = [
            {"from": "human", "value": f"<image>\nWhat is number {number}?"},
            {"from": "gpt", "value": f"It is a {subject}."},
        ]
        records.append({"id": f"r{number}", "image": f"{number}.png", "conversations": turns})
    records[0]["conversations"][1]["value"] = LONG
    records[1]["conversations"] = [
        {"from": "human", "value": "Is there a dog?\nAnswer the question using a single word or phrase.\n<image>"},
        {"from": "gpt", "value": "Yes"},
        {"from": "human", "value": "Where? Give the bounding box."},
        {"from": "gpt", "value": "[0.12, 0.20, 0.55, 1.00]"},
    ]
    records[SEVERAL] |= {"image": ["2.png", "sub/2b.jpg"]}
    records[SEVERAL]["conversations"][0]["value"] = "First <image>, then <image>: what differs?"
    del records[TALK]["image"]
    records[TALK]["conversations"] = [
        {"from": "system", "value": "You are a patient teacher."},
        {"from": "human", "value": "How do I write <b>bold</b> & a line break in HTML? And [1, 2, 3, 4] in JSON?"},
        {
            "from": "gpt",
            "value": "Like this:\n```html\n<p>&lt;b&gt; is <b>bold</b><br></p>\n```\nAs an AI, I can't see.",
        },
    ]
    records[PARTS] = {
        "id": "r4",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "4.png"}},
                    {"type": "text", "text": "Was ist das? Größe, café, naïve, 图片, 😀"},
                ],
            },
            {"role": "assistant", "content": "Ein Baum – très «grand», às 5 °C, 一棵树 🌳"},
        ],
    }
    records[6]["conversations"][0]["value"] = "What does the word <image> mean here?"
    records[6]["image"] = []
    records[7]["image"] = "0.png"  # an image that another record shows too
    return records


@dataclass
class World:
    """A clean data set on disk, to be broken in one place."""

    folder: Path
    records: list[dict] = field(default_factory=clean_records)

    def __post_init__(self) -> None:
        (self.images / "sub").mkdir(parents=True)
        for number in range(len(self.records)):
            paint(number).save(self.images / f"{number}.png")
        paint(99).save(self.images / "sub" / "2b.jpg")
        paint(98).convert("L").save(self.images / "9.png")
        paint(97).convert("P").save(self.images / "10.png")
        opaque = paint(96).convert("RGBA")
        opaque.save(self.images / "11.png")
        self.save()

    @property
    def data(self) -> Path:
        return self.folder / "mix.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def save(self) -> None:
        self.data.write_text(json.dumps(self.records), encoding="utf-8")

    def turn(self, number: int, record: int = PLAIN) -> dict:
        return self.records[record]["conversations"][number]

    def image(self, name: str, content: bytes | PilImage.Image, **options: object) -> None:
        """Let the plain record show this image."""
        path = self.images / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path, **options)  # type: ignore[arg-type]
        self.records[PLAIN]["image"] = name


def encoded(image: PilImage.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


Mutation = Callable[[World], int | None]  # breaks the world; returns which record, None: the file as a whole


def plain(change: Callable[[dict], object]) -> Mutation:
    """Change the plain record."""

    def mutate(world: World) -> int:
        change(world.records[PLAIN])
        return PLAIN

    return mutate


def field_of(**values: object) -> Mutation:
    return plain(lambda record: record.update(values))


def question(text: object) -> Mutation:
    return plain(lambda record: record["conversations"][0].update(value=text))


def answer(text: object) -> Mutation:
    return plain(lambda record: record["conversations"][1].update(value=text))


def talk(place: int, text: str) -> Mutation:
    """Change a turn of the record that is text only."""

    def mutate(world: World) -> int:
        world.turn(place, TALK)["value"] = text
        return TALK

    return mutate


def turns(change: Callable[[list[dict]], object]) -> Mutation:
    return plain(lambda record: change(record["conversations"]))


def parts(*content: object, role: int = 0) -> Mutation:
    def mutate(world: World) -> int:
        world.records[PARTS]["messages"][role]["content"] = list(content)
        return PARTS

    return mutate


def image(name: str, content: bytes | PilImage.Image, **options: object) -> Mutation:
    def mutate(world: World) -> int:
        world.image(name, content, **options)
        return PLAIN

    return mutate


def repeat(source: int, target: int, *names: str) -> Mutation:
    """Copy fields of one record into another."""

    def mutate(world: World) -> int:
        for name in names:
            world.records[target][name] = copy.deepcopy(world.records[source][name])
        return target

    return mutate


def whole_file(content: bytes) -> Mutation:
    return broken_file(lambda _: content)


def broken_file(change: Callable[[bytes], bytes], record: int | None = None) -> Mutation:
    def mutate(world: World) -> int | None:
        content = change(world.data.read_bytes())
        world.records.clear()
        world.data.write_bytes(content)
        return record

    return mutate


def rename(old: str, new: str) -> Mutation:
    def mutate(world: World) -> int:
        (world.images / old).rename(world.images / new)
        return PLAIN

    return mutate


def few(world: World) -> None:
    del world.records[9:]


def many_alike(world: World) -> None:
    """Many further questions, all answered alike."""
    for number in range(300):
        turns = [{"from": "human", "value": f"Is there a number {number}?"}, {"from": "gpt", "value": "No"}]
        world.records[PLAIN]["conversations"] += turns


def exif(orientation: int) -> bytes:
    tags = PilImage.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def half_transparent() -> PilImage.Image:
    picture = paint(50).convert("RGBA")
    picture.putpixel((3, 3), (1, 2, 3, 0))
    return picture


def damaged_png() -> bytes:
    """A PNG whose end is whole, but whose pixels are not."""
    data = bytearray(encoded(paint(50)))
    data[60:90] = bytes(30)
    return bytes(data)


PNG, JPEG = encoded(paint(50)), encoded(paint(50, (64, 48)), "JPEG")
DEEP = PilImage.frombytes("I;16", (24, 16), Random(1).randbytes(24 * 16 * 2))

# name of the mutation -> the kind it must be found as, and the mutation. Found with headers alone.
CORPUS: dict[str, tuple[str, Mutation]] = {
    "no byte in the file": ("empty-file", whole_file(b"")),
    "an empty list": ("empty-file", whole_file(b"[]")),
    "white space alone": ("empty-file", whole_file(b" \n")),
    "the file cut off": ("truncated-file", broken_file(lambda data: data[: len(data) * 2 // 3])),
    "a comma lost": ("broken-json", broken_file(lambda data: data.replace(b'}, {"id"', b'} {"id"', 1))),
    "no JSON at all": ("broken-json", whole_file(b"id,image,text\n1,a.jpg,hello\n")),
    "an object for the list": ("not-a-list", broken_file(lambda data: b'{"data": ' + data + b"}")),
    "lines in a .json": ("not-a-list", whole_file(b'{"id": 1}\n{"id": 2}\n')),
    "UTF-16": ("not-utf8", broken_file(lambda data: data.decode().encode("utf-16"))),
    "Latin-1 in a record": ("not-utf8", broken_file(lambda data: data.replace(b"a lamp", b"a l\xe4mp"), PLAIN)),
    "a record that is a list": ("not-an-object", lambda world: world.records.__setitem__(PLAIN, ["a"]) or PLAIN),
    "no turns": ("no-turns", plain(lambda record: record.pop("conversations"))),
    "empty turns": ("no-turns", field_of(conversations=[])),
    "turns in an object": ("turns-not-a-list", field_of(conversations={"human": "Hi", "gpt": "Ho"})),
    "turns as text": ("turns-not-a-list", field_of(conversations="What? A cat.")),
    "both formats": ("both-formats", field_of(messages=[{"role": "user", "content": "Hi"}])),
    "a video": ("video", field_of(video="a.mp4")),
    "a turn that is text": ("turn-not-an-object", turns(lambda t: t.__setitem__(1, "It is a lamp."))),
    "a role of another format": ("unknown-role", turns(lambda t: t[0].update({"from": "prompter"}))),
    "no role": ("unknown-role", turns(lambda t: t[0].pop("from"))),
    "no text": ("missing-text", turns(lambda t: t[1].pop("value"))),
    "null for text": ("missing-text", answer(None)),
    "a number for text": ("text-not-a-string", answer(7)),
    "a part of unknown type": (
        "unknown-part",
        parts({"type": "image_url", "image_url": "4.png"}, {"type": "audio", "audio": "a.wav"}),
    ),
    "an image in an answer": ("unknown-part", parts({"type": "image_url", "image_url": "4.png"}, role=1)),
    "two questions in a row": ("roles-not-alternating", turns(lambda t: t.insert(0, {**t[0], "value": "Look."}))),
    "two answers in a row": ("roles-not-alternating", turns(lambda t: t.append({**t[1], "value": "A red one."}))),
    "no last answer": ("no-answer", turns(lambda t: t.append({"from": "human", "value": "Where?"}))),
    "an opening answer": ("begins-with-answer", turns(lambda t: t.insert(0, {"from": "gpt", "value": "Hello."}))),
    "answers alone": (
        "no-question",
        lambda world: world.records[TALK].update(conversations=[world.turn(2, TALK)]) or TALK,
    ),
    "system text in the middle": (
        "system-not-first",
        turns(lambda t: t.insert(1, {"from": "system", "value": "Be brief."})),
    ),
    "an empty question": ("empty-question", talk(1, "")),
    "an empty answer": ("empty-answer", answer("")),
    "white space for an answer": ("blank-answer", answer(" \n ")),
    "the question as answer": (
        "answer-repeats-question",
        turns(lambda t: t[1].update(value=t[0]["value"].removeprefix("<image>\n"))),
    ),
    "a placeholder lost": ("image-without-placeholder", question("What is number 5?")),
    "a placeholder too many": ("placeholder-without-image", question("<image>\n<image>\nWhat is number 5?")),
    "the image field lost": ("placeholder-without-image", plain(lambda record: record.pop("image"))),
    "a placeholder in the answer": ("placeholder-in-answer", answer("<image> is a lamp.")),
    "<Image>": ("misspelled-placeholder", question("<Image>\nWhat is number 5?")),
    "<img>": ("misspelled-placeholder", question("<img>\nWhat is number 5?")),
    "< image >": ("misspelled-placeholder", question("< image >\nWhat is number 5?")),
    "<image_1>": ("misspelled-placeholder", question("<image_1>\nWhat is number 5?")),
    "a number for the image": ("image-field", field_of(image=5)),
    "an object for the image": ("image-field", field_of(image={"path": "5.png"})),
    "image and images": ("image-field", field_of(images=["5.png"])),
    "an empty path": ("empty-image-path", field_of(image="")),
    "an image part without address": (
        "empty-image-path",
        parts({"type": "image_url", "image_url": {}}, {"type": "text", "text": "What?"}),
    ),
    "an address": ("image-address", field_of(image="https://x.org/5.png")),
    "a path that leads out": ("path-outside", field_of(image="../5.png")),
    "a path of another machine": ("path-outside", field_of(image="/data/coco/5.png")),
    "an absolute path": (
        "absolute-path",
        lambda world: world.records[PLAIN].update(image=str(world.images / "5.png")) or PLAIN,
    ),
    "no id": ("missing-id", plain(lambda record: record.pop("id"))),
    "an image twice": ("image-twice", lambda world: world.records[SEVERAL].update(image=["2.png", "2.png"]) or SEVERAL),
    "letters lost": ("replacement-character", answer("It is a l\ufffdmp.")),
    "UTF-8 read as Latin-1": ("mojibake", answer("It is a café.".encode().decode("latin-1"))),
    "UTF-8 read as Windows-1252": ("mojibake", answer("It’s a lamp.".encode().decode("cp1252"))),
    "half an emoji": ("lone-surrogate", answer("It is a lamp \ud83d")),
    "NUL": ("control-character", answer("It is\0a lamp.")),
    "an escape sequence": ("control-character", answer("It is \x1b[1ma lamp.")),
    "a byte order mark in a text": ("byte-order-mark", answer("\ufeffIt is a lamp.")),
    "an end mark in a text": ("special-token", answer("It is a lamp.</s>")),
    "another model's mark": ("special-token", answer("It is a lamp.<|im_end|>")),
    "an HTML entity": ("html-entity", answer("It is a lamp &amp; a chair.")),
    "an HTML tag": ("html-tag", answer("It is a lamp.<br>")),
    "a role spelled in a turn": ("template-text", answer("It is a lamp. USER: And this?")),
    "another template's role": ("template-text", answer("### Assistant: It is a lamp.")),
    "new lines escaped twice": ("escaped-text", answer("It is a lamp.\\nIt is red.")),
    "a word without end": ("repetition", answer("It is a " + "lamp " * 30)),
    "a sentence without end": ("repetition", answer("There is a lamp on the table next to a red chair. " * 12)),
    "a box in pixels": ("box-out-of-range", answer("[120, 40, 300, 220]")),
    "a box below zero": ("box-out-of-range", answer("[-0.10, 0.20, 0.30, 0.40]")),
    "a box turned round": ("box-reversed", answer("[0.60, 0.20, 0.30, 0.40]")),
    "a blind answer": ("refusal", answer("I'm sorry, as an AI language model I cannot see images.")),
    "another blind answer": ("refusal", answer("I'm unable to view the image you mention.")),
    "a long answer to a short question": (
        "answer-ignores-format",
        turns(
            lambda t: (
                t[0].update(value=t[0]["value"] + "\nAnswer the question using a single word or phrase.")
                or t[1].update(
                    value="It is a tall green lamp that stands in the corner beside the old brown chair today."
                )
            )
        ),
    ),
    "no such file": ("missing-image", field_of(image="555.png")),
    "a folder for a file": ("missing-image", field_of(image="sub")),
    "another suffix": ("misnamed-image", rename("5.png", "5.jpg")),
    "other capitals": ("misnamed-image", rename("5.png", "5.PNG")),
    "a folder too many": ("misnamed-image", field_of(image="train/5.png")),
    "a path of Windows": ("backslash-path", field_of(image="sub\\5.png")),
    "no byte in an image": ("empty-image", image("x.png", b"")),
    "a PNG cut off": ("truncated-image", image("x.png", PNG[: len(PNG) // 2])),
    "a JPEG cut off": ("truncated-image", image("x.jpg", JPEG[: len(JPEG) // 2])),
    "a GIF cut off": ("truncated-image", image("x.gif", encoded(paint(50), "GIF")[:-200])),
    "a WebP cut off": ("truncated-image", image("x.webp", encoded(paint(50), "WEBP")[:-100])),
    "a JPEG cut off in its header": ("truncated-image", image("x.jpg", JPEG[:30])),
    "numbers for an image": ("not-an-image", image("x.png", bytes(range(100)))),
    "an error page": ("web-page-as-image", image("x.jpg", b"<!DOCTYPE html><html>404 Not Found</html>")),
    "SVG": ("unsupported-format", image("x.svg", b'<?xml version="1.0"?><svg xmlns="x"></svg>')),
    "HEIC": ("unsupported-format", image("x.jpg", b"\0\0\0\x18ftypheic" + bytes(200))),
    "PDF": ("unsupported-format", image("x.png", b"%PDF-1.4" + bytes(200))),
    "eleven thousand pixels": ("image-too-large", image("x.png", PilImage.new("1", (11_000, 100), 1))),
    "a thread": ("image-too-narrow", image("x.png", paint(50, (2000, 8)))),
    "four pixels": ("tiny-image", image("x.png", paint(50, (4, 4)))),
    "CMYK": ("cmyk-image", image("x.jpg", paint(50).convert("CMYK"))),
    "16 bits of grey": ("deep-image", image("x.png", DEEP)),
    "floating-point pixels": ("float-image", image("x.tif", paint(50).convert("F"))),
    "a GIF named .jpg": ("suffix-disagrees", image("x.jpg", encoded(paint(50), "GIF"))),
    "transparency": ("transparent-image", image("x.png", half_transparent())),
    "a camera held upright": ("rotated-image", image("x.jpg", paint(50), exif=exif(6))),
    "a GIF that moves": ("animated-image", image("x.gif", paint(50), save_all=True, append_images=[paint(51)])),
    "a data URI without base64": ("bad-data-uri", field_of(image="data:image/png,abc")),
    "a data URI with broken base64": ("bad-data-uri", field_of(image="data:image/png;base64,a b")),
    "an id twice": ("duplicate-id", repeat(0, PLAIN, "id")),
    "a record twice": ("duplicate-record", repeat(0, PLAIN, "image", "conversations")),
    "a record with its id twice": ("duplicate-record", repeat(0, PLAIN, "id", "image", "conversations")),
    "a long answer under another image": ("copied-answer", repeat(0, PLAIN, "conversations")),
    "always the same answer": ("constant-answers", many_alike),
    "few records": ("tiny-source", few),
}
# found where every image is decoded, and only there
DECODED: dict[str, tuple[str, Mutation]] = {
    "damage inside a PNG": ("broken-image", image("x.png", damaged_png())),
    "one colour": ("blank-image", image("x.png", PilImage.new("RGB", (24, 16), "white"))),
    "two names for a picture": ("duplicate-image", image("x.png", encoded(paint(0)))),
}
