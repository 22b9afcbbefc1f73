"""`llava-lite <verb>`: parse, import late, dispatch. Whatever a verb does stands in the room that it calls."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

QUANTIZE = "Hold the language model in 4bit or 8bit, in a quarter or half of the memory.  [default: as the checkpoint]"
MODEL = "A checkpoint folder, a hub id, or the address of a server: http://HOST:PORT[/v1][#NAME]."
Scoring = Literal["official", "strict"]
Choices = Literal["generate", "likelihood"]


class Door(TyperGroup):
    """Run every verb behind `report_mistakes`, before typer would turn an interruption into exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        from llava_lite.recipes import report_mistakes

        with report_mistakes():
            return super().invoke(ctx)


# Plain help: typer's rich help costs as much time as everything else that `--help` does.
app = typer.Typer(
    cls=Door,
    help="Assemble, train, evaluate and use LLaVA-style vision-language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from llava_lite import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the world, the models and the report.  [default: runs/demo]")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Train just long enough to see that everything runs.")] = False,
) -> None:
    """Train and measure everything on the demo world."""
    from llava_lite.demo.build import build_demo

    build_demo(out=out or Path("runs/demo-short" if short else "runs/demo"), short=short)


# `train align --help` is answered by the recipe, which knows its keys.
@app.command(context_settings={"help_option_names": []})
def train(
    ctx: typer.Context,
    recipe: Annotated[str, typer.Argument(help="contrastive, align or finetune.")] = "",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As optim.lr=1e-5.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file, see `llava-lite list`.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each device.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="One real step of everything, then stop.")] = False,
    help: Annotated[bool, typer.Option("--help", help="Show the keys of a recipe, or this message.")] = False,
) -> None:
    """Train one stage: contrastive, align or finetune."""
    from llava_lite.recipes import find, launch

    if not recipe:
        print(ctx.get_help())
        raise typer.Exit(0 if help else 2)
    arguments = ["--config", str(config)] if config else []
    arguments = ["--help"] if help else [*arguments, *(["--dry-run"] if dry_run else []), *(overrides or [])]
    raise typer.Exit(launch(find("train", recipe), arguments, processes=1 if help else processes))


@app.command()
def eval(
    names: Annotated[list[str], typer.Argument(metavar="NAME[-VARIANT]...", help="See `llava-lite list`.")],
    data: Annotated[Path | None, typer.Option(help="The benchmark's files.")] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    answers: Annotated[
        Path | None, typer.Option(help="In place of --model: answers made elsewhere, or a judge's reviews.")
    ] = None,
    judge: Annotated[str | None, typer.Option(help="Reviews answers that need it; spelled as --model.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results.  [default: runs/eval/MODEL/NAME]")] = None,
    mode: Annotated[str, typer.Option(help="One or several of normal, blind, shuffled, with commas.")] = "normal",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only the first questions.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 16,
    scoring: Annotated[Scoring, typer.Option(help="strict: as it should be beside as it is done.")] = "official",
    choices: Annotated[Choices, typer.Option(help="likelihood: the likeliest letter of those offered.")] = "generate",
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each device.")] = 1,
) -> None:
    """Ask a model the questions of benchmarks and score them."""
    import llava_lite
    from llava_lite.distributed import world_size
    from llava_lite.evaluation.command import Request, evaluate, find_benchmark
    from llava_lite.evaluation.modes import read_modes
    from llava_lite.recipes import torchrun

    request = Request(
        data=data,
        model=model,
        answers=answers,
        judge=judge,
        out=out,
        modes=read_modes([mode]),
        limit=limit,
        batch_size=batch_size,
        strict=scoring == "strict",
        by_likelihood=choices == "likelihood",
    )
    benchmarks = [find_benchmark(name) for name in names]
    if processes > 1 and world_size() == 1:
        raise typer.Exit(torchrun(["-m", "llava_lite.cli", *sys.argv[1:]], processes))
    evaluate(benchmarks, request, llava_lite.open_model)


@app.command("compare-scores")
def compare_scores(
    first: Annotated[Path, typer.Argument(metavar="A", help="Results: what --out of `eval` was.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Others on the same data.")],
) -> None:
    """Tell whether two results differ by more than chance."""
    from llava_lite.evaluation.command import find_benchmark, print_table
    from llava_lite.evaluation.comparison import compare

    for comparison in compare(first, second, find_benchmark):
        print_table(comparison.table())


