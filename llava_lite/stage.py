"""What the stages that learn from conversations share: from a model and its processor to a finished run.

model, processor    the recipe's
  | InstructionDataset, plan_steps, make_engine, fit          `train`
output_dir          and, on the way, held-out data and benchmarks: `Evaluation`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, model_validator
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llava_lite import distributed
from llava_lite.checkpoint.folder import load, save
from llava_lite.checkpoint.parts import Parts
from llava_lite.conversation.message import Conversation, ConversationError
from llava_lite.data.dataset import InstructionDataset, longest_sample
from llava_lite.data.loader import FailureLog, LoaderConfig, read_steps
from llava_lite.data.mixture import DataConfig, Mixture
from llava_lite.data.records import SampleError
from llava_lite.data.sample import Sample
from llava_lite.data.steps import InstructionSteps, plan_steps
from llava_lite.evaluation import runner
from llava_lite.evaluation.command import find_benchmark
from llava_lite.evaluation.files import EvaluationError
from llava_lite.generation.assistant import Assistant
from llava_lite.generation.chat_model import Sampling
from llava_lite.generation.together import Together
from llava_lite.images.loading import ImageError
from llava_lite.models.liger import use_liger
from llava_lite.models.llava import Llava
from llava_lite.processor import Processor, ProcessorError
from llava_lite.training.compiled import compile_layers
from llava_lite.training.config import LogConfig, RunConfig
from llava_lite.training.engine import Engine, make_engine
from llava_lite.training.loop import fit
from llava_lite.training.memory import checkpoint_layers
from llava_lite.training.progress import describe_rates
from llava_lite.training.resume import RunError
from llava_lite.training.validation import HELD_OUT, Validation, ValidationConfig

C = TypeVar("C", bound="StageConfig")
_SHORT = 32  # tokens of an answer in a dry run


class EvaluateConfig(ValidationConfig):
    """Looking at the model while it learns: held-out loss and benchmarks."""

    held_out: DataConfig | None = None
    """Data that the run does not learn from, for the loss on them."""
    benchmarks: dict[str, Path] = Field(default={})
    """Benchmarks to ask, each with the folder of its files, as pope: data/pope."""
    limit: int | None = Field(default=None, gt=0)
    """Take only so many of the held-out samples, drawn once, and each benchmark's first so many questions."""
    batch_size: int = Field(default=16, gt=0)
    """Questions answered at once by each process."""

    @model_validator(mode="after")
    def _measures_what_it_judges_by(self) -> EvaluateConfig:
        measured = [*([HELD_OUT] if self.held_out else []), *self.benchmarks]
        if self.every_steps is not None and self.best_by not in measured:
            there = ", ".join(measured) or "nothing: give evaluate.held_out or evaluate.benchmarks"
            raise ValueError(f"best_by={self.best_by} is not measured; there is {there}")
        if self.every_steps is None and (measured or self.patience):
            raise ValueError("nothing is evaluated without evaluate.every_steps; set it")
        return self


class StageConfig(RunConfig):
    """A stage that learns from conversations."""

    data: DataConfig
    loader: LoaderConfig = LoaderConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    fuse: Literal["compile", "liger"] | None = None
    """Do in fewer passes over memory what stands between a layer's matrix products: torch.compile, which takes minutes
    at the start; or liger-kernel's kernels in the language model, on a GPU."""

    @model_validator(mode="after")
    def _gathered_layers_do_not_compile(self) -> StageConfig:
        if self.fuse == "compile" and self.parallel.strategy == "zero3":
            raise ValueError(
                "fuse=compile: zero3 gathers weights inside the layers, which torch.compile cannot follow; "
                "set parallel.strategy=fsdp2, or leave fuse out"
            )
        return self


