"""The model card, filled in from the figures of a run."""

from typing import Any

from models.recipe.contact_sheet import PROMPTS
from models.recipe.shapes import COLOURS, GROUNDS, SHAPES, TEXTURES

CARD = """\
# The demo pair

A text-to-image generator and an image classifier, both tiny and both real: they have the layouts
that `diffusers` and `transformers` load, and were trained from nothing by `models/recipe` on
pictures that the recipe draws itself. They exist so that the services can be run, tested and
demonstrated without a download or a GPU; they are of no use for anything else.

![Ten prompts, six seeds each](sheet.png)

The rows of the sheet, unselected, seeds 0 to 5:

{rows}

## What they know

- 64x64 pictures of one shape near the middle, on a ground.
- Shapes: {shapes}.
- Colours: {colours}.
- Grounds: {textures}; {grounds}.
- Captions such as "a red star", "a big white ring on a blue striped background". Some synonyms are
  known (moon, donut, violet, grey); other words fall apart into pieces and mostly do nothing.
- The classifier names 80 labels, colour before shape: "red star".

## Architecture

| folder | class | size |
|---|---|---|
| `generator/vae` | AutoencoderKL, 64x64x3 to 16x16x4, widths 16, 32, 64 | {vae_size} |
| `generator/text_encoder` | CLIPTextModel, width 128, 2 layers | {text_size} |
| `generator/unet` | UNet2DConditionModel, widths 64, 96, 128, attention from 8x8 | {unet_size} |
| `generator/tokenizer` | CLIPTokenizer, byte-level BPE, at most 32 tokens | |
| `generator/scheduler` | DDIM, v-prediction, zero terminal SNR, trailing steps | |
| `classifier` | ViTForImageClassification, patch 8, width 128, 4 layers | {classifier_size} |
| `judge` | convolutional, 7 layers (`models.recipe.judge`), for measuring only | {judge_size} |

Weights are float16 and load in any dtype.

## How they were made

`make demo-models`, which is `python -m models.recipe`, draws {train:,} training pictures,
{judge_pictures:,} more for the judge and {held_out:,} held out, and then trains in steps, each one
seeded:

| stage | steps | minutes | |
|---|---|---|---|
{stages}

Machine: {processor}, {cores} cores, no GPU.
Libraries: {libraries}.
Some stages ran side by side and all of them beside other work, so the minutes are upper bounds.
Training can be stopped and resumed.

The later rounds of the generator's schedule (`models/recipe/plan.py`) were settled while it
trained, after looking at contact sheets; every step followed the formulas that stand there now.
The whole has not been repeated from the first step in one go.

## How good they are

The judge has another architecture, other training pictures and another seed than the classifier,
and took no part in training or ranking. Intervals are 95 %; for generated images they come from
resampling prompts 10,000 times, and are Wilson's over the prompts where all of them are right.

{prompts} prompts, {seeds} seeds each, DDIM, {steps} steps, guidance {guidance}:

| measure | value | 95 % interval |
|---|---|---|
{measures}

Doubt is the probability that the judge leaves to labels other than the wanted one. With guidance
nearly every single image is right, so there ranking shows in the doubt; without guidance (1) it
shows in the images.

By shape, single images: {of_shape}.

Other settings, on half as many prompts of another draw, one seed each:

| steps | guidance | shape and colour right | 95 % interval |
|---|---|---|---|
{settings}

One image takes {one} s and four together {four} s ({threads} thread, float32, {steps} steps, on a
machine with other work).
`figures.json` holds all figures.

## Limits

- 64x64 only: other sizes run, but repeat the object and join its copies.
- One object to a picture; no counting, no relations, no words outside the vocabulary above.
- Colours that are close to the ground's (red on orange, blue on purple, the same twice) were never
  drawn; asked for, the ground may come out in another colour.
- Stripes waver, and at times run both ways in one picture.
- Guidance of 7.5 pinches corners and leaves halos.
"""


def write(figures: dict[str, Any]) -> str:
    """The card of these figures, as `publish.collect` returns them."""
    stages, machine = figures["stages"], figures["machine"]
    measured = stages["evaluate"]
    generated, speed = measured["generated"], measured["speed"]
    return CARD.format(
        rows="\n".join(f"{row}. {prompt}" for row, prompt in enumerate(PROMPTS, 1)),
        shapes=", ".join(SHAPES),
        colours=", ".join(COLOURS),
        textures=", ".join(TEXTURES),
        grounds=", ".join(GROUNDS),
        train=stages["data"]["pictures"]["train"],
        judge_pictures=stages["data"]["pictures"]["judge"],
        held_out=stages["data"]["pictures"]["held_out"],
        stages="\n".join(_stage(name, stages[name]) for name in TRAINED),
        processor=machine["processor"],
        cores=machine["cores"],
        libraries=", ".join(f"{name} {v}" for name, v in machine["libraries"].items()),
        prompts=generated["prompts"],
        seeds=generated["seeds"],
        steps=measured["sampler"]["steps"],
        guidance=measured["sampler"]["guidance"],
        measures="\n".join(_measures(measured)),
        of_shape=", ".join(f"{s} {percent(r)}" for s, r in generated["single_of_shape"].items()),
        settings="\n".join(_setting(row) for row in measured["settings"]),
        one=speed["seconds"]["batch_1"],
        four=speed["seconds"]["batch_4"],
        threads=speed["threads"],
        **{name: _megabytes(size) for name, size in stages["assemble"]["weights"].items()},
    )


TRAINED = ("vae", "judge", "classifier", "diffusion")
STAGE_NOTES = {
    "vae": "reconstructs held-out pictures at {psnr_db:.1f} dB",
    "judge": "names {held_out_accuracy:.2%} of held-out pictures right",
    "classifier": "names {held_out_accuracy:.2%} of held-out pictures right",
    "diffusion": "{samples:,} samples",
}


def percent(rate: float) -> str:
    """A rate as a percentage with two decimals."""
    return f"{100 * rate:.2f} %"


def _stage(name: str, done: dict[str, Any]) -> str:
    note = STAGE_NOTES[name].format(**done)
    return f"| {name} | {done['steps']:,} | {done['seconds'] / 60:.1f} | {note} |"


def _measures(measured: dict[str, Any]) -> list[str]:
    generated, held_out = measured["generated"], measured["held_out"]
    best = f"best of {generated['seeds']}"
    unguided = measured["unguided"]
    rows = {
        "single image: shape and colour right": generated["single"],
        "single image: shape right": generated["single_shape"],
        "single image: colour right": generated["single_colour"],
        f"{best} by the classifier: both right": generated["best"],
        "gain of ranking over a single image, points": generated["best_less_single"],
        "judge's doubt of a single image": generated["doubt_single"],
        f"doubt taken away by {best}, points": generated["doubt_single_less_best"],
        "without guidance, single image: both right": unguided["single"],
        f"without guidance, {best}: both right": unguided["best"],
        "without guidance, gain of ranking, points": unguided["best_less_single"],
        f"classifier on {held_out['pictures']:,} held-out pictures": held_out["classifier"],
        f"judge on {held_out['pictures']:,} held-out pictures": held_out["judge"],
    }
    return [f"| {name} | {percent(row['mean'])} | {_interval(row)} |" for name, row in rows.items()]


def _setting(row: dict[str, Any]) -> str:
    single = row["single"]
    rate = percent(single["mean"])
    return f"| {row['steps']} | {row['guidance']:g} | {rate} | {_interval(single)} |"


def _interval(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * low:.2f} to {100 * high:.2f} %"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
