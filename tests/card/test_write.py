"""A card says what training and evaluation wrote down, of this very model; what people wrote stays."""

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from llava_lite.card.stages import CardError
from llava_lite.card.write import write_card
from llava_lite.checkpoint.merge import merge_checkpoint
from llava_lite.checkpoint.parts import CheckpointError
from tests.card.conftest import train
from tests.checkpoint.test_hub import write_cache
from tests.test_cli import llava


def card(model: Path, **options: object) -> str:
    write_card(model, **options)  # type: ignore[arg-type]
    return (model / "README.md").read_text()


def cells(text: str, first: str) -> list[str]:
    """The cells of the table's row that begins with these words."""
    [row] = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def test_the_front_matter_is_the_hubs(home: Path) -> None:
    options = {"scores": [home / "eval" / "shapes"], "license": "apache-2.0", "name": "kitchen-7b"}
    card(home / "finetune", **options, base_models=["lmsys/vicuna-7b-v1.5"])
    data = ModelCard.load(home / "finetune" / "README.md").data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-text-to-text")
    assert (data.license, data.model_name) == ("apache-2.0", "kitchen-7b")
    assert (data.base_model, data.base_model_relation) == (["lmsys/vicuna-7b-v1.5"], "finetune")
    [result] = data.eval_results
    scores = json.loads((home / "eval" / "shapes" / "scores.json").read_text())
    assert (result.dataset_type, result.metric_type) == ("shapes", "accuracy")
    assert result.metric_value == scores["modes"]["normal"]["figures"]["accuracy"]


def test_the_text_tells_the_parts_by_their_sizes(home: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(home / "finetune")
    parts = {"vision tower": model.model.vision_tower, "projector": model.model.multi_modal_projector, "in all": model}
    text = card(home / "finetune")
    for name, part in parts.items():
        assert cells(text, name)[2] == f"{sum(weight.numel() for weight in part.parameters()):,}"
    assert "2 layers of 32, pictures of 32 pixels in patches of 8" in cells(text, "vision tower")[1]  # as it runs


def test_both_stages_stand_side_by_side_with_their_data_and_what_these_lost(home: Path) -> None:
    text = card(home / "finetune")
    assert "1. **align** taught the projector, starting from the vision tower" in text
    assert "2. **finetune** taught the projector and the language model, starting from the checkpoint **align**" in text
    assert cells(text, "samples of the data")[2] == "38" and cells(text, "steps") == ["steps", "3", "3"]
    assert cells(text, "samples seen") == ["samples seen", "12", "12"]
    for cell in cells(text, "hardware")[1:]:
        assert re.fullmatch(r"1 x CPU \(\w+\), float32, torch [\w.+]+", cell)
    assert cells(text, "`optim.lr`")[1:] == ["2e-05", "2e-05"] and cells(text, "`max_steps`")[1:] == ["3", "3"]
    lost = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("| finetune |")]
    bad, cut = ([cell.strip() for cell in row[1:-1]] for row in lost if "record" in row[2] or "cut" in row[2])
    assert bad[1:3] == ["bad record: could not be used", "1"] and "gone.png" in bad[3]
    assert cut[2] == "1" and "tokens do not fit in 512" in cut[3]


def test_scores_stand_with_intervals_modes_gain_and_where_they_come_from(home: Path) -> None:
    scores = json.loads((home / "eval" / "shapes" / "scores.json").read_text())
    text = card(home / "finetune", scores=[home / "eval" / "shapes"])
    row = cells(text, "shapes | accuracy")
    for cell, mode in zip(row[2:5], ("normal", "blind", "shuffled"), strict=True):
        figure, (low, high) = scores["modes"][mode]["figures"]["accuracy"], scores["modes"][mode]["ci95"]["accuracy"]
        assert cell == f"{figure:.3f} ({low:.3f} to {high:.3f})"
    gain, (low, high) = scores["visual_gain"]["overall"], scores["visual_gain"]["ci95"]
    assert row[5:] == [f"{gain:+.3f} ({low:.3f} to {high:.3f})", "16"]
    asked = cells(text, f"shapes | {scores['prompts_sha256'][:12]}")
    assert asked[2] == scores["data_sha256"][:12] and "temperature 0.0" in asked[3]
    assert "- Not evaluated with: " in text and "shapes" not in text.partition("Not evaluated with: ")[2]


