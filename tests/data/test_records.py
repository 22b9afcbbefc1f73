"""Containers of records: each fetches any record by its number, and says where it is broken."""

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from llava_lite.data import records
from llava_lite.data.records import JsonRecords, SampleError, open_records
from llava_lite.data.shards import ShardRecords
from llava_lite.data.tables import TableRecords
from llava_lite.images.loading import FileSlice, load_image


def write(tmp_path: Path, text: str, name: str = "mix.json") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read_records(path: Path) -> list[dict]:
    opened = open_records(str(path))
    return [opened[number] for number in range(len(opened))]


def png(color: str) -> bytes:
    file = io.BytesIO()
    PilImage.new("RGB", (4, 3), color).save(file, "PNG")
    return file.getvalue()


def test_records_are_read_from_a_list_and_from_lines(tmp_path: Path) -> None:
    records = [{"id": "a"}, {"id": "b"}]
    assert read_records(write(tmp_path, json.dumps(records))) == records
    lines = "\n".join(map(json.dumps, records))
    assert read_records(write(tmp_path, f"{lines}\n\n", "mix.jsonl")) == records


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    assert read_records(write(tmp_path, '\ufeff[{"id": "a"}]')) == [{"id": "a"}]
    (tmp_path / "mix.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a"}\r\n{"id": "b"}\r\n')
    assert read_records(tmp_path / "mix.jsonl") == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_inside_a_string_does_not_end_a_line(tmp_path: Path, letter: str) -> None:
    record = {"id": f"a{letter}b"}
    assert read_records(write(tmp_path, json.dumps(record, ensure_ascii=False), "mix.jsonl")) == [record]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("mix.json", '[{"id": 1},\n {"id" 2}]', "broken JSON at line 2, column 8: Expecting ':' delimiter"),
        ("mix.json", '{"id": 1}\n{"id": 2}', r"holds no list; write a list of records, or name it \.jsonl"),
        ("mix.json", '[{"id": 1}]\n[{"id": 2}]', r"broken JSON at line 2, column 1: more after the end of the list"),
        ("mix.json", '[{"id": 1}, {"id": 2', "broken JSON at line 1, column 21: Expecting"),
        ("mix.json", '[{"id": 1} {"id": 2}]', "broken JSON at line 1, column 12: a comma or the end of the list"),
        ("mix.json", '[{"id": 1},]', "broken JSON at line 1, column 12: a comma before the end"),
        ("mix.json", '[{"id": 1}', "broken JSON at line 1, column 11: a comma or the end of the list"),
        ("mix.json", "", "the file is empty"),
        ("mix.jsonl", '{"id": 1}\n\n{"id" 2}\n', "broken JSON at line 3, column 7: Expecting ':' delimiter"),
        ("mix.json", '{"id": 1}', "holds no list; write a list of records"),
        ("mix.json", '[{"id": 1}, "two"]', "record 1 is not an object but str"),
        ("mix.jsonl", '{"id": 1}\n[2]', "record 1 is not an object but list"),
        ("mix.json", "[]", "holds no record"),
        ("mix.jsonl", "\n", "holds no record"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = write(tmp_path, text, name)
    with pytest.raises(SampleError, match=rf"^{path}: {complaint}"):
        read_records(path)


def test_a_missing_file_is_named_with_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "[]", "mix665k.json")
    with pytest.raises(SampleError, match=r"mix\.json: no such data file; beside it: mix665k\.json"):
        read_records(tmp_path / "mix.json")
    with pytest.raises(SampleError, match=r"gone/mix\.json: no such data file$"):
        read_records(tmp_path / "gone" / "mix.json")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_bytes(b"PK\x03\x04\xff\xff")
    with pytest.raises(SampleError, match=r"mix\.json: holds no list"):
        read_records(tmp_path / "mix.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    written=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=8),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3]),
    window=st.sampled_from([2, 7, 64, 2**26]),
)
def test_any_list_of_records_is_read_back_through_windows_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict], ascii_only: bool, indent: int | None, window: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "mix.json"
    text = json.dumps(written, ensure_ascii=ascii_only, indent=indent)
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_WINDOW", window)
        assert read_records(path) == json.loads(text)


