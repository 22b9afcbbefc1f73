"""Benchmarks in parquet: where they lie, what is read, and the pictures in them."""

import io
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from llava_lite.evaluation.files import EvaluationError
from llava_lite.evaluation.tables import find_parquet, read_parquet
from llava_lite.images.loading import FileSlice, load_image

FEATURES = datasets.Features(
    {"id": datasets.Value("int64"), "image": datasets.Image(), "more": datasets.Sequence(datasets.Image())}
)


def png(shade: int) -> dict[str, object]:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{shade}.png"}


def write_parquet(folder: Path, *, num_rows: int = 7, num_files: int = 2) -> list[Path]:
    """Rows whose picture has the shade 10 * (id % 3), none for id 4, and id % 3 further pictures of shades 1, 2."""
    folder.mkdir(parents=True)
    rows = [
        {"id": i, "image": None if i == 4 else png(10 * (i % 3)), "more": [png(j + 1) for j in range(i % 3)]}
        for i in range(num_rows)
    ]
    table = datasets.Dataset.from_list(rows, features=FEATURES)
    for number in range(num_files):
        table.shard(num_files, number, contiguous=True).to_parquet(
            folder / f"test-{number:05}-of-{num_files:05}.parquet"
        )
    return sorted(folder.glob("*.parquet"))


def shade(source: object) -> int:
    return load_image(source).getpixel((0, 0))[0]


def test_rows_and_pictures_of_all_files_come_in_order(tmp_path: Path) -> None:
    rows = read_parquet(write_parquet(tmp_path / "data"), {"id": int}, images=["image", "more"])
    assert [row["id"] for row in rows] == list(range(7))
    assert [None if row["image"] is None else shade(row["image"]) for row in rows] == [0, 10, 20, 0, None, 20, 0]
    assert [[shade(picture) for picture in row["more"]] for row in rows] == [[], [1], [1, 2]] * 2 + [[]]


def test_equal_pictures_are_one(tmp_path: Path) -> None:
    rows = read_parquet(write_parquet(tmp_path / "data"), {"id": int}, images=["image"])
    pictures = {row["image"] for row in rows if row["image"] is not None}
    assert len(pictures) == 3 and all(isinstance(picture, FileSlice) for picture in pictures)


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_pictures_may_be_bare_bytes(tmp_path: Path, kind: str) -> None:
    rows = {"id": [0, 1, 2], "image": [png(7)["bytes"], None, png(9)["bytes"]]}
    features = datasets.Features({"id": datasets.Value("int64"), "image": datasets.Value(kind)})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "pixels.parquet")
    read = read_parquet([tmp_path / "pixels.parquet"], {"id": int}, images=["image"])
    assert [None if row["image"] is None else shade(row["image"]) for row in read] == [7, None, 9]


def test_columns_not_asked_for_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = []
    from_parquet = datasets.Dataset.from_parquet

    def spy(*args: object, **options: object) -> datasets.Dataset:
        copied.append(from_parquet(*args, **options))
        return copied[0]

    monkeypatch.setattr(datasets.Dataset, "from_parquet", spy)
    rows = read_parquet(write_parquet(tmp_path / "data"), {"id": int})
    assert rows == [{"id": number} for number in range(7)] and copied[0].column_names == ["id"]


@pytest.mark.parametrize("place", ["Pixels/data", "Pixels", "pixels/data", "data", "."])
def test_a_split_is_found_where_people_put_it(tmp_path: Path, place: str) -> None:
    files = [tmp_path / place / f"test-{number}.parquet" for number in range(2)]
    for file in [*files, tmp_path / place / "train-0.parquet"]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert find_parquet(tmp_path, ["Pixels", "pixels"], "test") == files
    assert find_parquet(tmp_path, ["Pixels", "pixels"], "validation") == []


def test_a_config_is_a_folder_of_its_own(tmp_path: Path) -> None:
    for place in ("Pixels/red", "Pixels/data"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "test.parquet").touch()
    assert find_parquet(tmp_path, ["Pixels"], "test", "red") == [tmp_path / "Pixels/red/test.parquet"]


def test_a_missing_column_and_a_broken_file_are_named(tmp_path: Path) -> None:
    paths = write_parquet(tmp_path / "data")
    with pytest.raises(EvaluationError, match="no column answer among id, image, more"):
        read_parquet(paths, {"answer": str})
    with pytest.raises(EvaluationError, match=r"row 0: needs 'id' \(str\)"):
        read_parquet(paths, {"id": str})
    paths[0].write_bytes(b"PAR1 cut off")
    with pytest.raises(EvaluationError, match=r"test-00000-of-00002.parquet: cannot be read"):
        read_parquet(paths, {"id": int})


def test_a_column_of_nothing_has_no_pictures(tmp_path: Path) -> None:
    rows = read_parquet(write_raw(tmp_path, pyarrow.nulls(2)), {"id": int}, images=["image"])
    assert [row["image"] for row in rows] == [None, None]


def test_a_list_that_is_not_there_is_empty(tmp_path: Path) -> None:
    pictures = pyarrow.array([None, [png(7)["bytes"]]], pyarrow.list_(pyarrow.binary()))
    rows = read_parquet(write_raw(tmp_path, pictures), {"id": int}, images=["image"])
    assert [[shade(picture) for picture in row["image"]] for row in rows] == [[], [7]]


@pytest.mark.parametrize("column", [["a.png", "b.png"], [1, 2], [{"path": "a.png"}, {"path": "b.png"}]])
def test_a_column_that_is_no_pictures_is_named(tmp_path: Path, column: list[object]) -> None:
    with pytest.raises(EvaluationError, match="column image has no pictures"):
        read_parquet(write_raw(tmp_path, pyarrow.array(column)), {"id": int}, images=["image"])


def write_raw(folder: Path, pictures: pyarrow.Array) -> list[Path]:
    """A file without the notes of `datasets`, as other programs write them."""
    path = folder / "test.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [0, 1], "image": pictures}), path)
    return [path]