def test_a_partial_result_is_marked_and_not_in_the_metadata(home: Path) -> None:
    text = card(home / "finetune", scores=[home / "eval" / "partial"])
    assert cells(text, "shapes | accuracy")[2].endswith(" PARTIAL")
    assert "**shapes is PARTIAL: normal 3 of 16, blind 3 of 16, shuffled 3 of 16 questions**: no result." in text
    assert ModelCard(text).data.eval_results is None


def test_no_place_of_the_machine_stands_in_a_card(home: Path, kitchen: Path, world: Path, lm_dir: Path) -> None:
    text = card(home / "finetune", scores=[home / "eval" / "shapes"])
    for place in (home, kitchen, world, lm_dir):
        for folder in (place, *place.parents[:-1]):
            assert str(folder) not in text
    assert "my kitchen" not in text and "/" not in text.partition("### Data")[2].partition("### Settings")[0].replace(
        "</", ""
    )


def test_names_from_data_are_no_markup(home: Path) -> None:
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card(home / "finetune").split("\n---\n")[1])
    assert "<td>odd|_name_.json</td>" in html


def test_the_code_in_a_card_runs(
    home: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", card(home / "finetune"), flags=re.MULTILINE | re.DOTALL)
    shutil.copy(next((world / "images").glob("*.png")), home / "picture.png")
    monkeypatch.chdir(home)
    printed = []
    for block in blocks:
        exec(block, {})
        printed.append(capsys.readouterr().out.strip())
    assert len(printed) == 2 and printed[0] == printed[1] != ""


def test_the_command_says_what_went_into_the_card(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--run", str(home / "align"), "--run", str(home / "finetune"), "--scores", str(home / "eval" / "shapes")]
    told = ["--name", "tiny", "--license", "mit", "--base-model", "some/one", "--base-model", "some/two"]
    monkeypatch.chdir(home)
    assert llava(monkeypatch, "card", "finetune", *named, *told) == 0
    assert capsys.readouterr().out.splitlines() == [
        "finetune/README.md: the card of tiny, trained in align, finetune",
        "scores: shapes",
        "base models: some/one, some/two",
    ]
    (home / "finetune" / "README.md").write_text("mine")
    assert llava(monkeypatch, "card", "finetune") == 2
    assert llava(monkeypatch, "card", "finetune", "--force") == 0


def test_a_run_that_was_evaluated_is_found_where_eval_writes_by_default(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    shutil.copytree(home / "eval" / "shapes", home / "runs" / "eval" / "finetune" / "shapes")
    assert "scores: shapes" in write_card(Path("finetune"))
    assert "| shapes | accuracy |" in (home / "finetune" / "README.md").read_text()


def test_results_of_other_weights_are_refused_by_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CardError, match=r"shapes/scores.json: of other weights than .*align's .*finetune"):
        write_card(home / "align", scores=[home / "eval" / "shapes"])
    assert not (home / "align" / "README.md").exists()
    monkeypatch.chdir(home)
    shutil.copytree(home / "eval" / "shapes", home / "runs" / "eval" / "align" / "shapes")
    told = write_card(Path("align"))
    assert any(line.startswith("left out: runs/eval/align/shapes/scores.json: of other weights") for line in told)
    assert "None: this model was not evaluated." in (home / "align" / "README.md").read_text()


def test_what_is_no_result_or_two_of_one_benchmark_is_refused(home: Path) -> None:
    with pytest.raises(CardError, match="are both results of shapes; name one"):
        write_card(home / "finetune", scores=[home / "eval"])
    with pytest.raises(CardError, match=r"align: no scores.json in it"):
        write_card(home / "finetune", scores=[home / "align"])
    path = home / "eval" / "shapes" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modes": ["normal"]}))
    with pytest.raises(CardError, match="not as llava-lite eval writes it"):
        write_card(home / "finetune", scores=[home / "eval" / "shapes"])


def test_what_people_wrote_or_changed_stays(home: Path) -> None:
    path = home / "finetune" / "README.md"
    card(home / "finetune")
    assert "kitchen" in card(home / "finetune", name="kitchen")  # its own card it writes anew
    for text in (
        "# Mine\n",
        path.read_text().replace("kitchen", "kitchen, by me"),
        path.read_text().replace("---\n", "---\nlicense: mit\n", 1),
    ):
        path.write_text(text)
        with pytest.raises(CardError, match=r"README.md: people wrote it, or changed .* --force"):
            write_card(home / "finetune")
        assert path.read_text() == text
    assert card(home / "finetune", force=True) == card(home / "finetune")
    assert not list((home / "finetune").glob("*.tmp"))


def test_base_models_are_named_only_where_they_are_known_to_be_of_the_hub(
    home: Path, lm_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = home / "finetune" / "train.yaml"
    settings.write_text(re.sub(r"checkpoint: .*", "checkpoint: some/model", settings.read_text()))
    told = write_card(home / "finetune")
    assert "not recorded: how some/model was trained; name its folder with --run" in told
    assert ModelCard.load(home / "finetune" / "README.md").data.base_model is None

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    write_cache(tmp_path / "hub", "some/model", lm_dir)
    text = card(home / "finetune")
    assert ModelCard(text).data.base_model == ["some/model"] and "checkpoint **some/model**" in text

    config = json.loads((home / "align" / "config.json").read_text())
    config["llava_lite"]["parts"]["language_model"] |= {"path": "lmsys/vicuna-7b-v1.5", "folder": False}
    (home / "align" / "config.json").write_text(json.dumps(config))
    settings = home / "align" / "train.yaml"
    settings.write_text(re.sub(r"language_model: .*", "language_model: lmsys/vicuna-7b-v1.5", settings.read_text()))
    data = ModelCard(card(home / "align")).data
    assert data.base_model == ["lmsys/vicuna-7b-v1.5"] and data.base_model_relation == "adapter"


def test_data_of_the_hub_are_named_with_their_id(home: Path) -> None:
    path = home / "finetune" / "lineage.json"
    lineage = json.loads(path.read_text())
    lineage["sources"][0] |= {"path": "liuhaotian/LLaVA-Instruct-150K", "hub": True}
    path.write_text(json.dumps(lineage))
    text = card(home / "finetune")
    assert ModelCard(text).data.datasets == ["liuhaotian/LLaVA-Instruct-150K"]
    assert "| finetune | liuhaotian/LLaVA-Instruct-150K | 39 |" in text


def test_a_stage_that_is_not_at_hand_is_said_and_can_be_named(home: Path, tmp_path: Path, kitchen: Path) -> None:
    moved = tmp_path / "moved"
    (home / "align").rename(moved)
    settings = home / "finetune" / "train.yaml"
    settings.write_text(settings.read_text().replace(f"{kitchen}/align", f"{kitchen}/gone"))
    text = card(home / "finetune")
    assert "How gone was trained, which this training started from, is not recorded." in text
    settings = moved / "train.yaml"
    settings.write_text(settings.read_text().replace(f"{kitchen}/align", f"{kitchen}/gone"))
    text = card(home / "finetune", runs=[moved, home / "finetune"])
    assert "is not recorded" not in text and cells(text, "steps") == ["steps", "3", "3"]


@pytest.mark.slow
def test_adapters_merged_models_and_language_models_have_their_cards(
    kitchen: Path, tmp_path: Path, world: Path, lm_dir: Path
) -> None:
    home = tmp_path
    data = [f"data.path={world / 'dialogues.json'}", f"data.image_dir={world / 'images'}"]
    train(home / "lora", "finetune", f"model.checkpoint={kitchen / 'align'}", *data, "lora.rank=2")
    text = card(home / "lora")
    assert (
        ModelCard(text).data.library_name == "peft" and "It needs clip" in text and cells(text, "`lora.rank`")[2] == "2"
    )
    assert int(cells(text, "adapter")[2].replace(",", "")) > 0

    merge_checkpoint(home / "lora", home / "merged")
    with pytest.raises(CardError, match=r"merged: no train.yaml says how it was trained; name the run .* --run DIR"):
        write_card(home / "merged")
    text = card(home / "merged", runs=[home / "lora"])
    assert ModelCard(text).data.library_name == "transformers" and "**align** taught the projector" in text

    train(
        home / "text",
        "finetune",
        *data,
        "model.vision_tower=null",
        f"model.language_model={lm_dir}",
        "train=[language_model]",
    )
    text = card(home / "text")
    assert ModelCard(text).data.pipeline_tag == "text-generation" and "images=" not in text


def test_a_tower_has_no_card_and_a_wrong_license_none_either(home: Path, clip_dir: Path) -> None:
    with pytest.raises(CardError, match=r"a clip model without our section in config\.json"):
        write_card(clip_dir)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        write_card(home)
    with pytest.raises(CardError, match=r"such as apache-2\.0"):
        write_card(home / "finetune", license="Apache 2.0")
    with pytest.raises(CardError, match="is no hub id"):
        write_card(home / "finetune", base_models=["runs/demo/align"])
    assert not (home / "finetune" / "README.md").exists()