def train(
    model: Llava,
    processor: Processor,
    config: StageConfig,
    *,
    asked: Processor | None = None,
    parts: Parts | str | None,
    start_from: Path | None,
) -> None:
    """Train what `model` has set to learn, and write the result to output_dir.

    asked: the processor that the result is asked and saved with; by default the one it learns with. parts: what the
    result stands beside, as `checkpoint.folder.save` takes it. start_from: the step folder to go on from.
    """
    asked = asked or processor
    checkpoint_layers(model, config.gradient_checkpointing)
    if config.fuse == "compile":
        compile_layers(model)
    elif config.fuse == "liger":
        use_liger(model.language_model)
    dataset = InstructionDataset(
        config.data,
        processor,
        row_tokens=config.batch.tokens,
        exact=config.batch.rows is not None,
    )
    steps = plan_steps(
        dataset,
        samples=config.batch.samples,
        rows=config.batch.rows,
        row_tokens=config.batch.tokens,
        packing=config.batch.packing,
        seed=config.seed,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )
    failures = log_failures(dataset, config.output_dir)
    evaluation = Evaluation(config, processor, asked)  # a missing file speaks before the first step
    engine = make_engine(model, config.optim, config.parallel, num_steps=steps.num_steps)
    fit(
        engine,
        lambda first: read_steps(steps, first, config.loader, failures),
        config,
        num_samples=len(dataset),
        data_hash=dataset.content_hash,
        write_lineage=dataset.write_lineage,
        save=lambda folder, weights: save(folder, model, asked, parts=parts, weights=weights),
        validation=Validation(config.evaluate, config.output_dir, lambda step: evaluation(step, engine, model)),
        start_from=start_from,
    )
    distributed.stop()


def log_failures(dataset: InstructionDataset, folder: Path) -> FailureLog | None:
    """Return where samples that cannot be read are listed, if these data may go on without them."""
    config = dataset.config
    return FailureLog(folder, config.max_bad * len(dataset)) if config.on_bad_sample == "skip" else None


class Evaluation:
    """Held-out data and benchmarks, read and checked once. Called, it returns their figures, on all processes."""

    def __init__(self, config: StageConfig, processor: Processor, asked: Processor) -> None:
        self.config = config
        self.asked = asked
        self.benchmarks = [find_benchmark(name) for name in config.evaluate.benchmarks]
        for benchmark, (key, data) in zip(self.benchmarks, config.evaluate.benchmarks.items(), strict=True):
            if benchmark.judging(data) is not None:
                raise EvaluationError(
                    f"evaluate.benchmarks.{key}: a judge would have to review its answers, and none does while a model "
                    f"learns; evaluate the result: llava-lite eval {key} --judge"
                )
            asked_of = runner.read_questions(benchmark, data)[: config.evaluate.limit]
            if not any(question.correct for question in asked_of):
                raise EvaluationError(
                    f"evaluate.benchmarks.{key}: its files hold no correct answers, so it measures nothing here; "
                    "choose a split that has them"
                )
        self.steps = hold_out(config, processor) if config.evaluate.held_out else None

    def __call__(self, step: int, engine: Engine, model: Llava) -> dict[str, float]:
        figures: dict[str, float] = {}
        folder = self.config.output_dir / "evaluations"
        if self.steps is not None:
            dataset = self.steps.dataset
            dataset.write_lineage(folder)
            failures = log_failures(dataset, folder)
            batches = (part.batches for part in read_steps(self.steps, 0, self.config.loader, failures))
            figures[HELD_OUT] = engine.mean_loss(batches)
        if self.benchmarks:
            shared_out = self.config.parallel.strategy in ("zero3", "fsdp2")
            answers = folder / f"step-{step}"
            assistant = Assistant(model, self.asked, name=str(answers), in_step=shared_out, keep_tokens=0)
            figures |= self._ask(Together(assistant), answers)
        return figures

    def _ask(self, model: Together, folder: Path) -> dict[str, float]:
        settings = self.config.evaluate
        figures: dict[str, float] = {}
        if distributed.is_main():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that did not get beyond this step
        with model:
            for benchmark, (key, data) in zip(self.benchmarks, settings.benchmarks.items(), strict=True):
                if distributed.is_main():
                    scores = runner.run(
                        benchmark,
                        model,
                        data=data,
                        out=folder / benchmark.name,
                        limit=settings.limit,
                        batch_size=settings.batch_size * distributed.world_size(),
                    )
                    figures |= {f"{key}.{name}": float(value) for name, value in scores.figures.items()}
        return distributed.gather(figures)[0]


