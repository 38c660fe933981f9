"""The demo models that ship with the package, and the recipe that makes them (`models.recipe`)."""

import json
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent / "demo"
DEMO_CLASSIFIER = DEMO / "classifier"
"""A ViTForImageClassification of 64x64 pictures with its preprocessor, for `from_pretrained`."""
DEMO_GENERATOR = DEMO / "generator"
"""A StableDiffusionPipeline of 64x64 pictures, for `from_pretrained`."""
JUDGE = DEMO / "judge"
"""The independent classifier that measures the other two, for `models.recipe.judge.load`."""


def manifest() -> dict[str, Any]:
    """`{"files": {path below the demo folder: {"sha256": hex, "bytes": size}}}`."""
    content: dict[str, Any] = json.loads((DEMO / "MANIFEST.json").read_text(encoding="utf-8"))
    return content
