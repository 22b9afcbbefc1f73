"""Captions and what the official scorer makes of them (captions.json), and that scorer itself where it is at hand."""

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CASES: dict[str, Any] = json.loads((Path(__file__).parent / "captions.json").read_text("utf-8"))
IMAGES: list[dict[str, Any]] = CASES["images"]
SAID = [image["said_tokens"] for image in IMAGES]
REFERENCES = [image["reference_tokens"] for image in IMAGES]

needs_java = pytest.mark.skipif(
    shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None,
    reason="no Java, or no pycocoevalcap",
)


def tokenize_officially(captions: Sequence[str], folder: Path) -> list[str]:
    """Have CoreNLP cut captions, as pycocoevalcap has it; that writes into its own folder, and this does not."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    (folder / "captions.txt").write_bytes("\n".join(captions).encode())
    program = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", program, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    result = subprocess.run([*command, folder / "captions.txt"], capture_output=True, check=True)
    dropped = ptbtokenizer.PUNCTUATIONS
    lines = result.stdout.decode().split("\n")[: len(captions)]
    return [" ".join(token for token in line.rstrip().split(" ") if token not in dropped) for line in lines]
