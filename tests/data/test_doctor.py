"""The doctor finds every fault of the corpus as what it is, where it is, and nothing else; clean data has none."""

import copy
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llava_lite.checkpoint.folder import load, load_processor, save
from llava_lite.checkpoint.parts import Parts, assemble
from llava_lite.conversation.families import find_template
from llava_lite.data import chunks
from llava_lite.data.dataset import InstructionDataset
from llava_lite.data.doctor import examine as examine_module
from llava_lite.data.doctor.examine import Report, Rules, examine
from llava_lite.data.doctor.faults import FAULTS
from llava_lite.data.doctor.picture import look_at
from llava_lite.data.doctor.record import inspect_record
from llava_lite.data.doctor.report import BAD, TEXT, data_config, source_table, visit
from llava_lite.data.mixture import DataConfig
from llava_lite.data.records import SampleError
from llava_lite.data.sample import read_sample
from llava_lite.models.language_model import longest_sequence
from llava_lite.processor import Processor
from tests.data.faulty import CORPUS, DECODED, PLAIN, TALK, Mutation, World, encoded, paint
from tests.test_cli import llava

Found = list[tuple[str, int | None]]
ELSEWHERE = """
broken-archive reader-failed unreadable-image image-too-many-bytes refused too-long label-free no-vision-tower
template-refuses eval-overlap eval-image eval-image-missing
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def broken(clean: World, tmp_path: Path) -> World:
    """A copy of the clean world, to be broken."""
    shutil.copytree(clean.folder, tmp_path / "world")
    world = World.__new__(World)
    world.folder, world.records = tmp_path / "world", json.loads(clean.data.read_text())
    return world


@pytest.fixture(scope="module")
def processor(parts: Parts) -> Processor:
    return assemble(parts, dtype=torch.float32)[1]


def look(world: World, *, evals: tuple[Path, ...] = (), **rules: object) -> Report:
    config = DataConfig(path=world.data, image_dir=world.images)
    return examine(config, Rules(**rules), evals)[0]  # type: ignore[arg-type]


def found(report: Report) -> Found:
    return [(finding.kind, finding.number) for finding in report.findings]


def found_in(config: DataConfig, **rules: object) -> Found:
    return found(examine(config, Rules(**rules))[0])  # type: ignore[arg-type]


def apply(mutation: Mutation, world: World) -> int | None:
    where = mutation(world)
    if world.records:
        world.save()
    return where


def test_every_kind_of_fault_is_made_by_a_test() -> None:
    kinds = {kind for kind, _ in [*CORPUS.values(), *DECODED.values()]}
    assert len(kinds) > 40
    assert kinds | set(ELSEWHERE.split()) == set(FAULTS)
    assert not kinds & set(ELSEWHERE.split())
    assert len({fault.number for fault in FAULTS.values()}) == len(FAULTS)


@pytest.mark.parametrize("full", [False, True], ids=["headers", "full"])
def test_clean_data_has_no_fault(clean: World, processor: Processor, full: bool) -> None:
    assert found(look(clean, full=full)) == []
    assert found(look(clean, full=full, processor=processor)) == []


@pytest.mark.parametrize("name", CORPUS)
def test_a_fault_is_found_as_what_it_is_and_nothing_else(broken: World, name: str) -> None:
    kind, mutation = CORPUS[name]
    where = apply(mutation, broken)
    assert found(look(broken)) == [(kind, where)]
    assert found(look(broken, full=True)) == [(kind, where)]


@pytest.mark.parametrize("name", DECODED)
def test_what_only_pixels_tell_is_found_by_decoding(broken: World, name: str) -> None:
    kind, mutation = DECODED[name]
    where = apply(mutation, broken)
    assert found(look(broken)) == []
    assert found(look(broken, full=True)) == [(kind, where)]


@pytest.mark.parametrize("name", ["a placeholder lost", "an error page", "an HTML entity", "a role of another format"])
def test_a_model_changes_nothing_of_what_is_found_without(broken: World, processor: Processor, name: str) -> None:
    kind, mutation = CORPUS[name]
    where = apply(mutation, broken)
    assert found(look(broken, processor=processor)) == [(kind, where)]


@pytest.mark.parametrize("file", ["captions.json", "instructions.json", "dialogues.json", "test_captions.json"])
def test_the_demo_world_has_no_fault(world: Path, processor: Processor, file: str) -> None:
    config = DataConfig(path=world / file, image_dir=world / "images")
    warnings = [finding for finding in found_in(config, full=True, processor=processor) if finding[0] != "tiny-source"]
    assert warnings == []


def write_lines(world: World, path: Path) -> DataConfig:
    path = path / "mix.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in world.records))
    return DataConfig(path=path, image_dir=world.images)


def plain_records(world: World) -> list[dict]:
    """The records as a table can hold them: one shape, images in a list."""
    rows = []
    for record in world.records:
        images = record.get("image")
        images = images if isinstance(images, list) else [images] if images else None
        if "messages" not in record and images != []:
            rows.append({"id": record["id"], "images": images, "conversations": record["conversations"]})
    return rows


def write_table(world: World, path: Path) -> DataConfig:
    datasets.Dataset.from_list(plain_records(world)).to_parquet(path / "mix.parquet")
    return DataConfig(path=path / "mix.parquet", image_dir=world.images)


def write_table_of_images(world: World, path: Path) -> DataConfig:
    rows = plain_records(world)
    for row in rows:
        row["images"] = row["images"] and [
            {"bytes": (world.images / name).read_bytes(), "path": None} for name in row["images"]
        ]
    features = {
        "id": datasets.Value("string"),
        "images": datasets.List(datasets.Image()),
        "conversations": [{"from": datasets.Value("string"), "value": datasets.Value("string")}],
    }
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    table.to_parquet(path / "mix.parquet")
    return DataConfig(path=path / "mix.parquet")


def write_shards(world: World, path: Path) -> DataConfig:
    with tarfile.open(path / "mix.tar", "w") as archive:
        for number, row in enumerate(plain_records(world)):
            members = [(f"{number}.json", json.dumps({**row, "images": None}).encode())]
            for place, name in enumerate(row["images"] or []):
                members.append((f"{number}.{place}{Path(name).suffix}", (world.images / name).read_bytes()))
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return DataConfig(path=path / "mix.tar")


def write_mixture(world: World, path: Path) -> DataConfig:
    lines = ["sources:"]
    for number in range(2):
        records = copy.deepcopy(world.records)
        for record in records if number else []:  # the second file says other things
            turn = record.get("conversations", record.get("messages"))[-1]
            turn["value" if "value" in turn else "content"] += " Indeed, this is what we see in this one of all."
        (path / f"{number}.json").write_text(json.dumps(records))
        lines += [f"  - path: {number}.json", f"    image_dir: {world.images}", "    repeat: 1.5"]
    (path / "mix.yaml").write_text("\n".join(lines))
    return DataConfig(path=path / "mix.yaml")


@pytest.mark.parametrize(
    "write", [write_lines, write_table, write_table_of_images, write_shards, write_mixture], ids=lambda f: f.__name__
)
def test_clean_data_has_no_fault_in_any_container(
    broken: World, tmp_path: Path, write: Callable[[World, Path], DataConfig]
) -> None:
    assert found_in(write(broken, tmp_path), full=True) == []


def test_an_image_within_a_container_is_looked_at(broken: World, tmp_path: Path) -> None:
    (broken.images / "5.png").write_bytes(encoded(paint(50))[:300])
    for write in (write_table_of_images, write_shards):
        [(kind, number)] = found_in(write(broken, tmp_path))
        assert kind == "truncated-image" and number is not None
        assert plain_records(broken)[number]["id"] == "r5"


def test_a_broken_line_is_one_bad_record(broken: World, tmp_path: Path) -> None:
    config = write_lines(broken, tmp_path)
    lines = (tmp_path / "mix.jsonl").read_text().splitlines()
    (tmp_path / "mix.jsonl").write_text("\n".join([*lines[:4], lines[4][:-5], *lines[5:]]))
    assert found_in(config) == [("broken-json", 4)]


@pytest.mark.parametrize("write", [write_table, write_shards], ids=["parquet", "tar"])
def test_an_archive_cut_off_is_found(broken: World, tmp_path: Path, write: Callable[[World, Path], DataConfig]) -> None:
    config = write(broken, tmp_path)
    assert config.path is not None
    config.path.write_bytes(config.path.read_bytes()[:3000])
    assert found_in(config) == [("broken-archive", None)]


def test_one_broken_file_of_a_mixture_hides_nothing_of_the_others(broken: World, tmp_path: Path) -> None:
    config = write_mixture(broken, tmp_path)
    (tmp_path / "0.json").write_text("[{")
    report, sources = examine(config, Rules())
    assert [(f.kind, f.source) for f in report.findings] == [("truncated-file", "0.json")]
    assert report.sources == ["0.json", "1.json"] and len(report.rows) == len(broken.records) and list(sources) == [1]


def test_a_reader_that_fails_is_told_for_each_record(broken: World, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def read(record):\n    return {**record, 'id': 'x' + record['id'][1:3]}\n")
    broken.records[PLAIN]["id"] = 5
    broken.save()
    config = data_config(broken.data, images=broken.images, split="train", reader=f"{tmp_path / 'mine.py'}:read")
    [(kind, number)] = found_in(config)
    assert (kind, number) == ("reader-failed", PLAIN)


def test_an_image_that_may_not_be_read_is_found(clean: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no file refuses
    assert look_at(clean.images / "5.png", "5.png", full=False).notes == (
        ("unreadable-image", "5.png: Permission denied"),
    )


def test_a_file_of_too_many_bytes_is_not_opened(broken: World) -> None:
    with (broken.images / "5.png").open("r+b") as file:
        file.truncate(65 * 2**20)
    assert found(look(broken, full=True)) == [("image-too-many-bytes", PLAIN)]


def test_what_training_refuses_for_a_reason_unknown_here_is_told_all_the_same(
    clean: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(record: dict, **_: object) -> None:
        if record["id"] == "r5":
            raise SampleError("sample r5 (mix.json): a new rule")

    monkeypatch.setattr(examine_module, "read_sample", refuse)
    [finding] = look(clean).findings
    assert (finding.kind, finding.number, finding.detail) == ("refused", PLAIN, "a new rule")


# --- lengths, with a model


def test_a_record_that_is_too_long_is_told_with_its_length(clean: World, processor: Processor) -> None:
    lengths = look(clean, processor=processor).rows["length"]
    longest = int(lengths.max())
    report = look(clean, processor=processor, max_length=longest - 1)
    assert found(report) == [("too-long", int(lengths.argmax()))]
    assert report.findings[0].detail == f"{longest} tokens, at most {longest - 1}"
    assert found(look(clean, processor=processor, max_length=longest)) == []


def test_a_record_whose_answers_are_cut_off_is_free_of_labels(broken: World, processor: Processor) -> None:
    broken.turn(0)["value"] += " red" * 400
    broken.save()
    assert found(look(broken, processor=processor, max_length=400)) == [("label-free", PLAIN)]


def test_lengths_are_those_of_the_encoded_records(clean: World, processor: Processor) -> None:
    rows = look(clean, processor=processor).rows
    for number, record in enumerate(clean.records):
        sample = read_sample(record, source="", number=number, image_dir=clean.images)
        example = processor.encode(sample.conversation)
        assert rows["length"][number] == len(example.input_ids)
        assert rows["learnt"][number] == (example.labels[1:] >= 0).sum()


def test_a_model_without_eyes_is_told(clean: World, lm_dir: Path) -> None:
    blind = assemble(Parts(None, str(lm_dir)), dtype=torch.float32)[1]
    kinds = found(look(clean, processor=blind))
    assert {kind for kind, _ in kinds} == {"no-vision-tower"}
    assert len(kinds) == len(clean.records) - 2  # one is text only, one speaks of the word <image>


def test_what_a_template_cannot_express_is_told(clean: World, processor: Processor) -> None:
    plain = processor.with_template(find_template("plain"))
    kinds = dict.fromkeys(kind for kind, _ in found(look(clean, processor=plain)))
    assert list(kinds) == ["template-refuses"]


def test_a_special_token_of_this_very_model_is_told(broken: World, processor: Processor) -> None:
    word = str(processor.tokenizer.eos_token)
    broken.turn(1)["value"] = f"It is a {word} lamp."
    broken.save()
    assert found(look(broken, processor=processor)) == [("special-token", PLAIN)]


def test_the_limit_of_a_checkpoint_is_its_language_models(
    llava_dir: Path, lm_dir: Path, parts: Parts, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    save(tmp_path / "align", *assemble(parts, dtype=torch.float32), parts=parts)
    for folder in (llava_dir, lm_dir, tmp_path / "align"):
        model, _ = load(folder, dtype=torch.float32)
        assert load_processor(folder).max_positions == longest_sequence(model.language_model.config)


# --- across data


def write_eval(world: World, *records: dict, name: str = "eval.jsonl") -> Path:
    path = world.folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_an_image_of_an_evaluation_is_found_under_any_name(broken: World) -> None:
    shutil.copy(broken.images / "5.png", broken.images / "held_out.png")
    asked = write_eval(broken, {"question_id": 1, "image": "held_out.png", "text": "Is there a cow?"})
    assert found(look(broken, evals=(asked,))) == [("eval-image", PLAIN)]


def test_an_image_with_its_question_is_worse_than_the_image_alone(broken: World) -> None:
    (broken.folder / "held_out.png").write_bytes((broken.images / "5.png").read_bytes())  # beside the evaluation's file
    asked = write_eval(broken, {"question_id": 1, "image": "held_out.png", "text": "What is  number 5?"})
    report = look(broken, evals=(asked,))
    assert found(report) == [("eval-overlap", PLAIN)] and report.findings[0].is_error


def test_a_question_without_image_is_found_as_well(broken: World) -> None:
    asked = write_eval(broken, {"id": "e", "conversations": broken.records[TALK]["conversations"]})
    assert found(look(broken, evals=(asked,))) == [("eval-overlap", TALK)]


def test_other_images_of_an_evaluation_are_no_fault(broken: World) -> None:
    paint(1234).save(broken.images / "new.png")
    asked = write_eval(broken, {"question_id": 1, "image": "new.png", "text": "What is number 5?"})
    assert found(look(broken, evals=(asked,))) == []


def test_an_image_of_an_evaluation_that_is_not_there_is_told(broken: World) -> None:
    asked = write_eval(broken, {"question_id": 1, "image": "gone.png", "text": "What?"})
    [finding] = look(broken, evals=(asked,)).findings
    assert (finding.kind, finding.source, finding.number) == ("eval-image-missing", "eval.jsonl", 0)


def test_the_id_of_an_image_may_stand_for_several_conversations_about_it(broken: World) -> None:
    broken.records[PLAIN] |= {"id": "r0", "image": "0.png"}  # as LLaVA's own data has it
    broken.save()
    assert found(look(broken)) == []


def test_a_source_without_any_ids_is_no_fault(broken: World) -> None:
    for record in broken.records:
        del record["id"]
    broken.save()
    assert found(look(broken)) == []


# --- how it works


def test_an_image_is_looked_at_once_and_told_to_all_that_show_it(
    broken: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def count(image: object, name: str, **options: object) -> object:
        looked.append(name)
        return look_at(image, name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(examine_module, "look_at", count)
    for number in (8, 11, 12):
        broken.records[number]["image"] = "5.png"
    broken.save()
    (broken.images / "5.png").write_bytes(b"")
    assert found(look(broken)) == [("empty-image", number) for number in (5, 8, 11, 12)]
    assert looked.count("5.png") == 1


def test_several_processes_find_what_one_finds(
    broken: World, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("an error page", "an id twice"):
        apply(CORPUS[name][1], broken)
    alone = look(broken, processor=processor, full=True)
    monkeypatch.setattr(chunks, "_SMALL", 5)
    monkeypatch.setattr(chunks, "_CHUNK", 3)
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 2)
    together = look(broken, processor=processor, full=True)
    assert together.findings == alone.findings and len(alone.findings) == 2
    assert (together.rows == alone.rows).all()


questions = st.sampled_from(["What?", "<image>", "<image> What?", "<image> or <image>?", "<Image>", ""])
answers = st.sampled_from(["Yes", "Yes", "Yes", "", " "])
pairs = st.lists(st.tuples(questions, answers), max_size=2)
odd_turns = st.fixed_dictionaries(
    {},
    optional={
        "from": st.sampled_from(["human", "gpt", "system", "user", "bot", None]),
        "value": st.sampled_from(["<image>", "Yes", None, 7, [{"type": "text", "text": "Yes"}], [{"type": "image"}]]),
    },
)
some_images = st.sampled_from(
    ["a.png", ["a.png", "b.png"], [], None, "", 3, "../a.png", "http://x/a.png", [None], "/a"]
)


@st.composite
def some_records(draw: st.DrawFn) -> dict:
    """Draw a record that is nearly one."""
    said = [
        {"from": who, "value": text} for pair in draw(pairs) for who, text in zip(("human", "gpt"), pair, strict=True)
    ]
    if draw(st.integers(0, 3)) == 0:
        said.insert(draw(st.integers(0, len(said))), draw(st.one_of(odd_turns, st.just("x"))))
    record = {"conversations": said, "image": draw(some_images)}
    if draw(st.integers(0, 9)) == 0:
        record |= draw(st.sampled_from([{"images": "a.png"}, {"video": "v"}, {"messages": []}, {"conversations": "x"}]))
    return record


@settings(max_examples=500, deadline=None)
@given(record=some_records())
def test_the_doctor_refuses_what_training_refuses(record: dict) -> None:
    kinds = {kind for kind, _ in inspect_record(record, Path("images")).notes}
    errors = {kind for kind in kinds if FAULTS[kind].severity == "error"} - {"placeholder-in-answer"}
    try:
        read_sample(record, source="s", number=0, image_dir=Path("images"))
    except SampleError as error:
        assert errors, error
    else:
        assert not errors


# --- the command


def command(world: World, tmp_path: Path, *more: str) -> list[str]:
    return ["doctor", str(world.data), "--images", str(world.images), "--out", str(tmp_path / "out"), *more]


def test_clean_data_ends_with_0(
    clean: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llava(monkeypatch, *command(clean, tmp_path, "--strict")) == 0
    assert "Nothing found." in capsys.readouterr().out
    assert (tmp_path / "out" / BAD).read_text() == ""


def test_an_error_ends_with_1_and_is_listed(
    broken: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apply(CORPUS["half an emoji"][1], broken)
    assert llava(monkeypatch, *command(broken, tmp_path)) == 1
    [line] = (tmp_path / "out" / BAD).read_text().splitlines()
    assert json.loads(line) == {
        "source": "mix.json",
        "record": 5,
        "id": "r5",
        "kind": "lone-surrogate",
        "number": 303,
        "severity": "error",
        "reason": "turn 2: U+D83D after 'It is a lamp '",
        "remedy": FAULTS["lone-surrogate"].remedy,
    }
    assert "lone-surrogate" in capsys.readouterr().out
    assert "lone-surrogate" in (tmp_path / "out" / TEXT).read_text()


def test_warnings_end_with_1_only_where_they_count(
    broken: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apply(CORPUS["an HTML tag"][1], broken)
    assert llava(monkeypatch, *command(broken, tmp_path)) == 0
    assert "No errors, 1 warning" in capsys.readouterr().out
    assert llava(monkeypatch, *command(broken, tmp_path, "--strict")) == 1


def test_the_model_counts_tokens(
    clean: World, llava_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert llava(monkeypatch, *command(clean, tmp_path, "--model", str(llava_dir))) == 0
    assert "Lengths in tokens" in capsys.readouterr().out
    assert llava(monkeypatch, *command(clean, tmp_path, "--model", str(llava_dir), "--max-length", "60")) == 1
    assert "tokens, at most 60" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_clean_copy_is_clean_and_can_be_learnt_from(
    broken: World, tmp_path: Path, processor: Processor, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    apply(CORPUS["half an emoji"][1], broken)
    broken.records[8]["image"] = "gone.png"
    broken.records[9]["conversations"].pop()
    broken.save()
    target = tmp_path / f"clean{suffix}"
    assert llava(monkeypatch, *command(broken, tmp_path, "--clean", str(target))) == 1
    config = DataConfig(path=target, image_dir=broken.images)
    assert found_in(config, full=True) == []
    opened = InstructionDataset(config, processor, row_tokens=4096)
    assert [opened.sample(number).id for number in range(len(opened))] == [
        record["id"] for number, record in enumerate(broken.records) if number not in (5, 8, 9)
    ]
    report, sources = examine(config, Rules())
    assert [sources[0].record(n) for n in range(len(report.rows))] == [
        record for number, record in enumerate(broken.records) if number not in (5, 8, 9)
    ]


def test_a_clean_copy_of_an_archive_brings_its_images_along(broken: World, tmp_path: Path) -> None:
    (broken.images / "5.png").write_bytes(b"")
    for write in (write_table_of_images, write_shards):
        config, target = write(broken, tmp_path), tmp_path / "clean.jsonl"
        assert not visit(config, Rules(), out=tmp_path / "out", clean=target, console=Console(file=io.StringIO()))
        assert found_in(DataConfig(path=target), full=True) == []
        assert len(target.read_text().splitlines()) == len(plain_records(broken)) - 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("gone.json", "gone.json: no such data file"),
        ("{mix} --images gone", "--images gone: no such folder; name the one that the records' paths start from"),
        ("{mix} --model gone", "gone: not a checkpoint (no config.json)"),
        ("{mix} --clean copy.txt", "--clean copy.txt: name it .json or .jsonl"),
        ("{mix} --clean {mix}", "this is the data itself; name another file"),
        ("{mix} --reader gone.py:read", "reader='gone.py:read': no such file; write my_reader.py:function"),
        ("{mix} --eval gone.json", "gone.json: no such data file"),
        ("{mixture} --clean copy.json", "copies one source, and {mixture} lists 2; name one of them"),
        ("{mixture} --reader mine.py:read", "a mixture names readers and splits itself; write them there"),
        ("{table} --split test", "has no split 'test'"),
        ("{folder}", "holds no .parquet, .arrow or .tar file; name the data file itself"),
        ("{mix} --max-length 0", "max-length"),
        ("{mix} --max-length 9", "counts tokens, so it needs --model"),
        ("{mix} --ful", "--ful"),
        ("", "DATA"),
    ],
)
def test_a_misuse_ends_with_2_and_says_what_to_do(
    broken: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mixture(broken, tmp_path)
    places = {"mix": broken.data, "mixture": tmp_path / "mix.yaml", "folder": broken.images}
    if "table" in words:
        table = datasets.Dataset.from_list(plain_records(broken))
        datasets.DatasetDict(train=table).save_to_disk(tmp_path / "table")
        places["table"] = tmp_path / "table"
    capsys.readouterr()
    assert llava(monkeypatch, "doctor", *words.format(**places).split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert complaint.format(**places) in error
    assert len(error.strip().splitlines()) <= 5 and "Traceback" not in error


# --- the report


def printed(config: DataConfig, tmp_path: Path, width: int, **rules: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width)
    visit(config, Rules(**rules), out=tmp_path / "out", console=console)  # type: ignore[arg-type]
    return file.getvalue()


def test_the_report_says_what_where_and_the_remedy(broken: World, tmp_path: Path) -> None:
    broken.records[8]["image"] = "gone.png"
    broken.records[9]["image"] = "gone.png"
    apply(CORPUS["another suffix"][1], broken)
    text = printed(DataConfig(path=broken.data, image_dir=broken.images), tmp_path, 80)
    lines = [line.rstrip() for line in text.splitlines()]
    start = lines.index("Errors")
    assert lines[start + 1 : start + 7] == [
        "  2 missing-image",
        "    record 8 (r8): gone.png",
        "    -> put the file there, or drop the record",
        "  1 misnamed-image",
        "    record 5 (r5): 5.png; there is 5.jpg",
        "    -> write the name that exists",
    ]
    assert f"3 errors in 3 of {len(broken.records)} records." in lines


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_a_report_is_wider_than_the_terminal(broken: World, tmp_path: Path, width: int) -> None:
    for name in ("a sentence without end", "an error page", "an id twice", "half an emoji"):
        apply(CORPUS[name][1], broken)
    text = printed(write_mixture(broken, tmp_path), tmp_path, width)
    table = text.partition("Sources")[2].partition("Lengths")[0].strip().splitlines()
    assert len(table) == 4 and table[-1].startswith("all")
    lines = [line for line in text.splitlines() if not line.startswith("Every finding: ")]  # a path is left whole
    assert max(map(len, lines)) <= width


def test_large_numbers_stand_whole_in_a_narrow_table() -> None:
    rows = np.zeros(665_298, examine_module.ROW)
    rows["length"], rows["images"], rows["learnt"] = 12_345, 1, 2_345
    file = io.StringIO()
    Console(file=file, width=80).print(source_table(Report(["llava_v1_5_mix665k.json"], Rules(), rows)))
    assert "665,298   100%    0%    0.0  12,345  12,345  12,345     19%" in file.getvalue()


def test_the_histogram_counts_every_record(clean: World, tmp_path: Path) -> None:
    text = printed(DataConfig(path=clean.data, image_dir=clean.images), tmp_path, 80)
    bars = text.partition("Lengths in characters\n")[2].partition("\n\n")[0].splitlines()
    assert sum(int(bar.split()[-1].replace(",", "")) for bar in bars) == len(clean.records)


def test_a_wrong_image_folder_is_guessed_from_the_report(broken: World, tmp_path: Path) -> None:
    text = printed(DataConfig(path=broken.data, image_dir=tmp_path), tmp_path, 80)
    assert "do the records' paths start from --images?" in text
