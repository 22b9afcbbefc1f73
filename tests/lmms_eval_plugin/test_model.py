"""lmms-eval itself: through our plugin, and through its own `llava_hf` on a folder of ours. Skipped without it.

docs/lmms-eval.md says how it is installed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llava_lite
from llava_lite.conversation.message import Conversation
from llava_lite.generation.chat_model import Sampling
from llava_lite.lmms_eval_plugin.request import RequestError
from tests.test_docs import blocks

pytest.importorskip("lmms_eval", reason="lmms-eval is not installed")
pytestmark = pytest.mark.slow

TASK = """
task: shapes_local
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {parquet}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{max_new_tokens: 12, temperature: 0}}
process_results: !function utils.score
metric_list: [{{metric: right, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
def visual(doc):
    return doc["images"]


def score(doc, results):
    return {"right": float(results[0] == doc["answer"])}
"""
ASKED = [
    ("What color is the object at the top left?", 1),
    ("Hello.", 0),
    ("What is there?", 1),
    ("Are these the same, and what is at the bottom?", 2),
    ("What is it?\n", 1),
    ("How many are there, and of what color, at the top right?", 0),
    ("Where?", 1),
]


@pytest.fixture(scope="module")
def tasks(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with pictures, several pictures, and none."""
    from datasets import Dataset, Features, Image, Sequence, Value

    folder = tmp_path_factory.mktemp("tasks")
    files = [{"bytes": path.read_bytes(), "path": None} for path in pictures(world)]
    rows = [
        {"question": question, "answer": "A cat.", "images": files[i : i + count]}
        for i, (question, count) in enumerate(ASKED)
    ]
    features = Features({"question": Value("string"), "answer": Value("string"), "images": Sequence(Image())})
    Dataset.from_list(rows, features=features).to_parquet(folder / "shapes.parquet")
    (folder / "shapes.yaml").write_text(TASK.format(parquet=folder / "shapes.parquet", cache=folder / "cache"))
    (folder / "utils.py").write_text(UTILS)
    return folder


@pytest.fixture(scope="module")
def expected(world: Path, llava_dir: Path) -> list[str]:
    """What the model says when it is asked here."""
    files = pictures(world)
    asked = [Conversation().ask(question, files[i : i + count]) for i, (question, count) in enumerate(ASKED)]
    answers = llava_lite.load(llava_dir).reply(asked, Sampling(max_new_tokens=12))
    assert len(set(answers)) > 4
    return answers


def plugin(folder: Path, **options: Any) -> Any:
    from llava_lite.lmms_eval_plugin.model import LlavaLite

    return LlavaLite(str(folder), **options)


def pictures(world: Path) -> list[Path]:
    return sorted((world / "images").glob("*.png"))[: len(ASKED) + 1]


def evaluate(tasks: Path, model: Any, *, task: str = "shapes_local", **options: Any) -> list[dict[str, Any]]:
    """Let lmms-eval ask, and return what it logs."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = simple_evaluate(model, tasks=[task], task_manager=manager, **options)
    return results["samples"][task]


def answers_of(samples: list[dict[str, Any]]) -> list[str]:
    said = {sample["doc_id"]: sample["filtered_resps"] for sample in samples}
    assert sorted(said) == list(range(len(ASKED)))
    return [text if isinstance(text, str) else text[0] for _, text in sorted(said.items())]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_plugin_gives_the_answers_of_the_loader(
    tasks: Path, llava_dir: Path, expected: list[str], batch_size: int
) -> None:
    assert answers_of(evaluate(tasks, plugin(llava_dir, batch_size=batch_size))) == expected


def test_a_blind_model_is_shown_no_image(tasks: Path, llava_dir: Path) -> None:
    asked = [Conversation().ask(question) for question, _ in ASKED]
    expected = llava_lite.load(llava_dir).reply(asked, Sampling(max_new_tokens=12))
    assert answers_of(evaluate(tasks, plugin(llava_dir, blind=True))) == expected


def test_what_cannot_be_answered_stops_the_run(tasks: Path, llava_dir: Path) -> None:
    with pytest.raises(RequestError, match=r"^shapes_local: gen_kwargs stop_sequences: not known here"):
        evaluate(tasks, plugin(llava_dir), gen_kwargs="stop_sequences=x")
    with pytest.raises(RequestError, match=r"^batch_size 'auto': give a number, from 1 on$"):
        plugin(llava_dir, batch_size="auto")


def test_what_is_asked_again_is_drawn_anew(tasks: Path, llava_dir: Path) -> None:
    [sample] = evaluate(tasks, plugin(llava_dir), gen_kwargs="temperature=2.0", repeats=3, limit=1)
    assert len(set(sample["resps"][0])) == 3


@pytest.mark.multiprocess
def test_two_processes_of_the_command_give_the_answers_of_one(
    tasks: Path, llava_dir: Path, expected: list[str], tmp_path: Path
) -> None:
    words = f"-m torch.distributed.run --nproc_per_node 2 -m lmms_eval eval --model llava_lite --device cpu \
        --model_args pretrained={llava_dir} --tasks shapes_local --include_path {tasks} --batch_size 2 \
        --log_samples --output_path {tmp_path} --verbosity DEBUG"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words.split()], check=True, env=environment, cwd=tmp_path)
    [samples] = tmp_path.rglob("*_samples_shapes_local.jsonl")
    assert answers_of([json.loads(line) for line in samples.read_text().splitlines()]) == expected


def test_llava_hf_gives_our_answers_from_our_folder(tasks: Path, llava_dir: Path, expected: list[str]) -> None:
    pytest.importorskip("decord", reason="which llava_hf imports")
    model_args = f"pretrained={llava_dir},device_map=cpu"
    said = answers_of(evaluate(tasks, "llava_hf", model_args=model_args, device="cpu", batch_size=1))
    for (_, num_images), theirs, ours in zip(ASKED, said, expected, strict=True):
        assert theirs.strip() == (ours if num_images else "")  # it swallows its own error where there is no image


def test_the_page_makes_a_task_of_its_own_pope(
    world: Path, llava_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmms_eval

    monkeypatch.chdir(tmp_path)
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo/world").symlink_to(world)
    [code], [task] = blocks("lmms-eval.md", "python"), blocks("lmms-eval.md", "yaml")
    exec(code, {})
    installed = str(Path(lmms_eval.__file__).parents[1])
    task = task.replace("/ENVIRONMENT/lib/python3.11/site-packages", installed).replace("/HERE", str(tmp_path))
    Path("pope_local.yaml").write_text(task)
    samples = evaluate(tmp_path, plugin(llava_dir), task="pope_local", limit=5)
    asked = [json.loads(line) for line in (world / "pope/llava_pope_test.jsonl").read_text().splitlines()]
    assert len(samples) == 5
    assert {sample["arguments"][0] for sample in samples} <= {row["text"] for row in asked}
