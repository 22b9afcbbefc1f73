"""Every record is checked before the first step; only what might not fit is measured, and remembered."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from llava_lite.conversation.families import find_template
from llava_lite.conversation.message import Conversation
from llava_lite.data import chunks, plan
from llava_lite.data.mixture import DataConfig, Mixture, SourceConfig
from llava_lite.data.plan import make_plan
from llava_lite.data.records import SampleError
from llava_lite.images.transform import ImageTransform
from llava_lite.models.language_model import load_tokenizer
from llava_lite.processor import Processor, prepare_tokenizer


@pytest.fixture(scope="module")
def processor(lm_dir: Path, clip_dir: Path) -> Processor:
    tokenizer = load_tokenizer(str(lm_dir))
    bos = prepare_tokenizer(tokenizer, image=True)
    return Processor(tokenizer, find_template("vicuna_v1"), ImageTransform.from_tower(clip_dir, "pad"), 16, bos)


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Sixty records of growing length, every third with an image, and two that cannot be used."""
    PilImage.new("RGB", (9, 9)).save(tmp_path / "i.png")
    records = []
    for number in range(60):
        mark, image = ("<image>", {"image": "i.png"}) if number % 3 == 0 else ("", {})
        turns = [{"from": "human", "value": f"{mark}What?"}, {"from": "gpt", "value": "red " * (number + 1)}]
        records.append({"id": f"r{number}", **image, "conversations": turns})
    records[7]["conversations"].pop()
    records[9]["image"] = "gone.png"
    records[20]["conversations"].insert(0, {"from": "gpt", "value": "Hello"})
    (tmp_path / "mix.json").write_text(json.dumps(records))
    return DataConfig(sources=(SourceConfig(path=tmp_path / "mix.json", repeat=1.5),), cache_dir=tmp_path / "cache")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the path of large sources: several processes, remembered."""
    monkeypatch.setattr(chunks, "_SMALL", 20)
    monkeypatch.setattr(chunks, "_CHUNK", 7)


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is measured from now on."""
    measured: list[str] = []
    own = plan.measure

    def measure(sample, *others):  # type: ignore[no-untyped-def]
        measured.append(sample.id)
        return own(sample, *others)

    monkeypatch.setattr(plan, "measure", measure)
    return measured


def test_exact_lengths_are_those_of_the_encoded_samples(config: DataConfig, processor: Processor) -> None:
    mixture = Mixture(config)
    made = make_plan(mixture, processor, limit=200, exact=True)
    assert len(mixture) == 90
    for entry in range(90):
        if entry in made.bad:
            assert made.lengths[entry] == 0
        else:
            assert made.lengths[entry] == len(processor.encode(mixture.sample(entry).conversation).input_ids)


