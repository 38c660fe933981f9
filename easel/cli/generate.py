"""`easel generate`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import TaskID

from easel.cli import screen
from easel.cli.classifying import Model, item_json
from easel.cli.connection import TARGET, ApiKey, AsJson, Target, Timeout, connected
from easel.cli.exits import ExitCode, exit_code, item_line
from easel.cli.files import suffix_of, write_new
from easel.cli.previews import with_previews
from easel.cli.terminal import show_pictures, wants_pictures, wants_previews
from easel.client import (
    Admitted,
    Blocked,
    Control,
    Failed,
    GeneratedImage,
    GenerateEvent,
    GenerateOptions,
    Preview,
    Step,
    Stopped,
)
from easel.client.requests import sampler_names
from easel.report import PillowMissingError

_SHARE: Final = re.compile(r"(.*),(scale|start|end)=([^,]*)", re.DOTALL)

Prompt = Annotated[str, typer.Argument(help="What to paint.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures, named by seed.")]
Show = Annotated[
    bool | None,
    typer.Option(
        "--show/--no-show",
        help="Show the pictures in the terminal (default: when stdout is one).",
        show_default=False,
    ),
]
Previews = Annotated[
    bool | None,
    typer.Option(
        "--previews/--no-previews",
        help="Show pictures in the terminal while they form (default: as --show).",
        show_default=False,
    ),
]
Negative = Annotated[str, typer.Option("--negative", help="What not to paint.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale; 1 and below is off.")]
Sampler = Annotated[
    str,
    typer.Option(
        help="ddim, euler, euler-ancestral, dpmpp-2m-karras, unipc, lcm, …",
        autocompletion=sampler_names,
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the first picture; drawn if left out.")]
Width = Annotated[int | None, typer.Option(help="Pixels.")]
Height = Annotated[int | None, typer.Option(help="Pixels.")]
Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="A low-rank adapter of the server's, name or name:scale."),
]
LongPrompt = Annotated[str, typer.Option(help="Prompt too long: error, truncate or chunk.")]
Weights = Annotated[
    bool,
    typer.Option("--weights", help=r"Read (word:1.3) and \[word] in the prompts as weights."),
]
ClipSkip = Annotated[int | None, typer.Option(min=0, help="Text encoder layers left out.")]
Rescale = Annotated[float | None, typer.Option(help="Guidance rescale, 0 to 1.")]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="NAME=FILE[,scale=…][,start=…][,end=…]",
        help="Steer by a picture through a ControlNet of the server; may be given several times.",
    ),
]


def generate(
    prompt: Prompt,
    count: Annotated[int, typer.Option("--count", "-n", help="Pictures to make.")] = 1,
    negative: Negative = "",
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = "",
    seed: Seed = None,
    width: Width = None,
    height: Height = None,
    long_prompt: LongPrompt = "",
    adapter: Adapters = None,
    cache_interval: Annotated[
        int | None, typer.Option(help="Runs the whole U-Net in every so many steps; 1 to 10.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="A picture to begin from, or to paint in with --mask.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="Of what is painted over the image: above 0, up to 1.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Marks what of the image is painted again; of its size.")
    ] = None,
    mask_polarity: Annotated[
        str, typer.Option(help="white-is-repainted or transparent-is-repainted.")
    ] = "",
    feather: Annotated[int | None, typer.Option(help="Pixels of soft edge in the mask.")] = None,
    padding: Annotated[
        int | None, typer.Option(help="Zooms on the masked region with so many pixels around it.")
    ] = None,
    tiled: Annotated[
        bool, typer.Option("--tiled", help="In tiles through the autoencoder: for large pictures.")
    ] = False,
    weights: Weights = False,
    clip_skip: ClipSkip = None,
    rescale: Rescale = None,
    control: Controls = None,
    style: Annotated[
        Path | None, typer.Option(help="A picture whose style the image takes.")
    ] = None,
    content_strength: Annotated[
        float | None, typer.Option(help="Of the image in its stylization: 0 to 1.")
    ] = None,
    style_strength: Annotated[float | None, typer.Option(help="Of the style: 0 to 1.")] = None,
    image_format: Annotated[str, typer.Option("--format", help="png, jpeg or webp.")] = "",
    quality: Annotated[int | None, typer.Option(help="1 to 100, for jpeg and webp.")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The same bytes in any company, for more compute.")
    ] = False,
    allow_degrade: Annotated[
        bool, typer.Option("--allow-degrade", help="Fewer steps rather than too late.")
    ] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Nothing in the file about how it was made.")
    ] = False,
    out: Out = Path(),
    show: Show = None,
    previews: Previews = None,
    model: Model = "",
    target: Target = TARGET,
    api_key: ApiKey = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Paint pictures from a prompt."""
    options = generate_options(
        negative, steps, guidance, sampler, seed, width, height, long_prompt, model
    )
    options |= canvas_options(image, strength, mask, mask_polarity, feather, padding)
    options["tiled_decode"] = tiled
    options |= style_options(style, content_strength, style_strength)
    options["count"] = count
    options["prompt_weighting"] = weights
    if clip_skip is not None:
        options["clip_skip"] = clip_skip
    if rescale is not None:
        options["guidance_rescale"] = rescale
    options["format"] = image_format
    options["reproducibility"] = "exact" if exact else ""
    options["allow_degrade"] = allow_degrade
    options["omit_metadata"] = no_metadata
    options["adapters"] = adapter or []
    if cache_interval is not None:
        options["cache_interval"] = cache_interval
    if quality is not None:
        options["quality"] = quality
    with connected(target, api_key, timeout, as_json) as client:
        options["controls"] = [parse_control(text) for text in control or ()]
        if wants_previews(previews, show, as_json=as_json):
            options = with_previews(client, options, asked=bool(previews))
        events = client.generate(prompt, **options)
        ended = sorted(_watched(events, count, quiet=as_json), key=lambda event: event.index)
        files = {
            event.index: write_new(out, str(event.seed), suffix_of(event.data), event.data)
            for event in ended
            if isinstance(event, GeneratedImage)
        }
    _report(prompt, ended, files, as_json=as_json)
    if wants_pictures(show, as_json=as_json):
        show_or_say(
            [event.data for event in ended if isinstance(event, GeneratedImage)], asked=bool(show)
        )
    _end(ended)