@app.command(no_args_is_help=True)
def inspect(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="Other data than the configuration's; as optim.lr=1e-5."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A recipe's YAML file: samples as it trains them.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Its recipe.  [default: as the file is called]")] = None,
    model: Annotated[str | None, typer.Option(help="In place of --config: a checkpoint folder.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of images.  [default: the data's own]")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="How many samples.")] = 5,
    ids: Annotated[list[str] | None, typer.Option("--id", help="This sample; may be given several times.")] = None,
    draw: Annotated[bool, typer.Option("--random", help="Draw the samples, instead of the first.")] = False,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("runs/inspect.html"),
) -> None:
    """Show what the model sees of samples and what it learns; exits with 1 where one cannot be used."""
    from llava_lite.recipes import RecipeError, load_recipe, recipe_of

    if (config is None) == (model is None):
        raise RecipeError("inspect: give either --config F, to see samples as they are trained, or --model M")
    given = words or []
    data, overrides = (Path(given[0]), given[1:]) if given and "=" not in given[0] else (None, given)
    if model is not None and (overrides or recipe):
        raise RecipeError(f"inspect: {' '.join(overrides) or '--recipe'} goes with --config, not with --model")
    if model is not None and data is None:
        raise RecipeError(f"inspect: which data? name it: llava-lite inspect DATA --model {model}")
    path = recipe_of(config, recipe) if config is not None else None  # before torch takes its seconds

    from rich.console import Console

    from llava_lite.checkpoint.folder import load_processor
    from llava_lite.config import read_config
    from llava_lite.data.dataset import longest_sample
    from llava_lite.data.inspect.show import choose, show
    from llava_lite.data.inspect.view import Viewer
    from llava_lite.data.mixture import DataConfig, Mixture, with_data

    if path is not None:
        module = load_recipe(path, needs="open_processor")
        settings = read_config(module.Config, config, overrides)
        mixture = Mixture(with_data(settings.data, data, images))
        processor = module.open_processor(settings)
        limit: int | None = longest_sample(mixture.config, processor, row_tokens=settings.batch.tokens)
    else:
        mixture = Mixture(with_data(DataConfig(), data, images))
        processor = load_processor(str(model))
        limit = processor.max_positions
    entries = choose(mixture, count=count, ids=ids or [], seed=seed if draw else None)
    title = f"{config} ({path.stem})" if path else str(model)
    console = Console(highlight=False)
    usable = show(Viewer(mixture, processor, limit=limit), entries, out=out, title=title, console=console)
    raise typer.Exit(0 if usable else 1)


@app.command()
def doctor(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="What data.path takes: JSON, JSONL, parquet, tar, a mixture's YAML.")
    ],
    images: Annotated[Path | None, typer.Option(help="The folder of images.  [default: the data's own]")] = None,
    model: Annotated[Path | None, typer.Option(help="A checkpoint folder: lengths are then in its tokens.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of a record.  [default: 4096, or the model's positions]")
    ] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="Data to be evaluated on, which this should not hold.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every image, instead of reading its header.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")] = False,
    clean: Annotated[Path | None, typer.Option(help="Copy the records without errors to this .json or .jsonl.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for bad.jsonl.  [default: runs/doctor/DATA]")] = None,
    split: Annotated[str, typer.Option(help="Which part of a table that has several.")] = "train",
    reader: Annotated[str | None, typer.Option(help="my_reader.py:function, as data.sources[].reader.")] = None,
) -> None:
    """Check visual instruction data before training on it; exits with 1 where it finds an error."""
    from rich.console import Console

    from llava_lite.data.doctor.examine import Rules
    from llava_lite.data.doctor.report import data_config, visit

    config = data_config(data, images=images, split=split, reader=reader)
    rules = Rules(full=full)
    if model is not None:
        from llava_lite.checkpoint.folder import load_processor

        processor = load_processor(model)
        limits = (max_length or rules.max_length, processor.max_positions)
        rules = Rules(processor=processor, max_length=min(limit for limit in limits if limit is not None), full=full)
    elif max_length is not None:
        raise typer.BadParameter("counts tokens, so it needs --model", param_hint="--max-length")
    healthy = visit(
        config,
        rules,
        out=out or Path("runs/doctor") / data.stem,
        evals=evals or [],
        clean=clean,
        strict=strict,
        console=Console(highlight=False),
    )
    raise typer.Exit(0 if healthy else 1)


