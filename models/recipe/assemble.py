"""Brings the trained parts into the form they ship in: float16 weights and portable configs."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from transformers import ViTForImageClassification

from models.recipe import judge
from models.recipe.generator import GUIDANCE, SAMPLING_STEPS

# What the libraries note about the machine that saved a model.
MACHINE_KEYS = ("_name_or_path", "name_or_path", "is_local", "local_files_only")


WEIGHTS = {
    "vae_size": "generator/vae",
    "text_size": "generator/text_encoder",
    "unet_size": "generator/unet",
    "classifier_size": "classifier",
    "judge_size": "judge",
}


def assemble(work: Path) -> dict[str, Any]:
    """Writes the classifier, the generator and the judge below `work/assemble/demo`."""
    target = demo_folder(work)
    shutil.rmtree(target, ignore_errors=True)
    pipeline = StableDiffusionPipeline.from_pretrained(
        work / "diffusion" / "model", dtype=torch.float16
    )
    pipeline.save_pretrained(target / "generator")
    # What a request gets from the generator service that does not say.
    defaults = {"default_steps": SAMPLING_STEPS, "default_guidance_scale": GUIDANCE}
    (target / "generator" / "easel.json").write_text(json.dumps(defaults), encoding="utf-8")
    _save_classifier(work / "classifier" / "model", target / "classifier")
    judge.save(judge.load(work / "judge" / "model").half(), target / "judge")
    for config in target.rglob("*.json"):
        _strip(config)
    return {
        "weights": {
            name: sum(file.stat().st_size for file in (target / folder).glob("*.safetensors"))
            for name, folder in WEIGHTS.items()
        }
    }


def demo_folder(work: Path) -> Path:
    """Where `assemble` writes."""
    return work / "assemble" / "demo"


def _save_classifier(source: Path, target: Path) -> None:
    model = ViTForImageClassification.from_pretrained(source, dtype=torch.float16)
    model.save_pretrained(target)
    shutil.copy(source / "preprocessor_config.json", target)


def _strip(config: Path) -> None:
    content = json.loads(config.read_text(encoding="utf-8"))
    for key in MACHINE_KEYS:
        content.pop(key, None)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    config.write_text(text + "\n", encoding="utf-8")