def canvas_options(
    image: Path | None,
    strength: float | None,
    mask: Path | None,
    mask_polarity: str,
    feather: int | None,
    padding: int | None,
) -> GenerateOptions:
    """As ``generate_options``, of what is painted on."""
    options = GenerateOptions()
    if image is not None:
        options["image"] = image
    if strength is not None:
        options["strength"] = strength
    if mask is not None:
        options["mask"] = mask
    if mask_polarity:
        options["mask_polarity"] = mask_polarity
    if feather is not None:
        options["feather_px"] = feather
    if padding is not None:
        options["padding_px"] = padding
    return options


def style_options(
    style: Path | None, content_strength: float | None, style_strength: float | None
) -> GenerateOptions:
    """As ``generate_options``, of a stylization."""
    options = GenerateOptions()
    if style is not None:
        options["style"] = style
    if content_strength is not None:
        options["content_strength"] = content_strength
    if style_strength is not None:
        options["style_strength"] = style_strength
    return options


def generate_options(
    negative: str,
    steps: int | None,
    guidance: float | None,
    sampler: str,
    seed: int | None,
    width: int | None,
    height: int | None,
    long_prompt: str,
    model: str,
) -> GenerateOptions:
    """Return the options given; what was left out is left to the server."""
    options = GenerateOptions(
        negative_prompt=negative, sampler=sampler, long_prompt=long_prompt, model=model
    )
    if steps is not None:
        options["steps"] = steps
    if guidance is not None:
        options["guidance_scale"] = guidance
    if seed is not None:
        options["seed"] = seed
    if width is not None:
        options["width"] = width
    if height is not None:
        options["height"] = height
    return options


def parse_control(text: str) -> Control:
    """``NAME=FILE[,scale=…][,start=…][,end=…]``. Raises ``ValueError`` for anything else."""
    name, equals, rest = text.partition("=")
    shares: dict[str, float] = {}
    while (found := _SHARE.fullmatch(rest)) is not None:
        rest, key, value = found.groups()
        if key in shares:
            raise ValueError(f"--control: {key} is given twice in {text!r}")
        shares[key] = _number(key, value)
    if not (name and equals and rest):
        raise ValueError(f"--control: {text!r} is not NAME=FILE[,scale=…][,start=…][,end=…]")
    return Control(name, Path(rest), **shares)


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--control: {key} {text!r} is not a number") from None