@app.command()
def budget(
    config: Annotated[Path, typer.Option(help="A recipe's YAML file, or a folder of both stages.")],
    gpu: Annotated[str, typer.Option(help="a100-40, a100-80, h100, h200, b200, l40s, 4090, 3090, ...")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As batch.tokens=4096.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    price: Annotated[float | None, typer.Option(min=0.0, help="Of a GPU hour, in any currency.")] = None,
    hfu: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="Share of the peak that is reached.  [default: 0.45]")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples of an epoch, where the data is not here.")] = None,
    tokens_per_sample: Annotated[
        int | None, typer.Option(min=1, help="Their mean length, visual tokens counted.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Tell memory, hours, energy and money of a run before it is started; exits with 1 where nothing fits."""
    from llava_lite.budget.hardware import HFU, find_gpu

    name, device = find_gpu(gpu)  # before torch takes its seconds

    from rich.console import Console

    from llava_lite.budget.estimate import Hardware
    from llava_lite.budget.report import show_budget

    hardware = Hardware(name, device, count, hfu or HFU, price)
    fits = show_budget(
        config,
        overrides or [],
        hardware,
        num_samples=samples,
        tokens_per_sample=tokens_per_sample,
        as_json=json,
        console=Console(highlight=False, width=max(100, Console().width)),  # its tables are not cut
    )
    raise typer.Exit(0 if fits else 1)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="The output_dir of a run.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="That of another.")],
    tolerance: Annotated[float, typer.Option(min=0.0, help="Losses so far apart count as equal.")] = 0.0,
) -> None:
    """Find the first step at which two runs differ; exits with 1 if there is one."""
    from rich.console import Console

    from llava_lite.training.compare import compare_runs, read_run

    runs = [read_run(folder) for folder in (run_a, run_b)]
    equal = compare_runs(*runs, tolerance=tolerance, console=Console(highlight=False))
    raise typer.Exit(0 if equal else 1)


@app.command()
def ask(
    model: Annotated[str, typer.Argument(help=MODEL)],
    question: Annotated[str, typer.Argument()],
    image: Annotated[list[str] | None, typer.Option(help="A file or URL; may be given several times.")] = None,
    system: Annotated[str | None, typer.Option(help="In place of the model's own system text.")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let image URLs reach this machine and its network.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 gives the likeliest answer, always the same.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that together have this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    quantize: Annotated[str | None, typer.Option(help=QUANTIZE)] = None,
) -> None:
    """Ask one question; the answer alone is printed."""
    import llava_lite
    from llava_lite.chat.screen import print_answer

    sources = [
        llava_lite.fetch_image(source, allow_private=allow_private) if "://" in source else source
        for source in image or []
    ]
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what libraries have to say is not the answer
        sampling = llava_lite.Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
        conversation = llava_lite.Conversation(system=system).ask(question, sources)
        print_answer(llava_lite.open_model(model, quantize=quantize).stream(conversation, sampling), out)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help=MODEL)],
    system: Annotated[str | None, typer.Option(help="In place of the model's own system text.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 gives the likeliest answer, always the same.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that together have this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    quantize: Annotated[str | None, typer.Option(help=QUANTIZE)] = None,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="Leave out the first turns of what is too long, and say so.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell how fast each answer came.")] = False,
) -> None:
    """Chat in the terminal, also about images; from a pipe, answer line by line."""
    import llava_lite
    from llava_lite.chat.terminal import chat

    sampling = llava_lite.Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    with contextlib.redirect_stdout(sys.stderr):
        assistant = llava_lite.open_model(model, quantize=quantize, drop_oldest=drop_oldest)
    raise typer.Exit(chat(assistant, sampling=sampling, system=system, verbose=verbose))


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A checkpoint folder or hub id.")],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model.  [default: its folder's name]")] = None,
    max_answering: Annotated[int, typer.Option(min=1, help="Answers made at the same time.")] = 8,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that wait for one of these places.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 1024,
    max_images: Annotated[int, typer.Option(min=0, help="Most images of a request.")] = 16,
    max_body_mib: Annotated[int, typer.Option(min=1, help="Largest request, images included.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds in which a request is answered.")] = 600.0,
    quantize: Annotated[str | None, typer.Option(help=QUANTIZE)] = None,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="Leave out the first turns of what is too long, and say so.")
    ] = False,
    allow_fetch: Annotated[bool, typer.Option("--allow-fetch", help="Fetch images from public addresses.")] = False,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="With --allow-fetch: from this machine and private networks too.")
    ] = False,
    allow_files: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Read images below this folder, as file:///DIR/image.png.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Web pages of this origin may ask; may be given several times.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Holds the key to be shown.  [default: $LLAVA_LITE_API_KEY, if set]")
    ] = None,
) -> None:
    """Serve a model: a page to chat at http://HOST:PORT/, and OpenAI's interface for programs at http://HOST:PORT/v1."""
    from llava_lite.serve.config import ServerConfig, read_api_key
    from llava_lite.serve.server import listen
    from llava_lite.serve.server import serve as run

    config = ServerConfig(
        model_name=name or Path(model).resolve().name,
        max_new_tokens=max_new_tokens,
        max_images=max_images,
        max_body_bytes=max_body_mib * 2**20,
        timeout=timeout,
        allow_fetch=allow_fetch,
        allow_private=allow_private,
        files_dir=allow_files,
        api_key=read_api_key(api_key_file),
        allow_origins=tuple(allow_origin or ()),
    )
    with listen(host, port) as listening:  # before torch takes its seconds, and weights their minutes
        from llava_lite import distributed
        from llava_lite.generation.batching import Batcher
        from llava_lite.generation.opening import open_checkpoint

        distributed.start()
        assistant = open_checkpoint(model, quantize=quantize, drop_oldest=drop_oldest)
        run(Batcher(assistant, max_answering=max_answering, max_waiting=max_waiting), config, listening)