def hold_out(config: StageConfig, processor: Processor) -> InstructionSteps:
    """Plan one pass through the held-out samples, in rows as in training. Raises SampleError."""
    held_out, limit = config.evaluate.held_out, config.evaluate.limit
    assert held_out is not None
    try:
        dataset = InstructionDataset(held_out, processor, row_tokens=config.batch.tokens)
    except SampleError as error:
        raise SampleError(f"evaluate.held_out: {error}") from None
    return plan_steps(
        dataset,
        samples=config.batch.samples,
        rows=None,
        row_tokens=config.batch.tokens,
        packing=config.batch.packing,
        seed=held_out.seed,
        epochs=min(1.0, limit / len(dataset)) if limit else 1.0,
        max_steps=None,
    )


def dry_run(main: Callable[[C], None], config: C) -> None:
    """Do everything once, in a folder of its own, and say what came of it: check all data, evaluate, learn one step,
    save, evaluate, and ask the saved result about two samples. Raises RunError if that folder is there."""
    place = config.output_dir.absolute()
    folder = place.with_name(f"{place.name}.dry-run")
    if distributed.is_main() and folder.exists():
        raise RunError(f"{folder}: is there, perhaps of a dry run that was killed; delete it, or rename what you keep")
    every = config.evaluate.every_steps and 1
    try:
        main(
            config.model_copy(
                update={
                    "output_dir": folder,
                    "max_steps": 1,
                    "overwrite": False,
                    "resume": None,
                    "save": config.save.model_copy(update={"every_steps": 1}),
                    "log": LogConfig(),
                    "evaluate": config.evaluate.model_copy(update={"every_steps": every, "limit": 2, "patience": None}),
                }
            )
        )
        if distributed.is_main():
            _show_dry_run(config, folder)
    finally:
        if distributed.is_main():
            shutil.rmtree(folder, ignore_errors=True)


def _show_dry_run(config: StageConfig, folder: Path) -> None:
    model, processor = load(folder, dtype=distributed.dtype())
    assistant = Assistant(model.to(distributed.device()), processor)
    table = Table(title="what the saved result answers, after one step", title_justify="left", show_lines=True)
    for name in ("sample", "question", "its answer", f"the model's, at most {_SHORT} tokens"):
        table.add_column(name, overflow="fold")
    for sample, answer in _ask_two(assistant, config):
        question, correct = sample.conversation.messages[-2:]
        table.add_row(*(Text(word) for word in (sample.id, question.text, correct.text, answer)))
    console = Console(stderr=True)
    console.print(table)
    step = json.loads((folder / "log.jsonl").read_text(encoding="utf-8"))
    words = [f"loss {step['loss']:.4f}", f"{step['seconds']:.1f} s", *describe_rates(step)]
    told = f"dry run of {config.output_dir}: all of it works; its step: {'  '.join(words)}"
    console.print(told, soft_wrap=True, highlight=False)


def _ask_two(assistant: Assistant, config: StageConfig) -> list[tuple[Sample, str]]:
    """Ask the last question of the data's first two samples that can be used and are not too long."""
    mixture, processor = Mixture(config.data), assistant.processor
    limit = longest_sample(config.data, processor, row_tokens=config.batch.tokens)
    asked: list[tuple[Sample, str]] = []
    for entry in range(len(mixture)):
        with suppress(SampleError, ImageError, ConversationError, ProcessorError):  # a run may go on without these
            sample = mixture.sample(entry)
            question = Conversation(sample.conversation.messages[:-1], sample.conversation.system)
            if processor.length(question)[0] <= limit:
                asked.append((sample, assistant.reply([question], Sampling(max_new_tokens=_SHORT))[0]))
        if len(asked) == 2:
            break
    return asked
