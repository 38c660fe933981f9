"""The demo classifier: a tiny vision transformer that names colour and shape.

From whole-picture labels alone it learns shapes very slowly. A second head, thrown away at the
end, therefore tells each patch where in it the shape lies; its loss fades out over the run.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from models.recipe import dataset, training
from models.recipe.judge import accuracy, perturb
from models.recipe.plan import ClassifierPlan
from models.recipe.shapes import COLOURS, LABELS, SHAPES, SIDE_PX

PATCH_PX = 8
WIDTH = 128
SEED = 37


class Logits(nn.Module):
    """The classifier as a function from pictures to logits."""

    def __init__(self, model: ViTForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pictures).logits
        return logits


def build() -> ViTForImageClassification:
    """An untrained classifier of `LABELS`."""
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=3 * WIDTH,
        image_size=SIDE_PX,
        patch_size=PATCH_PX,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    # The fused attention of PyTorch is slower on a CPU for so few tokens, backwards above all.
    config._attn_implementation = "eager"
    return ViTForImageClassification(config)


def train(work: Path, plan: ClassifierPlan) -> dict[str, float]:
    """Trains the classifier and saves it in `work/classifier/model`; returns the measures."""
    torch.manual_seed(SEED)
    model, mask_head = build(), nn.Linear(WIDTH, (PATCH_PX // 2) ** 2)
    pictures = dataset.load(work / "data", "train")
    parameters = [*model.parameters(), *mask_head.parameters()]
    run = training.Run(
        name="classifier",
        checkpoint=work / "classifier" / "checkpoint.pt",
        modules={"model": model, "mask_head": mask_head},
        optimizer=torch.optim.AdamW(parameters, 1e-3, betas=(0.9, 0.98), weight_decay=0.05),
        steps=plan.steps,
        rate=lambda step: training.cosine(step, plan.steps, warm=200, hold=0.3),
        average=training.Average(parameters),
        save_every=1000,
    )
    run.train(lambda step: _loss(model, mask_head, pictures, step, plan))
    model.eval().save_pretrained(work / "classifier" / "model")
    _processor().save_pretrained(work / "classifier" / "model")
    right = accuracy(Logits(model), dataset.load(work / "data", "held_out"))
    return {"seconds": run.seconds, "steps": plan.steps, "held_out_accuracy": right}


def _processor() -> ViTImageProcessor:
    return ViTImageProcessor(
        size={"height": SIDE_PX, "width": SIDE_PX}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def _loss(
    model: ViTForImageClassification,
    mask_head: nn.Linear,
    pictures: dataset.Pictures,
    step: int,
    plan: ClassifierPlan,
) -> Tensor:
    draw, _ = training.randomness(SEED, step)
    rows = np.sort(torch.randint(len(pictures.labels), (plan.batch,), generator=draw).numpy())
    x = dataset.pixels(pictures.images[rows])
    masks = torch.from_numpy(pictures.masks[rows]).float() / 255
    if torch.rand(1, generator=draw).item() < 0.5:
        x, masks = x.flip(3), masks.flip(2)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.vit(pixel_values=perturb(x, draw)).last_hidden_state
        logits, found = model.classifier(tokens[:, 0]), mask_head(tokens[:, 1:])
    labels = torch.from_numpy(pictures.labels[rows])
    mask_loss = functional.binary_cross_entropy_with_logits(found.float(), _patches(masks))
    return _label_loss(logits.float(), labels) + 2 * (1 - step / plan.steps) * mask_loss


def _label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the label, plus that of its shape with the colours summed over."""
    log_p = functional.log_softmax(logits, 1)
    shapes = log_p.view(-1, len(SHAPES), len(COLOURS)).logsumexp(2)
    return functional.nll_loss(log_p, labels) + functional.nll_loss(shapes, labels // len(COLOURS))


def _patches(masks: Tensor) -> Tensor:
    """Masks (n, 32, 32) cut along the patches: (n, 64, 16)."""
    cell, rows = PATCH_PX // 2, SIDE_PX // PATCH_PX
    cut = masks.view(-1, rows, cell, rows, cell).permute(0, 1, 3, 2, 4)
    return cut.reshape(-1, rows * rows, cell * cell)