def outcome(path: Path) -> list[dict] | str:
    """What a file's records are, or what is said of them."""
    try:
        return read_records(path)
    except SampleError as error:
        return str(error)


bait = st.sampled_from(["]}, {", "]},{", ']}, {"', "[]", "}", '"', "\\", "]"])
looks_like_records = st.dictionaries(
    st.sampled_from(["id", "conversations"]),
    bait | st.lists(bait | st.dictionaries(bait | st.just("id"), st.lists(bait, max_size=2), max_size=2), max_size=3),
    max_size=2,
)


@settings(max_examples=200, deadline=None)
@given(
    written=st.lists(looks_like_records, min_size=1, max_size=12),
    part=st.sampled_from([1, 10, 50, 200]),
    damage=st.none() | st.tuples(st.integers(0, 2000), st.sampled_from(["", "]", "}", ",", '"', "]}, {"])),
)
def test_a_list_walked_in_parts_is_what_it_is_in_one_walk(
    tmp_path_factory: pytest.TempPathFactory, written: list[dict], part: int, damage: tuple[int, str] | None
) -> None:
    text = json.dumps(written)
    if damage:
        place = damage[0] % len(text)
        text = text[:place] + damage[1] + text[place + 1 :]
    path = write(tmp_path_factory.mktemp("json"), text)
    whole = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_WORTH_PARTS", 0)
        patch.setattr(records, "_PART", part)
        patch.setattr("os.cpu_count", lambda: 1)
        assert outcome(path) == whole


def test_a_large_list_is_walked_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]
    path = write(tmp_path, json.dumps([{"id": number, "conversations": turns} for number in range(500)], indent=1))
    monkeypatch.setattr(records, "_WORTH_PARTS", 0)
    monkeypatch.setattr(records, "_PART", path.stat().st_size // 20)
    walked = list[int]()
    whole = JsonRecords._items
    monkeypatch.setattr(JsonRecords, "_items", lambda self, *at: walked.append(1) or whole(self, *at))
    assert [record["id"] for record in read_records(path)] == list(range(500))
    assert not walked  # not in this process


def test_a_broken_record_among_lines_leaves_the_others_readable(tmp_path: Path) -> None:
    opened = open_records(str(write(tmp_path, '{"id": 1}\n{"id": \n{"id": 3}\n', "mix.jsonl")))
    assert (opened[0], opened[2]) == ({"id": 1}, {"id": 3})
    with pytest.raises(SampleError, match=r"mix\.jsonl: broken JSON at line 2, column 8"):
        opened[1]


def test_text_that_is_not_utf8_is_named_by_its_record(tmp_path: Path) -> None:
    path = tmp_path / "mix.json"
    path.write_bytes(b'[{"id": 1}, {"id": "caf\xe9"}]')
    opened = open_records(str(path))
    with pytest.raises(SampleError, match=r"mix\.json: record 1 is not UTF-8"):
        opened[1]


def test_a_deep_nest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="nested too deeply"):
        open_records(str(write(tmp_path, "[" + "[" * 100_000)))


ROWS = [
    {"id": "a", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "red"}]},
    {"id": "b", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "blue"}]},
]


@pytest.fixture
def table() -> datasets.Dataset:
    """Two records, their images stored in the table."""
    rows = [
        {**row, "image": {"bytes": png(color), "path": None}} for row, color in zip(ROWS, ["red", "blue"], strict=True)
    ]
    table = datasets.Dataset.from_list(rows)
    return table.cast_column("image", datasets.Image())


