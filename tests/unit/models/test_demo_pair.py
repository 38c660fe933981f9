"""The shipped files: unchanged, portable, and loadable without a network."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, CLIPTokenizer

import models
from models.recipe import captions, evaluate, shapes

MAX_BYTES = 20_000_000


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_package_imports_without_torch() -> None:
    check = "import sys, models; models.manifest(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=models.DEMO.parent.parent)


def test_the_manifest_matches_the_files() -> None:
    listed = models.manifest()["files"]
    found = {
        file.relative_to(models.DEMO).as_posix(): file
        for file in models.DEMO.rglob("*")
        if file.is_file() and file.name != "MANIFEST.json"
    }
    assert set(listed) == set(found)
    for name, file in found.items():
        content = file.read_bytes()
        assert listed[name]["bytes"] == len(content)
        assert listed[name]["sha256"] == hashlib.sha256(content).hexdigest(), name
    assert sum(entry["bytes"] for entry in listed.values()) < MAX_BYTES


def test_no_config_names_the_machine_that_made_it() -> None:
    for file in models.DEMO.rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'"/\w+/', text), file
        assert "_name_or_path" not in text, file


def test_every_caption_word_is_one_token() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(models.DEMO_GENERATOR / "tokenizer")
    for word in captions.vocabulary():
        assert len(tokenizer(word).input_ids) == 3, word
    assert tokenizer.model_max_length == 32


def test_the_classifier_names_drawn_pictures() -> None:
    model = AutoModelForImageClassification.from_pretrained(models.DEMO_CLASSIFIER).float()
    processor = AutoImageProcessor.from_pretrained(models.DEMO_CLASSIFIER)
    contents = [shapes.scene(30_000_000 + i) for i in range(60)]
    pixels = processor([shapes.draw(content)[0] for content in contents], return_tensors="pt")
    with torch.no_grad():
        guesses = model(**pixels).logits.argmax(1).tolist()
    assert tuple(model.config.id2label.values()) == shapes.LABELS
    right = [guess == content.label for guess, content in zip(guesses, contents, strict=True)]
    assert sum(right) >= 56


def test_the_generator_draws_what_it_is_asked_for() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(models.DEMO_GENERATOR).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    judge = evaluate.load_critics(models.DEMO)["judge"]
    asked = [("a red circle", "red circle"), ("a blue star on a white background", "blue star")]
    images = evaluate.generate(pipeline, [text for text, _ in asked] * 2, 0, 10, 3.0)
    guesses = evaluate.probabilities(judge, images).argmax(1).tolist()
    right = [
        shapes.LABELS[guess] == label for guess, (_, label) in zip(guesses, asked * 2, strict=True)
    ]
    assert sum(right) >= 3
    assert pipeline.unet.config.sample_size * 4 == 64


def test_the_card_and_the_sheet_are_there() -> None:
    figures = json.loads((models.DEMO / "figures.json").read_text(encoding="utf-8"))
    single = figures["stages"]["evaluate"]["generated"]["single"]["mean"]
    card = (models.DEMO / "README.md").read_text(encoding="utf-8")
    assert f"{100 * single:.2f} %" in card
    with Image.open(models.DEMO / "sheet.png") as sheet:
        assert sheet.size == (384, 640)
    assert (models.DEMO / "sheet.png").stat().st_size <= 300_000
