"""Fits a model's temperature on labelled pictures, and writes it beside the model:
``python -m services.classifier.fitting MODEL PICTURES``.

The pictures lie in one folder a label, and should be none that the model was trained on.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.classifier.network import Floats, Network, Options, Traits
from services.classifier.temperature import Calibration, calibrated, write_calibration
from services.core.errors import EaselError, FailedPrecondition, InvalidInput, NotFound
from services.core.images import decode

_BATCH_ROWS: Final = 16
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def fit(network: Network, directory: Path, pictures: Path) -> Calibration:
    """Of the model in ``directory``, which ``network`` loads; nothing is written.

    Raises ``NotFound`` where there are no pictures, ``InvalidInput`` for a folder that is no label
    of the model or a picture that cannot be read, and as ``calibrated`` and ``Network.load`` do.
    """
    traits = network.load(directory)
    if traits.multi_label:
        raise FailedPrecondition(
            "Folders give one label a picture; a multi-label model needs several."
        )
    files = labelled(pictures, traits.labels)
    logits = [
        _logits(network, traits, [path for path, _ in files[start : start + _BATCH_ROWS]])
        for start in range(0, len(files), _BATCH_ROWS)
    ]
    targets = np.array([index for _, index in files], np.int64)
    return calibrated(np.concatenate(logits), targets)


def labelled(folder: Path, labels: Sequence[str]) -> list[tuple[Path, int]]:
    """The pictures below ``folder``, each with the index of the label its folder is called by."""
    if not folder.is_dir():
        raise NotFound(f"There is no folder '{folder.name}'.")
    found = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        if part.name not in labels:
            raise InvalidInput(
                "pictures",
                f"The folder '{part.name}' is no label of the model.",
                ", ".join(labels[:10]),
                part.name,
            )
        index = labels.index(part.name)
        files = sorted(path for path in part.iterdir() if path.suffix.lower() in _SUFFIXES)
        found += [(path, index) for path in files]
    if not found:
        raise NotFound(f"The folder '{folder.name}' has no pictures in folders of labels.")
    return found


def _logits(network: Network, traits: Traits, paths: list[Path]) -> Floats:
    pixels = [
        traits.preprocessing.prepare(decode(path.read_bytes(), field=path.name)) for path in paths
    ]
    logits = network.run(pixels, head=True, readings={}).logits
    assert logits is not None, "the head was asked for"
    return logits


def main(arguments: list[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m services.classifier.fitting", description=__doc__)
    parser.add_argument("model", type=Path, help="the model's directory")
    parser.add_argument("pictures", type=Path, help="a folder with one folder of pictures a label")
    given = parser.parse_args(arguments)
    from services.classifier.pytorch import TorchNetwork  # takes seconds; bad arguments need none

    # Other backends convert a model first, and again under its new digest.
    network = TorchNetwork(Options())
    try:
        found = fit(network, given.model, given.pictures)
        write_calibration(given.model, found)
    except EaselError as error:
        print(error.message, file=sys.stderr)
        return 1
    finally:
        network.close()
    print(
        f"temperature {found.temperature:.3f} on {found.pictures} pictures; "
        f"nll {found.nll_before:.4f} -> {found.nll_after:.4f}, "
        f"calibration error {found.ece_before:.4f} -> {found.ece_after:.4f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
