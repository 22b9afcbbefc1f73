"""The files that people run, read and copy: `train/`, `eval/` and `configs/`, in a checkout or inside the wheel.

Also the door they all leave through: `report_mistakes` turns what a user got wrong into a line or two on standard error
and exit code 2, and leaves every other exception its traceback, for it is a bug.
"""

import argparse
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from llava_lite.config import Strict

Kind = Literal["train", "eval", "configs"]
C = TypeVar("C", bound="Strict")

SUFFIXES: dict[Kind, str] = {"train": ".py", "eval": ".py", "configs": ".yaml"}
INTERRUPTED = 130
MISTAKE = 2
_LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|timed out|remote process exited", re.IGNORECASE)

# torchrun answers a failed process with a traceback of its own and exit code 1. What the first process to fail has said
# is said again at the end, below what the others said of losing it; these leave no file that says what happened.
TORCHRUN = """
import logging, os, sys
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
logging.disable(logging.ERROR)
try:
    main()
except ChildFailedError as error:
    failures = error.failures
    rank = min(failures, key=lambda rank: (not os.path.isfile(failures[rank].error_file), failures[rank].timestamp))
    print(f"the run ended with rank {rank}: {failures[rank].message}", file=sys.stderr)
    sys.exit(max(1, failures[rank].exitcode))
"""


class RecipeError(ValueError):
    """A recipe, an evaluation or a configuration that does not exist, or a copy that would overwrite a file."""


def find(kind: Kind, name: str) -> Path:
    """Return the file of a name as `names` lists it; a suffix (`align.py`, `demo/align.yaml`) may stand."""
    folder, suffix = _folder(kind), SUFFIXES[kind]
    known = names(kind)
    if name.removesuffix(suffix) in known:
        return folder / f"{name.removesuffix(suffix)}{suffix}"
    from llava_lite.config import nearest

    word = nearest(name, known)
    remedy = f"did you mean {word}?" if word else f"there are: {', '.join(known) or 'none'}"
    raise RecipeError(f"{kind}: nothing is called {name!r}; {remedy}")


def names(kind: Kind) -> list[str]:
    """List what there is: `align`, `finetune`, ... or, for configurations, `demo/align`, ..."""
    folder, suffix = _folder(kind), SUFFIXES[kind]
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob(f"*{suffix}"))


def copy(name: str, target: Path) -> Path:
    """Copy `train/finetune.py` (or `eval/pope.py`, `configs/demo/align.yaml`) to a new file or into a folder."""
    kind, _, rest = Path(name).as_posix().partition("/")
    if kind not in SUFFIXES:
        raise RecipeError(
            f"{name!r} should start with train/, eval/ or configs/; `llava-lite list` shows what there is"
        )
    source = find(kind, rest)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise RecipeError(f"{target}: is there already; remove it or name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target


def launch(recipe: Path, arguments: Sequence[str], *, processes: int = 1) -> int:
    """Run a recipe as its own command would and return its exit code: in this interpreter, or in many with torchrun."""
    if processes > 1:
        return torchrun([str(recipe), *arguments], processes)
    argv = sys.argv
    sys.argv = [str(recipe), *arguments]
    try:
        runpy.run_path(str(recipe), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = argv
    return 0


def torchrun(command: Sequence[str], processes: int) -> int:
    """Run a file, or `-m` and a module, with its arguments, in many processes of this machine; return the exit code."""
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    run = [sys.executable, "-c", TORCHRUN, "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*run, *command], env={"OMP_NUM_THREADS": threads, **os.environ}).returncode


def recipe_of(config: Path, name: str | None = None) -> Path:
    """Return the recipe that a configuration is for: `name`, which may be a file of your own, or what it is called."""
    if name is not None:
        return Path(name) if Path(name).is_file() else find("train", name)
    if config.stem not in names("train"):
        raise RecipeError(f"{config}: not called after a recipe; say which it is for, as --recipe finetune")
    return find("train", config.stem)


def load_recipe(recipe: Path, *, needs: str = "Config") -> ModuleType:
    """Import a recipe without running it. needs: a name that it has to have. Raises RecipeError."""
    spec = importlib.util.spec_from_file_location(f"recipe_{recipe.stem}", recipe)
    if spec is None or spec.loader is None or not recipe.is_file():
        raise RecipeError(f"{recipe}: not a Python file; give a recipe such as train/finetune.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic looks the names in its annotations up there
    spec.loader.exec_module(module)
    if needs not in vars(module):
        raise RecipeError(f"{recipe}: has no {needs}; choose a recipe of conversations, such as align or finetune")
    return module


def run(main: Callable[[C], None], config: type[C], dry_run: Callable[[C], None] | None = None) -> None:
    """Be the `__main__` of a recipe: parse `--config F key=value ... --help`, read the configuration, call `main`.

    dry_run: what is called instead where `--dry-run` asks for it
    """
    from llava_lite.config import describe, read_config

    parser = argparse.ArgumentParser(
        usage=f"%(prog)s [--config F] [key=value ...]{' [--dry-run]' if dry_run else ''}",
        description=sys.modules[main.__module__].__doc__,
        epilog=f"keys, their types and defaults:\n{describe(config)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="F", help="a YAML file, see configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="what differs from the file, as optim.lr=1e-5"
    )
    if dry_run:
        told = "one real step of everything, in OUTPUT_DIR.dry-run: data, training, saving, loading, asking, evaluating"
        parser.add_argument("--dry-run", action="store_true", help=told)
    options = parser.parse_intermixed_args()
    with report_mistakes():
        settings = read_config(config, options.config, options.overrides)
        if dry_run and options.dry_run:
            dry_run(settings)
        else:
            main(settings)


@contextmanager
def report_mistakes() -> Iterator[None]:
    """End the process with exit code 2 and a message, no traceback, at a user's mistake; with 130 at an interruption.

    Of several processes, one that cannot go on because another has ended says no more than that.
    A mistake is a ValueError of a class that llava_lite defines: each room raises its own. LLAVA_LITE_TRACEBACK=1 shows
    the traceback all the same.
    """
    rank = f"rank {os.environ.get('RANK')}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{rank}interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        mistake = any(kind.__module__.partition(".")[0] == "llava_lite" for kind in type(error).__mro__)
        where = traceback.extract_tb(error.__traceback__)[-1].filename
        lost = rank and "torch/distributed/" in where and _LOST.search(str(error)) and isinstance(error, RuntimeError)
        if not lost:
            _note_failure(_message(error))
        if not (lost or (mistake and isinstance(error, ValueError))):
            raise
        if os.environ.get("LLAVA_LITE_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
        told = f"lost the other processes ({str(error)[:120]})" if lost else f"error: {_message(error)}"
        print(f"{rank}{told}", file=sys.stderr)
        raise SystemExit(1 if lost else MISTAKE) from None


def _note_failure(message: str) -> None:
    """Tell torchrun what happened, and when; it knows by that which process was the first."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        Path(path).write_text(json.dumps({"message": message, "timestamp": int(time.time())}), encoding="utf-8")


def _message(error: Exception) -> str:
    # A DataLoader passes a worker's exception on as one of the same class whose text is a traceback and the message.
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    text = str(error)
    return text.rpartition(name)[2].strip() if "Original Traceback" in text else text


def _folder(kind: Kind) -> Path:
    package = Path(__file__).parent  # the wheel carries the folders inside the package, a checkout has them beside it
    return package / kind if (package / kind).is_dir() else package.parent / kind
