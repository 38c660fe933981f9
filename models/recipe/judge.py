"""The judge: a small convolutional classifier that no other part of the recipe learns from.

It has another architecture, another seed and other pictures than the demo classifier, so that
neither images nor rankings are measured by the network that chose them.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from models.recipe import dataset, training
from models.recipe.plan import JudgePlan
from models.recipe.shapes import LABELS

WIDTHS = (24, 48, 64, 64, 96, 96, 160)
STRIDES = (2, 1, 2, 1, 2, 1, 2)
SEED = 23


class Judge(nn.Module):
    """Pictures (n, 3, 64, 64) in [-1, 1] to logits (n, labels)."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...], labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in zip((3, *widths), widths, strides, strict=False):
            layers += [
                nn.Conv2d(before, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], labels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.layers(pictures)
        return logits


def save(model: Judge, folder: Path) -> None:
    """Writes `config.json` and `model.safetensors`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"widths": WIDTHS, "strides": STRIDES, "labels": LABELS}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path) -> Judge:
    """The judge that `save` wrote, in float32 and ready to judge."""
    config = json.loads((folder / "config.json").read_text())
    model = Judge(tuple(config["widths"]), tuple(config["strides"]), len(config["labels"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float().eval()


def train(work: Path, plan: JudgePlan) -> dict[str, float]:
    """Trains the judge and saves it in `work/judge/model`; returns what was measured."""
    torch.manual_seed(SEED)
    model = Judge(WIDTHS, STRIDES, len(LABELS))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = dataset.load(work / "data", "judge")
    run = training.Run(
        name="judge",
        checkpoint=work / "judge" / "checkpoint.pt",
        modules={"model": model},
        optimizer=torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.02),
        steps=plan.steps,
        rate=lambda step: training.cosine(step, plan.steps, warm=50),
    )
    run.train(lambda step: _loss(model, pictures, step, plan.batch))
    save(model, work / "judge" / "model")
    right = accuracy(model.eval(), dataset.load(work / "data", "held_out"))
    return {"seconds": run.seconds, "steps": plan.steps, "held_out_accuracy": right}


@torch.no_grad()
def accuracy(model: nn.Module, pictures: dataset.Pictures) -> float:
    """The part of the pictures whose shape and colour are both named right."""
    batches = range(0, len(pictures.labels), 200)
    guesses = [model(dataset.pixels(pictures.images[i : i + 200])).argmax(1) for i in batches]
    right = torch.cat(guesses) == torch.from_numpy(pictures.labels)
    return right.float().mean().item()


def perturb(x: Tensor, draw: torch.Generator) -> Tensor:
    """Pictures in [-1, 1] with another brightness, tint and noise, and often blurred."""
    n = len(x)
    x = x * (1 + (torch.rand(n, 1, 1, 1, generator=draw) - 0.5) * 0.15)
    x = x + (torch.rand(n, 3, 1, 1, generator=draw) - 0.5) * 0.08
    x = x + torch.randn(x.shape, generator=draw) * torch.rand(n, 1, 1, 1, generator=draw) * 0.06
    if torch.rand(1, generator=draw).item() < 0.4:
        blurred = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
        x = 0.7 * blurred + 0.3 * x
    return x.clamp(-1, 1)


def _loss(model: Judge, pictures: dataset.Pictures, step: int, batch: int) -> Tensor:
    draw, _ = training.randomness(SEED, step)
    rows = np.sort(torch.randint(len(pictures.labels), (batch,), generator=draw).numpy())
    x = perturb(dataset.pixels(pictures.images[rows]), draw)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x.contiguous(memory_format=torch.channels_last))
    return functional.cross_entropy(logits.float(), torch.from_numpy(pictures.labels[rows]))
