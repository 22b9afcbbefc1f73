"""Several processes answer a benchmark together: as one would, whoever is killed, and nothing is asked twice."""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pixel_world import PIXEL_WORLD, PixelModel, Pixels, read_lines

from llava_lite.evaluation.answers import open_answers
from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.origin import Origin
from llava_lite.evaluation.runner import run

ROOT = Path(__file__).parents[2]


class Processes:
    """The world's script as several processes, started as torchrun does, with nobody who ends the others for one."""

    def __init__(self, world: int, *arguments: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(ROOT)}
        self.all = [
            subprocess.Popen(
                [sys.executable, str(PIXEL_WORLD), *map(str, arguments)],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]

    def wait(self) -> list[tuple[int, str, str]]:
        """Of each process its exit code, and what it has said: stdout and stderr."""
        said = [process.communicate(timeout=120) for process in self.all]
        return [(process.returncode, *words) for process, words in zip(self.all, said, strict=True)]

    def wait_for_answers(self, out: Path, each: int) -> None:
        deadline = time.monotonic() + 120
        paths = [out / f"answers.rank{rank}of{len(self.all)}.jsonl" for rank in range(len(self.all))]
        while not all(path.exists() and len(read_lines(path)) >= each for path in paths):
            assert time.monotonic() < deadline and all(process.poll() is None for process in self.all)
            time.sleep(0.005)


@pytest.fixture
def alone(data: Path, tmp_path: Path) -> Path:
    """What one process makes of it."""
    run(Pixels(), PixelModel(), data=data, out=tmp_path / "alone")
    return tmp_path / "alone"


def result(out: Path) -> tuple[list[bytes], bytes]:
    return sorted(read_lines(out / "answers.jsonl")), (out / "scores.json").read_bytes()


@pytest.mark.multiprocess
@pytest.mark.parametrize("world", [1, 3])
def test_a_run_of_two_that_is_killed_goes_on_with_any_number_and_asks_nothing_twice(
    data: Path, tmp_path: Path, alone: Path, world: int
) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    killed = Processes(2, data, out, log)
    killed.wait_for_answers(out, 4)
    for process in killed.all:
        process.kill()
    killed.wait()
    saved = {json.loads(line)["prompt"] for path in out.glob("answers.rank*of2.jsonl") for line in read_lines(path)}
    assert 8 <= len(saved) < 20
    under_way = set(log.read_text().splitlines()) - saved

    ended = Processes(world, data, out, log).wait()
    assert [code for code, _, _ in ended] == [0] * world
    assert [bool(stdout) for _, stdout, _ in ended] == [True] + [False] * (world - 1)  # only the main process speaks
    assert result(out) == result(alone)
    times = Counter(log.read_text().splitlines())
    assert len(times) == 20 and {text for text, count in times.items() if count > 1} <= under_way
    assert not list(out.glob("*.rank*"))


@pytest.mark.multiprocess
@pytest.mark.parametrize("dead", [0, 1])
def test_a_process_that_dies_ends_the_others_and_costs_no_answer(data: Path, tmp_path: Path, dead: int) -> None:
    out, log = tmp_path / "out", tmp_path / "asked.txt"
    running = Processes(2, data, out, log)
    running.wait_for_answers(out, 2)
    running.all[dead].kill()
    code, stdout, stderr = running.wait()[1 - dead]
    assert (code, stdout) == (1, "")
    assert f"rank {1 - dead}: lost the other processes" in stderr and "Traceback" not in stderr
    assert len(read_lines(out / f"answers.rank{1 - dead}of2.jsonl")) == 10  # all of its share
    assert not (out / "scores.json").exists()
    num_saved = sum(len(read_lines(path)) for path in out.glob("answers.rank*of2.jsonl"))
    model = PixelModel()
    assert run(Pixels(), model, data=data, out=out).complete and len(model.texts()) == 20 - num_saved < 10


@pytest.mark.multiprocess
def test_a_mistake_of_one_process_ends_all_and_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "answers.jsonl").write_text('{"question_id": 0, "text": "red"}\n')
    (code, _, stderr), (other, _, lost) = Processes(2, data, tmp_path / "out", tmp_path / "log").wait()
    assert code == 2 and "rank 0: error: " in stderr and "nothing says what these are answers to" in stderr
    assert other == 1 and "rank 1: lost the other processes" in lost


def leave_parts(out: Path) -> list[bytes]:
    """Make a run look as if it had been killed on two processes: the second tore its last line."""
    lines = [line + b"\n" for line in read_lines(out / "answers.jsonl")]
    (out / "answers.jsonl").write_bytes(b"".join(lines[:4]))
    (out / "answers.rank0of2.jsonl").write_bytes(b"".join(lines[2:9]))  # of which two have been moved
    (out / "answers.rank1of2.jsonl").write_bytes(b"".join(lines[9:15]) + lines[15][:-5])
    return lines


def test_what_a_killed_run_left_is_taken_up_once_and_a_torn_line_asked_again(data: Path, alone: Path) -> None:
    whole = result(alone)
    lines = leave_parts(alone)
    model = PixelModel()
    assert run(Pixels(), model, data=data, out=alone).complete
    assert sorted(model.texts()) == sorted(json.loads(line)["prompt"] for line in lines[15:])
    assert result(alone) == whole and not list(alone.glob("*.rank*"))


def test_what_another_models_run_left_is_refused(data: Path, alone: Path) -> None:
    leave_parts(alone)
    (alone / "answers.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"answers.rank0of2.jsonl holds answers of another model"):
        run(Pixels(), PixelModel("another"), data=data, out=alone)


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_what_a_process_still_writes_is_left_alone(data: Path, alone: Path) -> None:
    import fcntl

    leave_parts(alone)
    origin = Origin.of(Pixels(), Pixels().questions(data), PixelModel())
    with (alone / "answers.rank0of2.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(EvaluationError, match=r"rank0of2.jsonl: another process is answering"):
            open_answers(alone, origin).__enter__()
    with open_answers(alone, origin) as opened:
        assert len(opened.answers) == 15