def show_or_say(pictures: list[bytes], *, asked: bool) -> None:
    """Show pictures; without Pillow end with an error if they were ``asked`` for, else say so."""
    try:
        show_pictures(pictures)
    except PillowMissingError as error:
        if asked:
            screen.fail(str(error), ExitCode.BAD_INPUT)
        screen.err().print(screen.plain(f"not shown: {error}", "dim"))


_End = GeneratedImage | Stopped | Blocked | Failed


def _watched(events: Iterator[GenerateEvent], count: int, *, quiet: bool) -> Iterator[_End]:
    with screen.bars(quiet=quiet) as progress:
        tasks = [
            progress.add_task(f"picture {index + 1}", total=None, note="waiting")
            for index in range(max(0, min(count, 64)))
        ]
        for event in events:
            if event.index < len(tasks):
                _advance(progress, tasks[event.index], event)
            if isinstance(event, _End):
                yield event


def _advance(progress: screen.Bars, task: TaskID, event: GenerateEvent) -> None:
    match event:
        case Admitted():
            note = f"seed {event.seed}, about {event.eta_seconds:.1f} s"
            progress.update(task, total=event.steps, note=note)
        case Preview():
            progress.preview(event.index, event.data)
        case Step():
            progress.update(task, completed=event.step, total=event.steps)
        case GeneratedImage():
            done = event.timing.compute_seconds
            note = f"[green]✓[/] seed {event.seed}, {done:.1f} s"
            progress.update(task, completed=event.steps, total=event.steps, note=note)
        case Stopped():
            progress.update(task, note="[yellow]stopped[/]")
        case Blocked() | Failed():
            progress.update(task, note="[red]failed[/]")


def _report(prompt: str, ended: list[_End], files: dict[int, Path], *, as_json: bool) -> None:
    made = [event for event in ended if isinstance(event, GeneratedImage)]
    failed = [event for event in ended if not isinstance(event, GeneratedImage)]
    if as_json:
        screen.print_json(
            {
                "prompt": prompt,
                "images": [_image_json(image, files[image.index]) for image in made],
                "failed": [_failure_json(event) for event in failed],
            }
        )
        return
    if made:
        table = screen.table("file", "seed", "size", "steps", "waited", "computed", "batch",
                             right=["seed", "steps", "waited", "computed", "batch"])  # fmt: skip
        for image in made:
            timing = image.timing
            table.add_row(
                screen.plain(str(files[image.index])),
                str(image.seed),
                f"{image.width}×{image.height}",
                str(image.steps),
                f"{timing.queue_seconds:.2f} s",
                f"{timing.compute_seconds:.2f} s",
                str(timing.batch_rows),
            )
        screen.out().print(table)
    for event in failed:
        screen.err().print(screen.plain(f"error: picture {event.index + 1}: {_why(event)}"))


def _image_json(image: GeneratedImage, file: Path) -> dict[str, object]:
    return {
        "file": str(file),
        "index": image.index,
        "seed": image.seed,
        "width": image.width,
        "height": image.height,
        "steps": image.steps,
        "degraded": image.degraded,
        "cached": image.cached,
        "pixel_sha256": image.provenance.pixel_sha256,
        "model": image.provenance.model.name,
        "timing": asdict(image.timing),
    }


def _failure_json(event: Stopped | Blocked | Failed) -> dict[str, object]:
    if isinstance(event, Failed):
        return {"index": event.index, "error": item_json(event.error)}
    return {"index": event.index, "error": {"message": _why(event)}}


def _why(event: Stopped | Blocked | Failed) -> str:
    match event:
        case Failed():
            return item_line(event.error)
        case Blocked():
            return f"withheld: {event.reason}"
        case Stopped():
            return f"stopped at step {event.step} of {event.steps}"


def _end(ended: list[_End]) -> None:
    for event in ended:
        if isinstance(event, Failed):
            raise typer.Exit(exit_code(event.error))
        if isinstance(event, Stopped | Blocked):
            raise typer.Exit(ExitCode.FAILED)