def write_table(table: datasets.Dataset, tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    if kind == "save_to_disk":
        table.save_to_disk(folder)
    elif kind == "dataset_dict":
        datasets.DatasetDict(train=table, test=table).save_to_disk(folder)
    elif kind == "hub layout":
        (folder / "data").mkdir(parents=True)
        table.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    else:
        folder.mkdir()
        table.to_parquet(folder / "rows.parquet")
        return folder / "rows.parquet"
    return folder


@pytest.mark.parametrize("kind", ["save_to_disk", "dataset_dict", "hub layout", "parquet file"])
def test_tables_give_their_rows_and_undecoded_images(tmp_path: Path, table: datasets.Dataset, kind: str) -> None:
    opened = open_records(str(write_table(table, tmp_path, kind)))
    assert [opened[i]["conversations"] for i in range(len(opened))] == [row["conversations"] for row in ROWS]
    assert [opened[i]["image"] for i in range(2)] == [png("red"), png("blue")]


def test_a_column_of_several_images_is_read(tmp_path: Path) -> None:
    images = datasets.List(datasets.Image())
    features = datasets.Features({"id": datasets.Value("string"), "images": images})
    table = datasets.Dataset.from_list([{"id": "a", "images": [png("red"), png("blue")]}], features=features)
    table.save_to_disk(tmp_path / "table")
    assert open_records(str(tmp_path / "table"))[0]["images"] == [png("red"), png("blue")]


def test_a_file_that_is_replaced_is_still_read_as_it_was_indexed(tmp_path: Path) -> None:
    path = write(tmp_path, '[{"id": "a"}, {"id": "b"}]')
    opened = open_records(str(path))
    assert opened[0] == {"id": "a"}
    write(tmp_path, '[{"id": "another"}]', "new.json").replace(path)
    assert opened[1] == {"id": "b"}


def test_records_can_be_sent_to_another_process(tmp_path: Path) -> None:
    opened = open_records(str(write(tmp_path, '[{"id": "a"}, {"id": "b"}]')))
    assert opened[0] == pickle.loads(pickle.dumps(opened))[0] == {"id": "a"}


def test_a_row_without_images_says_nothing_of_images() -> None:
    features = datasets.Features({"id": datasets.Value("string"), "images": datasets.List(datasets.Image())})
    table = datasets.Dataset.from_list([{"id": "a", "images": []}], features=features)
    assert TableRecords("rows", table, "")[0] == {"id": "a"}


def test_an_image_column_of_paths_gives_the_paths() -> None:
    table = datasets.Dataset.from_list([{"id": "a", "image": "red.png"}]).cast_column("image", datasets.Image())
    assert TableRecords("rows", table, "")[0]["image"] == "red.png"


def test_a_split_that_is_not_there_is_named_with_those_there_are(tmp_path: Path, table: datasets.Dataset) -> None:
    folder = write_table(table, tmp_path, "dataset_dict")
    with pytest.raises(SampleError, match=r"has no split 'val'; choose one of train, test"):
        open_records(str(folder), split="val")


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"holds no \.parquet, \.arrow or \.tar file"):
        open_records(str(tmp_path))


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_shards_give_records_with_their_images(tmp_path: Path) -> None:
    record = {"conversations": ROWS[0]["conversations"], "image": "elsewhere.png"}
    write_shard(tmp_path / "0.tar", {"a/1.png": png("red"), "a/1.json": json.dumps(record).encode()})
    write_shard(
        tmp_path / "1.tar",
        {"b.txt": b" a blue square\n", "b.0.png": png("blue"), "b.1.PNG": png("red"), "b.seg": b"?"},
    )
    opened = open_records(str(tmp_path))
    assert [opened[i]["id"] for i in range(len(opened))] == ["a/1", "b"]
    assert opened[0]["conversations"] == ROWS[0]["conversations"]
    assert all(isinstance(image, FileSlice) for image in opened[0]["image"])
    assert [load_image(image).getpixel((0, 0)) for image in opened[1]["image"]] == [(0, 0, 255), (255, 0, 0)]
    assert opened[1]["conversations"][1]["value"] == "a blue square"


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"a.png": b""}, "a has neither a .json nor a .txt member"),
        ({"a.json": b"{"}, "a.json is broken"),
        ({"a.json": b"[]"}, "a.json is not an object but list"),
        ({"a.txt": b"\xff"}, "a.txt is broken"),
    ],
)
def test_a_broken_member_is_named(tmp_path: Path, members: dict[str, bytes], complaint: str) -> None:
    opened = open_records(str(write_shard(tmp_path / "0.tar", members)))
    with pytest.raises(SampleError, match=complaint):
        opened[0]


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.tar", {"a.json": b"{}", "b.json": b"{}"})
    whole = path.read_bytes()
    for size in (100, 1024, 1100, 1536, 1600):
        path.write_bytes(whole[:size])
        with pytest.raises(SampleError, match=r"0\.tar: not a whole tar file"):
            open_records(str(path))


