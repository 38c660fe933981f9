"""Makes safetensors of a model that came as a pickle: ``python -m services.classifier.conversion``.

The service never reads a pickle. This reads one on request, with PyTorch's restricted unpickler,
which makes tensors and nothing else.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
from transformers import AutoModelForImageClassification

from services.core.errors import EaselError, FailedPrecondition, NotFound


def convert(directory: Path) -> None:
    """Write ``model.safetensors`` beside the ``pytorch_model.bin`` of ``directory``.

    Raises ``NotFound`` where there is none to convert, ``FailedPrecondition`` where it is no image
    classifier, lacks weights, or holds more than tensors.
    """
    if not any(directory.glob("pytorch_model*.bin")):
        raise NotFound("The directory has no pytorch_model.bin.")
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            directory,
            dtype="auto",
            use_safetensors=False,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # of unpickling, of transformers, of the system
        raise FailedPrecondition(f"The weights cannot be converted: {error}") from error
    if loading["missing_keys"]:
        raise FailedPrecondition(f"The weights lack {sorted(loading['missing_keys'])}.")
    with torch.no_grad():
        model.save_pretrained(directory)


def main(arguments: list[str] | None = None) -> int:
    parser = ArgumentParser(prog="python -m services.classifier.conversion", description=__doc__)
    parser.add_argument("directory", type=Path, help="the model's directory")
    try:
        convert(parser.parse_args(arguments).directory)
    except EaselError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