@app.command()
def merge(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="A folder that finetuning with lora wrote.")],
    out: Annotated[Path, typer.Argument(help="A new folder for the whole model.")],
    into: Annotated[
        str, typer.Option(help="Of a quantised base: dequantized, which it was trained beside, or original.")
    ] = "dequantized",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.  [default: as it computes]")] = None,
) -> None:
    """Make an adapter and its base one whole checkpoint, and see that it answers as they do."""
    from llava_lite.checkpoint.merge import merge_checkpoint

    print(merge_checkpoint(adapter, out, into=into, dtype=dtype))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A checkpoint folder or hub id.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    format: Annotated[str, typer.Option(help="transformers, original or gguf.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.  [default: as stored]")] = None,
    template: Annotated[
        str | None, typer.Option(help="Its chat template.  [default: what the checkpoint says]")
    ] = None,
) -> None:
    """Write a checkpoint as others read it, see that it is the same, and tell what they do otherwise."""
    from llava_lite.checkpoint.export import export_checkpoint

    print(export_checkpoint(model, out, format=format, dtype=dtype, template=template))


@app.command()
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A checkpoint folder, as an output_dir of train.")],
    scores: Annotated[
        list[Path] | None,
        typer.Option(help="What eval wrote; may be given several times.  [default: runs/eval/RUN]"),
    ] = None,
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", metavar="DIR", help="The run that trained it; may be given several times.  [default: RUN]"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the model.  [default: its folder's]")] = None,
    license: Annotated[str | None, typer.Option(help="As the Hub calls it: apache-2.0, llama2, ...")] = None,
    base_model: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A hub id that it started from.  [default: those known]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a README.md of other making.")] = False,
) -> None:
    """Write a model's card, README.md of its folder, from what its training and evaluations wrote down."""
    from llava_lite.card.write import write_card

    told = write_card(
        run,
        runs=trained or [],
        scores=scores or [],
        name=name,
        license=license,
        base_models=base_model or [],
        force=force,
    )
    print("\n".join(told))


@app.command("list")
def list_files() -> None:
    """List recipes, benchmarks and configurations."""
    from llava_lite.recipes import SUFFIXES, names

    for kind, suffix in SUFFIXES.items():
        for name in names(kind):
            print(f"{kind}/{name}{suffix}")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="As `llava-lite list` names it: train/finetune.py.")],
    target: Annotated[Path, typer.Argument(help="A new file, or a folder.")],
) -> None:
    """Copy a recipe or a benchmark, to change it."""
    from llava_lite import recipes

    print(recipes.copy(source, target))


if __name__ == "__main__":
    main()