def test_content_decides_the_hash(tmp_path: Path) -> None:
    hashes = []
    for text in ('[{"id": 1}]', '[{"id": 2}]', '[{"id": 1}]'):
        hashes.append(open_records(str(write(tmp_path, text))).content_hash)
    assert hashes[0] == hashes[2] != hashes[1]
    shard = write_shard(tmp_path / "0.tar", {"a.json": b"{}"})
    assert isinstance(open_records(str(shard)), ShardRecords)


@pytest.mark.parametrize("name", ["mix.json", "mix.jsonl"])
def test_an_integer_too_long_to_read_is_named_by_its_place(tmp_path: Path, name: str) -> None:
    text = f'{{"id": {"1" * 5000}}}'
    path = write(tmp_path, f'{{"id": 1}}\n{text}\n' if name == "mix.jsonl" else f'[{{"id": 1}},\n{text}]', name)
    with pytest.raises(SampleError, match=r"mix\.jsonl?: broken JSON at line 2, column 1: an integer of more than"):
        read_records(path)


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["mix.json", "mix.jsonl"])
def test_utf16_is_called_by_its_name(tmp_path: Path, mark: str, name: str) -> None:
    (tmp_path / name).write_bytes('\ufeff[{"id": "a"}]'.encode(mark))
    with pytest.raises(SampleError, match=r"saved as UTF-16; save it as UTF-8$"):
        open_records(str(tmp_path / name))


@pytest.mark.parametrize("name", ["mix.jsonl", "0.tar"])
def test_a_file_that_vanishes_during_the_run_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "0.tar":
        write_shard(path, {"a.json": b"{}"})
    else:
        path.write_text('{"id": 1}\n')
    opened = open_records(str(path))
    path.unlink()
    with pytest.raises(SampleError, match=rf"^{path}: cannot be read \(No such file"):
        opened[0]
    with pytest.raises(SampleError, match=rf"^{path}: cannot be read \(No such file"):
        assert opened.content_hash


def test_keys_of_shards_may_be_in_any_script(tmp_path: Path) -> None:
    opened = open_records(str(write_shard(tmp_path / "0.tar", {"b\u00e9/\u732b.json": b"{}", "a.json": b"{}"})))
    assert [opened[i]["id"] for i in range(2)] == ["b\u00e9/\u732b", "a"]


def test_a_key_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        info = tarfile.TarInfo("caf\u00e9.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    assert open_records(str(tmp_path / "0.tar"))[0]["id"] == r"caf\xe9"


TURNS = json.dumps({"conversations": ROWS[1]["conversations"]}).encode()


@pytest.mark.parametrize("order", [("png", "txt", "json"), ("json", "txt", "png"), ("txt", "png", "json")])
@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"json": TURNS, "txt": b"a caption"}, "blue"),
        ({"json": b'{"key": "7", "id": "other", "caption": "?"}', "txt": b"a caption"}, "a caption"),
        ({"txt": b"a caption", "json": b'{"conversations": null}'}, "a caption"),
    ],
)
def test_names_and_not_their_order_say_what_a_record_of_a_shard_is(
    tmp_path: Path, order: tuple[str, ...], members: dict[str, bytes], answer: str
) -> None:
    members = {**members, "png": png("red")}
    path = write_shard(tmp_path / "0.tar", {f"a.{suffix}": members[suffix] for suffix in order})
    record = open_records(str(path))[0]
    assert (record["id"], record["conversations"][1]["value"], len(record["image"])) == ("a", answer, 1)