def test_what_is_sure_to_fit_is_not_measured_and_does_fit(
    config: DataConfig, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = Mixture(config)
    exact = make_plan(mixture, processor, limit=260, exact=True).lengths
    measured = forbid_measuring(monkeypatch)
    made = make_plan(mixture, processor, limit=260, exact=False)
    assert 0 < len(measured) < 58
    unknown = made.lengths < 0
    assert unknown.any() and (made.lengths[~unknown] == exact[~unknown]).all()
    assert (-made.lengths[unknown] >= exact[unknown]).all() and (-made.lengths[unknown] <= 260).all()


def test_bad_entries_and_notes_are_told_for_each_repetition(config: DataConfig, processor: Processor) -> None:
    mixture = Mixture(config)
    made = make_plan(mixture, processor, limit=999, exact=False)
    by_id = {why.split()[1] for why in made.bad.values()}
    assert by_id == {"r7", "r9"}
    assert {int(mixture.record_of[entry]) for entry in made.bad} == {7, 9}
    assert {int(mixture.record_of[entry]) for entry in made.notes} == {20}
    assert (made.lengths[list(made.bad)] == 0).all()


@pytest.mark.usefixtures("many")
def test_several_processes_find_what_one_finds(
    config: DataConfig, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 3)
    parallel = make_plan(Mixture(config), processor, limit=200, exact=True)
    monkeypatch.setattr(chunks, "_SMALL", 10**6)
    alone = make_plan(Mixture(config), processor, limit=200, exact=True)
    assert np.array_equal(parallel.lengths, alone.lengths)
    assert (parallel.bad, parallel.notes) == (alone.bad, alone.notes)


@pytest.mark.usefixtures("many")
def test_what_was_measured_is_remembered_by_content(
    config: DataConfig, processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 1)
    first = make_plan(Mixture(config), processor, limit=200, exact=True)
    measured = forbid_measuring(monkeypatch)
    again = make_plan(Mixture(config), processor, limit=200, exact=True)
    assert not measured and np.array_equal(first.lengths, again.lengths)
    assert (first.bad, first.notes) == (again.bad, again.notes)
    PilImage.new("RGB", (9, 9)).save(tmp_path / "gone.png")  # what was bad is looked at again
    assert {why.split()[1] for why in make_plan(Mixture(config), processor, limit=200, exact=True).bad.values()} == {
        "r7"
    }
    assert measured == ["r9"]
    path = tmp_path / "mix.json"
    path.write_text(path.read_text().replace("What?", "Which?"))
    make_plan(Mixture(config), processor, limit=200, exact=True)
    assert len(measured) == 60  # all but the one without an answer, anew
    make_plan(Mixture(config), processor.with_template(find_template("vicuna_v1")), limit=200, exact=True)
    assert len(measured) == 60


@pytest.mark.usefixtures("many")
def test_a_bound_that_no_longer_proves_anything_is_measured(
    config: DataConfig, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 1)
    loose = make_plan(Mixture(config), processor, limit=10_000, exact=False).lengths
    assert (loose <= 0).all()
    tight = make_plan(Mixture(config), processor, limit=220, exact=False).lengths
    assert ((tight > 0) == (loose < -220)).all()
    exact = make_plan(Mixture(config), processor, limit=220, exact=True).lengths
    assert (exact[tight > 0] == tight[tight > 0]).all() and (exact >= 0).all()


@pytest.mark.usefixtures("many")
def test_a_folder_of_images_that_is_gone_is_noticed_although_lengths_are_remembered(
    config: DataConfig, processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 1)
    assert len(make_plan(Mixture(config), processor, limit=200, exact=True).bad) == 3
    (tmp_path / "i.png").rename(tmp_path / "elsewhere.png")
    bad = make_plan(Mixture(config), processor, limit=200, exact=True).bad
    assert {why.split()[1] for why in bad.values()} == {"r7", *(f"r{number}" for number in range(0, 60, 3))}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_cache_is_measured_anew(
    config: DataConfig, processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    monkeypatch.setattr(chunks.os, "cpu_count", lambda: 1)
    first = make_plan(Mixture(config), processor, limit=200, exact=True)
    [memory] = (tmp_path / "cache").iterdir()
    memory.write_bytes(memory.read_bytes()[:keep])
    assert np.array_equal(make_plan(Mixture(config), processor, limit=200, exact=True).lengths, first.lengths)


@pytest.mark.usefixtures("many")
def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(
    config: DataConfig, processor: Processor, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SampleError, match=r"^data\.cache_dir=.*cache: cannot be written .*; set another"):
        make_plan(Mixture(config), processor, limit=220, exact=True)


words = st.lists(
    st.sampled_from(["a", " ", "red", "\n", "</s>", "<image>", "<s>", "é", "1", "<unk>", "  "]), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(turns=st.lists(words.map("".join), min_size=2, max_size=4), num_images=st.integers(0, 2))
def test_a_count_is_the_length_and_a_bound_is_never_exceeded(
    processor: Processor, turns: list[str], num_images: int
) -> None:
    conversation = Conversation(system="")
    for number, text in enumerate(turns):
        images = [PilImage.new("RGB", (5, 5))] * num_images if number == 0 else []
        conversation = conversation.answer(text) if number % 2 else conversation.ask(text, images)
    assert processor.num_tokens(conversation) == processor.length(conversation)[0] <= processor.bound(conversation)
