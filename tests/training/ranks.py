"""Recipes on several processes without the seconds that each spends on imports: forked off one that has done these.

They are processes as torchrun starts them, with its environment, and die as such.
"""

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context, set_start_method
from multiprocessing.process import BaseProcess
from pathlib import Path

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(["llava_lite.stage", "deepspeed"])


@dataclass(frozen=True)
class Ended:
    """returncode: the first that is not 0; stderr: of all ranks, one after another."""

    returncode: int
    stderr: str


class Ranks:
    """A recipe that runs on so many processes."""

    def __init__(self, recipe: Path, arguments: Sequence[str], ranks: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.folder = Path(tempfile.mkdtemp())
        self.processes: list[BaseProcess] = []
        for rank in range(ranks):
            shared = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": port}
            process = _FORKS.Process(target=_run, args=(recipe, arguments, shared | own, self.folder / str(rank)))
            process.start()
            self.processes.append(process)

    def wait(self) -> Ended:
        """Wait for their end; where one fails, the others are ended as torchrun ends them."""
        deadline = time.monotonic() + 300
        while any(process.is_alive() for process in self.processes):
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(self.stderr())
            if any(process.exitcode for process in self.processes):
                for process in self.processes:
                    process.terminate()
            self.processes[0].join(0.05)
        codes = [process.exitcode or 0 for process in self.processes]
        return Ended(next((code for code in codes if code > 0), max(map(abs, codes))), self.stderr())

    def kill(self) -> None:
        """kill -9 all of them, and what they have started."""
        for process in self.processes:
            assert process.pid is not None
            os.killpg(process.pid, signal.SIGKILL)
        for process in self.processes:
            process.join()

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def stderr(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.iterdir()))


def _run(recipe: Path, arguments: Sequence[str], environment: dict[str, str], stderr: Path) -> None:
    os.setsid()
    set_start_method("fork", force=True)  # for workers of its own, as in a process that was not forked off
    os.environ.update(environment)
    with stderr.open("w") as file:
        os.dup2(file.fileno(), 2)
    from llava_lite.recipes import launch

    sys.exit(launch(recipe, arguments))
