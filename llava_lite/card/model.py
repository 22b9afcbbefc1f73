"""The card's sections on what a model is and how it is used."""

from __future__ import annotations

from collections.abc import Sequence

from llava_lite.card.markdown import escape, table
from llava_lite.card.parts import Contents, Kind

_HOLDS: dict[Kind, str] = {
    "native": "The folder holds the whole model, as transformers' `{architecture}`.",
    "whole": "The folder holds the whole model. No class of transformers computes it; llava_lite opens it.",
    "text": "The folder holds the whole model, as transformers' `{architecture}`. It reads text alone.",
    "projector": "The folder holds the projector alone, which stands between {beside}.",
    "adapter": "The folder holds what was trained, which stands beside {beside}.",
}
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_OURS = """\
import llava_lite

assistant = llava_lite.load({where})  # this folder, or its id on the hub
print(assistant.ask("What is in the picture?", images=["picture.png"]))
"""
_TRANSFORMERS = """\
from transformers import AutoProcessor, {architecture}

model = {architecture}.from_pretrained({where})
processor = AutoProcessor.from_pretrained({where}, backend="pil")
picture = {{"type": "image", "path": "picture.png"}}
question = {{"type": "text", "text": "What is in the picture?"}}
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": [picture, question]}}],
    add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
)
answer = model.generate(**inputs, max_new_tokens=512, tokenizer=processor.tokenizer)
print(processor.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""


def model_section(contents: Contents) -> list[str]:
    """Say what the model is."""
    sort = "A vision-language model: asked about pictures, it answers in words."
    architecture = (contents.config.get("architectures") or [""])[0]
    beside = escape(" and ".join(beside_of(contents)))
    holds = _HOLDS[contents.kind].format(architecture=escape(architecture), beside=beside)
    rows = [[part.name, escape(part.what), f"{part.parameters:,}"] for part in contents.parts]
    rows.append(["in all", "", f"{sum(part.parameters for part in contents.parts):,}"])
    first = f"{sort if contents.sees else 'A language model.'} {holds}"
    return [first, table(["part", "what it is", "parameters"], rows), _facts(contents)]


def use_section(contents: Contents, name: str, differences: Sequence[str]) -> list[str]:
    """Say how it is asked; differences: what transformers does otherwise, where it opens the folder."""
    ours = _OURS.format(where=f'"{_word(name)}"')
    if not contents.sees:
        ours = ours.replace(', images=["picture.png"]', "").replace("What is in the picture?", "What is a picture?")
    blocks = ["## Use", f"```python\n{ours}```"]
    if contents.kind in ("projector", "adapter"):
        blocks.append(
            f"It needs {escape(' and '.join(beside_of(contents)))}; where these are not found by themselves, "
            "`load` takes `vision_tower=` and `language_model=`."
        )
    if contents.kind == "native":
        theirs = _TRANSFORMERS.format(where=f'"{_word(name)}"', architecture=contents.config["architectures"][0])
        blocks += [
            "Or with transformers:",
            f"```python\n{theirs}```",
            "What transformers (there) does otherwise than llava_lite (here):",
        ]
        blocks.append("\n".join(f"- {escape(difference)}" for difference in differences))
    return blocks


def beside_of(contents: Contents) -> list[str]:
    """Name what the folder does not hold: hub ids, or the names of folders."""
    about = contents.about
    parts = [
        about.get("checkpoint"),
        *(about.get("parts", {}).get(name) for name in ("vision_tower", "language_model")),
    ]
    named = [part for part in parts if isinstance(part, dict)]
    return [part["path"].rpartition("/")[2] if part["folder"] else part["path"] for part in named]


def _facts(contents: Contents) -> str:
    about = contents.about | contents.about.get("parts", {})
    template = about.get("template")
    facts = [f"Chat template: {escape(template if isinstance(template, str) else 'its own, in config.json')}."]
    if "image_mode" in about:
        facts.append(f"Image mode: {escape(about['image_mode'])}.")
    if contents.kind == "native":
        facts.append(f"Visual tokens of a tile: {contents.config['image_seq_length']:,}.")
    stored = ", ".join(_DTYPES.get(dtype, dtype) for dtype in contents.dtypes)
    return " ".join([*facts, f"Stored in {stored}."])


def _word(name: str) -> str:
    """A name within quotes in Python."""
    return "".join(letter for letter in name if letter.isprintable() and letter not in '"\\`')