def test_a_json_beside_the_record_is_not_the_record(tmp_path: Path) -> None:
    members = {"a.meta.json": b'{"id": "wrong"}', "a.png": png("red"), "a.json": TURNS}
    assert open_records(str(write_shard(tmp_path / "0.tar", members)))[0]["id"] == "a"
    members = {"a.meta.json": b"{}", "a.note.txt": b"?", "a.png": png("red")}
    with pytest.raises(SampleError, match=r"a has neither a \.json nor a \.txt member"):
        open_records(str(write_shard(tmp_path / "0.tar", members)))[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [(b"[" * 100_000, "nested too deeply"), (b'{"id": ' + b"1" * 5000 + b"}", "Exceeds the limit")],
)
def test_json_in_a_shard_that_python_refuses_is_named(tmp_path: Path, text: bytes, complaint: str) -> None:
    opened = open_records(str(write_shard(tmp_path / "0.tar", {"a.json": text})))
    with pytest.raises(SampleError, match=rf"0\.tar: a\.json is broken \({complaint}"):
        opened[0]


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz", "0.TGZ", "0.tar"])
def test_a_compressed_shard_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    path = write_shard(tmp_path / name, {"a.json": b"{}"})
    path.write_bytes(gzip.compress(path.read_bytes()))
    for place in (path, tmp_path):
        with pytest.raises(SampleError, match=rf"^{path}: a compressed tar cannot be read in place; unpack it with"):
            open_records(str(place))


def test_a_shard_in_capitals_is_a_shard(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "0.TAR", {"a.json": b"{}"})
    assert [len(open_records(str(place))) for place in (path, tmp_path)] == [1, 1]


