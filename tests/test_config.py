"""Configuration: files, bases and overrides become one model, or one error of a few lines."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from llava_lite.config import ConfigError, Strict, describe, dump_config, read_config


class Optim(Strict):
    lr: float
    """Learning rate of every part that has none of its own."""
    projector_lr: float | None = None
    warmup: float = 0.03
    betas: tuple[float, float] = (0.9, 0.999)


class Source(Strict):
    path: Path
    weight: float = 1.0


class Batch(Strict):
    samples: int = 128
    packing: bool = True


class Config(Strict):
    output_dir: Path
    """Where the result goes."""
    seed: int = 0
    optim: Optim = Optim(lr=1e-3, warmup=0.5)
    batch: Batch = Batch()
    data: tuple[Source, ...] = ()
    second: Batch | None = None
    mode: Literal["pad", "crop"] | int = "pad"
    sizes: dict[str, int] = Field({"small": 1})
    name: str = ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def complaint(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(Config, write("run.yaml", text), overrides)
    assert 1 <= len(str(caught.value).splitlines()) <= 5
    return str(caught.value)


def test_a_file_says_only_what_differs(folder: Path) -> None:
    config = read_config(Config, write("run.yaml", "output_dir: out\nbatch: {samples: 8}\n"))
    assert config == Config(output_dir=Path("out"), batch=Batch(samples=8))


def test_a_group_in_the_file_keeps_the_recipes_own_defaults_of_its_other_keys(folder: Path) -> None:
    config = read_config(Config, write("run.yaml", "output_dir: out\noptim: {warmup: 0.1}\nsizes: {large: 2}\n"))
    assert config.optim == Optim(lr=1e-3, warmup=0.1)
    assert config.sizes == {"small": 1, "large": 2}


def test_overrides_win_over_the_file_and_are_read_as_yaml(folder: Path) -> None:
    path = write("run.yaml", "output_dir: out\nseed: 1\n")
    overrides = ["seed=7", "optim.projector_lr=2e-5", "batch.packing=no", "second.samples=3", "data=[{path: x.json}]"]
    config = read_config(Config, path, overrides)
    assert (config.seed, config.optim.projector_lr, config.batch.packing) == (7, 2e-5, False)
    assert (config.second, config.data) == (Batch(samples=3), (Source(path=Path("x.json")),))


def test_overrides_alone_are_enough() -> None:
    assert read_config(Config, None, ["output_dir=out"]) == Config(output_dir=Path("out"))


def test_a_float_may_be_written_as_an_integer_or_as_1e_5(folder: Path) -> None:
    config = read_config(Config, write("run.yaml", "output_dir: out\noptim: {lr: 1, projector_lr: 1e-5}\n"))
    assert (config.optim.lr, config.optim.projector_lr) == (1.0, 1e-5)


def test_a_date_is_text(folder: Path) -> None:
    assert read_config(Config, write("run.yaml", "output_dir: 2024-02-30\n")).output_dir == Path("2024-02-30")


def test_a_base_is_found_beside_the_file_and_merged_deeply(folder: Path) -> None:
    Path("model").mkdir()
    write("model/common.yaml", "output_dir: out\noptim: {lr: 1, warmup: 0}\n")
    write("model/run.yaml", "base: common.yaml\noptim: {lr: 2}\n")
    assert read_config(Config, Path("model/run.yaml")).optim == Optim(lr=2, warmup=0)


def test_an_anchor_and_a_merge_key_work(folder: Path) -> None:
    text = "output_dir: out\nbatch: &a {samples: 4, packing: false}\nsecond: {<<: *a, samples: 5}\n"
    assert read_config(Config, write("run.yaml", text)).second == Batch(samples=5, packing=False)


def test_dumped_configuration_reads_back_equal(folder: Path) -> None:
    config = Config(
        output_dir=Path("out"), optim=Optim(lr=1e-5), data=(Source(path=Path("a")),), second=Batch(), name="1e-5: no"
    )
    assert read_config(Config, write("dump.yaml", dump_config(config))) == config


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Optim(lr=1).lr = 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim: {lrr: 1}", "optim.lrr (run.yaml, line 2): unknown key; did you mean optim.lr?"),
        ("projector_lr: 1", "projector_lr (run.yaml, line 2): unknown key; did you mean optim.projector_lr?"),
        ("data:\n- {path: x}\n- {path: x, wieght: 2}", "data.1.wieght (run.yaml, line 4): unknown key; did you mean"),
        ("second: {sample: 2}", "second.sample (run.yaml, line 2): unknown key; did you mean second.samples?"),
        ("batch: {xyzzy: 2}", "batch.xyzzy (run.yaml, line 2): unknown key; known here: samples, packing"),
        ("on: 2", "on (run.yaml, line 2): unknown key"),
        ("seed: abc", "seed (run.yaml, line 2): should be a valid integer, not 'abc'"),
        ("seed: 2.5", "seed (run.yaml, line 2): should be a valid integer"),
        ("seed: yes", "seed (run.yaml, line 2): should be a number, not True"),
        ("batch: 3", "batch (run.yaml, line 2): should be a mapping of keys, not 3"),
        ("batch:", "batch (run.yaml, line 2): should be a mapping of keys, not None"),
        ("second: {}\nname: 3", "name (run.yaml, line 3): should be a valid string, not 3"),
        ("data: [{weight: 2}]", "data.0.path (run.yaml, line 2): missing"),
        ("mode: cover", "mode (run.yaml, line 2): should be 'pad' or 'crop', not 'cover' or should be a valid integer"),
        ("seed: 1\nseed: 2", "seed (run.yaml, line 3): given twice; keep one of them"),
        ("batch: {samples: 1, samples: 1}", "batch.samples (run.yaml, line 2): given twice"),
        ("seed: [1", "run.yaml, line 3: not valid YAML: expected ',' or ']'"),
        ("seed:\n\t- 1", "run.yaml, line 3: not valid YAML: found character '\\t'"),
        ("seed: !!python/object:os.system x", "run.yaml, line 2: not valid YAML: could not determine a constructor"),
        ("[a, b]: 1", "run.yaml, line 2: not valid YAML: a key should be a word"),
        ("name: '\x00'", "run.yaml, line 1: not valid YAML: unacceptable character"),
    ],
)
def test_a_mistake_in_a_file_says_what_where_and_the_remedy(folder: Path, text: str, expected: str) -> None:
    assert complaint(f"output_dir: out\n{text}\n").startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lrr=1", "optim.lrr (override optim.lrr=1): unknown key; did you mean optim.lr?"),
        ("optim={lr: abc}", "optim.lr (override optim={lr: abc}): should be a valid number, not 'abc'"),
        ("seed.x=1", "seed (override seed.x=1): should be a valid integer"),
        ("seed", "override 'seed': should read key=value"),
        ("batch..samples=1", "override 'batch..samples=1': should read key=value"),
        ("seed=[1", "override seed=[1: not valid YAML"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(folder: Path, override: str, expected: str) -> None:
    assert complaint("output_dir: out\noptim: {lr: 3}\n", override).startswith(expected)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^output_dir: missing, and it has no default$"):
        read_config(Config, None)


def test_all_complaints_come_at_once_and_the_rest_is_counted(folder: Path) -> None:
    text = "output_dir: out\nseed: a\nseed: b\noptim: {lr: c}\n"
    assert len(complaint(text, "batch.sample=1").splitlines()) == 4
    lines = complaint(text, "a=1", "b=1", "c=1").splitlines()
    assert len(lines) == 5
    assert lines[-1] == "... and 2 more like these"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("aling.yaml", "aling.yaml: no such file; did you mean align.yaml?"),
        ("quite-another.yaml", "quite-another.yaml: no such file; . holds: align.yaml"),
        ("nowhere/align.yaml", "nowhere/align.yaml: no such file; the folder nowhere does not exist"),
        (".", ".: is a folder; . holds: align.yaml"),
        ("list.yaml", "list.yaml: should hold `key: value` lines, not [1]"),
        ("latin.yaml", "latin.yaml: not a text file in UTF-8"),
        ("loop.yaml", "loop.yaml: `base:` leads round in a circle"),
        ("lost.yaml", "nobody.yaml: no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_what_is_beside_it(folder: Path, name: str, expected: str) -> None:
    write("align.yaml", "output_dir: out\n")
    texts = {"list.yaml": b"- 1", "latin.yaml": b"name: \xe9", "loop.yaml": b"base: loop.yaml"}
    texts["lost.yaml"] = b"base: nobody.yaml"
    if name in texts:
        Path(name).write_bytes(texts[name])
    with pytest.raises(ConfigError) as caught:
        read_config(Config, Path(name))
    assert str(caught.value).startswith(expected)


def test_help_lists_keys_types_effective_defaults_and_docstrings() -> None:
    words = " ".join(describe(Config).split())
    assert "output_dir Path, required Where the result goes." in words
    assert "optim.lr float = 0.001 Learning rate of every part" in words
    assert "optim.warmup float = 0.5" in words
    assert "data.*.path Path, required" in words
