"""`easel export`, `easel quantize`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from easel.cli import screen
from easel.cli.connection import AsJson
from easel.cli.local import run_tool

_MODULE: Final = "services.classifier.tools"
_EXTRA: Final = "classifier"
_TARGETS: Final = "onnx, openvino, coreml, litert or executorch; repeat it."
_PRECISIONS: Final = "int8-dynamic, int8-static, int4-weights, float16 or bfloat16."

Model = Annotated[
    str, typer.Argument(help="A classifier's directory, org/name[@revision] of the hub, or demo.")
]
Out = Annotated[str, typer.Option("--out", help="Folder to make; it must not be there yet.")]


def export(
    model: Model,
    to: Annotated[list[str], typer.Option("--to", help=_TARGETS)],
    out: Out,
    compare: Annotated[
        str | None,
        typer.Option("--compare", help="Folder of pictures to compare on; drawn ones if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a classifier for other runtimes, and check what was written.

    What can run here is run and compared with PyTorch, of the rest the structure is checked; the
    report says which was which.
    """
    arguments = ["export", model, "--out", out]
    for name in to:
        arguments += ["--to", name]
    if compare is not None:
        arguments += ["--compare", compare]
    report = run_tool(_MODULE, arguments, as_json=as_json, extra=_EXTRA)
    if as_json:
        screen.print_json(report)
        return
    table = screen.table(
        "target", "file", "size", "check", "by", "difference", "agreement",
        right=["size", "difference", "agreement"],
    )  # fmt: skip
    for each in report["artefacts"]:
        table.add_row(*map(screen.plain, _artefact_row(each)))
    screen.out().print(table)
    pictures = report["pictures"]
    screen.out().print(
        screen.plain(f"{pictures['count']} {pictures['origin']} pictures; all of it in {out}")
    )


def quantize(
    model: Model,
    precision: Annotated[str, typer.Option("--precision", help=_PRECISIONS)],
    calibrate: Annotated[
        str, typer.Option("--calibrate", help="Folder of pictures like those that will be asked.")
    ],
    out: Out,
    min_agreement: Annotated[
        float,
        typer.Option(help="Share of pictures whose best label stays; less is not published."),
    ] = 0.99,
    as_json: AsJson = False,
) -> None:
    """Make a smaller, faster classifier, and publish it if it answers as before.

    Compared with the model in float32: best labels on the pictures, sizes, time of a batch.
    """
    arguments = [
        "quantize", model,
        "--precision", precision,
        "--calibrate", calibrate,
        "--min-agreement", str(min_agreement),
        "--out", out,
    ]  # fmt: skip
    report = run_tool(_MODULE, arguments, as_json=as_json, extra=_EXTRA)
    if as_json:
        screen.print_json(report)
        return
    table = screen.table("", "before", precision, "", right=["before", precision])
    for row in _figures(report):
        table.add_row(*map(screen.plain, row))
    screen.out().print(table)
    screen.out().print(screen.plain(_agreement(report)))
    screen.out().print(screen.plain(f"published in {out}; runs on {report['backend']}"))


def _artefact_row(artefact: dict[str, Any]) -> tuple[str, ...]:
    ran = artefact["check"] == "ran"
    structure = ", ".join(f"{name} {value}" for name, value in artefact["structure"].items())
    return (
        artefact["target"],
        artefact["file"],
        _size(artefact["bytes"]),
        "ran" if ran else "structure",
        artefact["runtime"] if ran else f"{structure}; {artefact['runtime']}",
        f"{artefact['max_logit_difference']:.1e}" if ran else "",
        f"{artefact['top1_agreement']:.4f}" if ran else "",
    )


def _figures(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    disk, memory, seconds = report["bytes_on_disk"], report["bytes_in_memory"], report["seconds"]
    rows = [
        _sizes("weights on disk", disk["source"], disk["quantised"]),
        _sizes(f"in memory, {report['backend']}", memory["float32"], memory["quantised"]),
    ]
    for name, backend in (("float32_same_backend", report["backend"]), ("float32", "pytorch")):
        if name in seconds:
            before, after = seconds[name], seconds["quantised"]
            what = f"a picture of {report['batch_rows']}, {backend} before"
            times = f"{before / after:.2f} times as fast"
            rows.append((what, f"{before * 1e3:.2f} ms", f"{after * 1e3:.2f} ms", times))
    return rows


def _sizes(what: str, before: int, after: int) -> tuple[str, str, str, str]:
    return what, _size(before), _size(after), f"{after / before:.0%}" if before else ""


def _agreement(report: dict[str, Any]) -> str:
    agreement = report["agreement"]
    low, high = agreement["interval"]
    return (
        f"same best label on {agreement['agreeing']} of {agreement['pictures']} pictures: "
        f"{agreement['rate']:.4f} ({low:.3f} to {high:.3f} with 95 % confidence), "
        f"at least {agreement['minimum']:g} asked for"
    )


def _size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"