@pytest.fixture
def subsets(tmp_path: Path) -> Path:
    """A folder whose card names two data sets."""
    for name in ("one", "two"):
        datasets.Dataset.from_list([{"id": name}]).to_parquet(tmp_path / f"{name}.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.parquet\n" for name in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return tmp_path


def test_a_subset_is_chosen_by_its_name(subsets: Path) -> None:
    assert [open_records(str(subsets), subset=name)[0]["id"] for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize(
    ("subset", "complaint"),
    [(None, "holds several data sets; choose one of one, two with `subset`$"), ("x", "has no subset 'x'; choose one")],
)
def test_subsets_are_named_where_one_must_be_chosen(subsets: Path, subset: str | None, complaint: str) -> None:
    with pytest.raises(SampleError, match=rf"^{subsets}: {complaint}"):
        open_records(str(subsets), subset=subset)


def test_a_file_has_no_subsets(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"mix\.json: holds one data set and no subsets; leave `subset` out"):
        open_records(str(write(tmp_path, '[{"id": 1}]')), subset="one")


def test_a_wrong_subset_of_the_hub_is_not_taken_for_a_lack_of_network(
    subsets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(subsets.parent)  # `datasets` takes a folder of this name for the data set
    with pytest.raises(SampleError, match="holds several data sets; choose one of one, two"):
        TableRecords.from_hub(f"{subsets.name}", "train", None)


def damage(folder: Path, how: str) -> None:
    (arrow,) = folder.glob("*.arrow")
    if how == "cut":
        arrow.write_bytes(arrow.read_bytes()[:50])
    elif how == "missing":
        arrow.unlink()
    else:
        (folder / "state.json").write_text("{}")


@pytest.mark.parametrize("how", ["cut", "missing", "state"])
def test_a_damaged_saved_data_set_is_named(tmp_path: Path, table: datasets.Dataset, how: str) -> None:
    folder = write_table(table, tmp_path, "save_to_disk")
    damage(folder, how)
    with pytest.raises(SampleError, match=rf"^{folder}: cannot be read as a saved data set \(.+; save it anew"):
        open_records(str(folder))


@pytest.mark.parametrize("card", ["configs: [", "configs: 3"])
def test_a_broken_card_is_named(tmp_path: Path, table: datasets.Dataset, card: str) -> None:
    table.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(SampleError, match=rf"^{tmp_path}: cannot be read as a table"):
        open_records(str(tmp_path))


def test_a_file_name_is_no_pattern(tmp_path: Path, table: datasets.Dataset) -> None:
    table.to_parquet(tmp_path / "m[1].parquet")
    assert len(open_records(str(tmp_path / "m[1].parquet"))) == 2
    folder = tmp_path / "part[1]"
    folder.mkdir()
    table.to_parquet(folder / "rows.parquet")
    with pytest.raises(SampleError, match=r"part\[1\]: cannot be read as a table .*; rename the folder"):
        open_records(str(folder))


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, table: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(table, tmp_path, "parquet file")
    (tmp_path / "blocked").write_text("")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "blocked" / "datasets"))
    for place in (path, path.parent):
        with pytest.raises(SampleError, match=r"blocked.*: the cache of data sets cannot be written .*; set HF_HOME"):
            open_records(str(place))


def test_turns_stored_as_lists_by_key_are_turns() -> None:
    turns = {"from": ["human", "gpt"], "value": ["<image>", "red"]}
    parts = {"role": ["user"], "content": [{"type": ["image", "text"], "text": [None, "What?"]}]}
    table = datasets.Dataset.from_dict({"conversations": [turns], "messages": [parts], "boxes": [{"x": [1, 2]}]})
    record = TableRecords("rows", table, "")[0]
    assert record["conversations"] == ROWS[0]["conversations"]
    assert record["messages"] == [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert record["boxes"] == {"x": [1, 2]}


def test_turns_stored_as_lists_of_different_lengths_are_refused() -> None:
    table = datasets.Dataset.from_dict({"conversations": [{"from": ["human", "gpt"], "value": ["<image>"]}]})
    with pytest.raises(SampleError, match=r"rows: record 0: `conversations` has lists of different lengths"):
        TableRecords("rows", table, "")[0]


@pytest.mark.parametrize("image", [None, datasets.Image(), datasets.Image(decode=False)])
@pytest.mark.parametrize("kind", [datasets.List, datasets.LargeList])
def test_images_inside_of_messages_are_bytes_or_paths(image: datasets.Image | None, kind: type) -> None:
    text = datasets.Value("string")
    image = image or {"bytes": datasets.Value("binary"), "path": text}
    turn = {"role": text, "content": kind({"type": text, "text": text, "image": image})}
    written = [
        {"type": "image", "image": {"bytes": b"not decoded", "path": "x.png"}},
        {"type": "image", "image": {"bytes": None, "path": "red.png"}},
        {"type": "text", "text": "What?"},
    ]
    filled = [{"type": None, "text": None, "image": None} | part for part in written]
    features = datasets.Features({"messages": kind(turn)})
    table = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": filled}]}], features=features)
    (message,) = TableRecords("rows", table, "")[0]["messages"]
    images = [{"type": "image", "image": b"not decoded"}, {"type": "image", "image": "red.png"}]
    assert message == {"role": "user", "content": [*images, {"type": "text", "text": "What?"}]}


def test_json_columns_of_a_table_are_decoded() -> None:
    rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "text"}]}]}]
    table = datasets.Dataset.from_list(rows, on_mixed_types="use_json")
    assert TableRecords("rows", table, "")[0] == rows[0]


def test_files_full_of_images_are_told_apart_by_size_beginning_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_END", 3)
    path, hashes = tmp_path / "0.tar", []
    for content in (b"abcdefghi", b"abcdefghj", b"Abcdefghi", b"abcdefghii", b"abcdEfghi", b"abcd", b"abce"):
        path.write_bytes(content)
        hashes.append(records.hash_files([path], ends=True))
    assert hashes[4] == hashes[0] and len(set(hashes)) == 6
    assert records.hash_files([path]) == records.hash_files([path], ends=True)
