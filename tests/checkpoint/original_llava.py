"""The original LLaVA, plainly and slowly from its description: its folders and what it computes, to test ours by."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as PilImage
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, CLIPImageProcessorPil, CLIPVisionModel

from llava_lite.models.language_model import load_tokenizer
from tests.images import plain_llava

Form = Literal["safetensors", "shards", "bin", "bin shards"]
FILES = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}

TOWER = "model.vision_tower.vision_tower.vision_model."


@dataclass
class Plain:
    """A tiny LLaVA as the original thinks of it. language_model: a folder; tower: a CLIP folder; kind: `linear`, ...

    fields: what its config.json says beside; merged: what LoRA adds to matrices of the language model, by their names.
    """

    language_model: Path
    tower: Path
    kind: str = "mlp2x_gelu"
    fields: Mapping[str, Any] = field(default_factory=lambda: {"image_aspect_ratio": "pad"})
    layer: int = -2
    merged: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self.text_config = json.loads((self.language_model / "config.json").read_text())
        size = self.text_config["hidden_size"]
        depth = 1 if self.kind == "linear" else int(self.kind[3])
        self.layers = [(torch.randn(size, 32) * 0.3, torch.randn(size)) for _ in range(depth)]
        self.newline = torch.randn(size)

    @property
    def projector(self) -> dict[str, torch.Tensor]:
        numbers = [""] if self.kind == "linear" else [f"{2 * i}." for i in range(len(self.layers))]
        pairs = zip(numbers, self.layers, strict=True)
        return {
            f"model.mm_projector.{n}{what}": w
            for n, pair in pairs
            for what, w in zip(("weight", "bias"), pair, strict=True)
        }

    @property
    def anyres(self) -> bool:
        return str(self.fields.get("image_aspect_ratio")).startswith("anyres")

    def config(self, **more: Any) -> dict[str, Any]:
        """The config.json, in the spelling of transformers 4."""
        config = {key: value for key, value in self.text_config.items() if key not in ("rope_parameters", "dtype")}
        family = config.pop("model_type")
        return {
            **config,
            "model_type": {"llama": "llava", "qwen2": "llava_qwen"}.get(family, f"llava_{family}"),
            "rope_theta": self.text_config["rope_parameters"]["rope_theta"],
            "rope_scaling": None,
            "torch_dtype": "float16",
            "transformers_version": "4.31.0",
            "max_length": 4096,
            "mm_vision_tower": str(self.tower),
            "mm_vision_select_layer": self.layer,
            "mm_vision_select_feature": "patch",
            "mm_hidden_size": 32,
            "mm_projector_type": self.kind,
            "mm_use_im_start_end": False,
            "mm_use_im_patch_token": False,
            "mm_resampler_type": None,
            "use_mm_proj": True,
            **self.fields,
            **more,
        }

    def weights(self, *, inside: bool) -> dict[str, torch.Tensor]:
        language_model = AutoModelForCausalLM.from_pretrained(self.language_model, dtype=torch.float32)
        weights = dict(language_model.state_dict()) | self.projector
        if language_model.config.tie_word_embeddings:
            del weights["lm_head.weight"]
        if self.anyres:
            weights["model.image_newline"] = self.newline
        if inside:
            tower = CLIPVisionModel.from_pretrained(self.tower).state_dict()
            weights |= {TOWER + name.removeprefix("vision_model."): w for name, w in tower.items()}
        return weights

    def write_whole(self, folder: Path, *, form: Form = "safetensors", inside: bool = False, **more: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
            if (self.language_model / name).is_file():
                shutil.copy(self.language_model / name, folder)
        write_json(folder / "config.json", self.config(**more))
        write_weights(folder, self.weights(inside=inside), form)
        return folder

    def write_projector(self, folder: Path, *, safe: bool = False, **more: Any) -> Path:
        folder.mkdir(parents=True)
        write_json(folder / "config.json", self.config(**{"_name_or_path": str(self.language_model), **more}))
        if safe:
            save_file(self.projector, folder / "mm_projector.safetensors")
        else:
            torch.save(self.projector, folder / "mm_projector.bin")
        return folder

    def write_lora(self, folder: Path, *, base: str, safe: bool = False, prefix: str = "base_model.model.") -> Path:
        """LoRA of q_proj and down_proj, of rank 3 and alpha 6."""
        folder.mkdir(parents=True)
        write_json(folder / "config.json", self.config())
        weights = self.weights(inside=False)
        adapter = {}
        for name, weight in weights.items():
            if name.endswith(("q_proj.weight", "down_proj.weight")):
                a, b = torch.randn(3, weight.shape[1]) * 0.3, torch.randn(weight.shape[0], 3) * 0.3
                stem = "base_model.model." + name.removesuffix(".weight")
                adapter |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
                self.merged[name] = 6 / 3 * b @ a
        config = {
            "base_model_name_or_path": base,
            "bias": "none",
            "fan_in_fan_out": False,
            "lora_alpha": 6,
            "lora_dropout": 0.05,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": 3,
            "target_modules": ["q_proj", "down_proj"],
            "task_type": "CAUSAL_LM",
        }
        write_json(folder / "adapter_config.json", config)
        if safe:
            save_file(adapter, folder / "adapter_model.safetensors")
        else:
            torch.save(adapter, folder / "adapter_model.bin")
        torch.save({prefix + name: w for name, w in self.projector.items()}, folder / "non_lora_trainables.bin")
        return folder

    def pixels(self, image: PilImage.Image) -> torch.Tensor:
        """The tiles of a picture, by transformers' own processor: [N, 3, H, W]."""
        processor = CLIPImageProcessorPil.from_pretrained(self.tower)
        ratio = self.fields.get("image_aspect_ratio")
        views = [image]
        if self.anyres:
            views = plain_llava.views(image, str(ratio), 32)
        elif ratio == "pad":
            side = max(image.size)
            views = [PilImage.new("RGB", (side, side), tuple(int(value * 255) for value in processor.image_mean))]
            views[0].paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return torch.cat([processor(view, return_tensors="pt")["pixel_values"] for view in views])

    def ids(self, prompt: str) -> list[list[int]]:
        """The tokens of each stretch between images; each is tokenised alone, BOS stays in front of the first."""
        tokenizer = load_tokenizer(str(self.language_model))
        chunks = [tokenizer(chunk).input_ids for chunk in prompt.split("<image>")]
        bos = [tokenizer.bos_token_id] if chunks[0][:1] == [tokenizer.bos_token_id] else []
        return [bos * (not i) + chunk[len(bos) :] for i, chunk in enumerate(chunks)]

    @torch.no_grad()
    def logits(self, prompt: str, image: PilImage.Image) -> torch.Tensor:
        """What comes of a prompt with one picture: [T, V]."""
        tower = CLIPVisionModel.from_pretrained(self.tower).eval()
        hidden = tower(self.pixels(image), output_hidden_states=True).hidden_states[self.layer][:, 1:]
        for i, (weight, bias) in enumerate(self.layers):
            hidden = torch.nn.functional.linear(torch.nn.functional.gelu(hidden) if i else hidden, weight, bias)
        patches = hidden[0]
        if self.anyres:
            ratio = str(self.fields["image_aspect_ratio"])
            patches = plain_llava.merged(hidden, image.size, ratio, 32, self.newline)
        language_model = AutoModelForCausalLM.from_pretrained(self.language_model, dtype=torch.float32).eval()
        for name, more in self.merged.items():
            language_model.get_parameter(name).add_(more)
        before, after = (language_model.get_input_embeddings()(torch.tensor(chunk)) for chunk in self.ids(prompt))
        return language_model(inputs_embeds=torch.cat([before, patches, after])[None]).logits[0]


def write_weights(folder: Path, weights: dict[str, torch.Tensor], form: Form) -> None:
    weights = {name: weight.clone().contiguous() for name, weight in weights.items()}
    kind, _, shards = form.partition(" ")
    if form == "shards":
        kind, shards = "safetensors", "shards"
    stem, suffix = FILES[kind].split(".")
    names = sorted(weights)
    half = math.ceil(len(names) / 2)
    files = {f"{stem}.{suffix}": names}
    if shards:
        files = {f"{stem}-0000{i + 1}-of-00002.{suffix}": names[i * half : (i + 1) * half] for i in range(2)}
        index = {name: file for file, part in files.items() for name in part}
        write_json(folder / f"{stem}.{suffix}.index.json", {"metadata": {}, "weight_map": index})
    for file, part in files.items():
        shard = {name: weights[name] for name in part}
        if suffix == "bin":
            torch.save(shard, folder / file)
        else:
            save_file(shard, folder / file, metadata={"format": "pt"})


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
