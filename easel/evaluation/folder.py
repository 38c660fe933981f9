"""Which of the model's labels each folder of pictures stands for."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

_SHOWN: Final = 5


def label_of_each(
    folders: Collection[str], labels: Sequence[str], names: Mapping[str, object] | None = None
) -> dict[str, int]:
    """Return the label index of each folder: of the label that it, or what ``names`` says of it,
    spells exactly; ``names`` may say an index too.

    Raises ``ValueError`` that names the folders that are no label and what comes closest to each,
    a folder whose label the model has twice, an index out of range, and two folders of one label.
    """
    told = names or {}
    found: dict[str, int] = {}
    unknown: list[str] = []
    for folder in sorted(folders):
        said = told.get(folder, folder)
        if isinstance(said, int) and not isinstance(said, bool):
            found[folder] = _checked(folder, said, len(labels))
        elif not isinstance(said, str):
            raise ValueError(f"folder {folder!r}: {said!r} is neither a label nor an index")
        elif (count := labels.count(said)) == 1:
            found[folder] = labels.index(said)
        elif count:
            raise ValueError(
                f"folder {folder!r}: the model has {count} labels {said!r}, "
                f"{_places(said, labels)}; --names can give the index"
            )
        else:
            unknown.append(f"{folder!r}{_closest(said, labels)}")
    if unknown:
        raise ValueError(_unknown(unknown, len(labels)))
    _check_single(found, labels)
    return found


def _checked(folder: str, index: int, count: int) -> int:
    if not 0 <= index < count:
        raise ValueError(f"folder {folder!r}: label {index} is out of range (0 to {count - 1})")
    return index


def _places(label: str, labels: Sequence[str]) -> str:
    return " and ".join(str(index) for index, each in enumerate(labels) if each == label)


def _closest(name: str, labels: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, labels, 1)
    return f" (closest: {close[0]!r})" if close else ""


def _unknown(unknown: Sequence[str], labels: int) -> str:
    shown = ", ".join(unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    what = "folder is none" if len(unknown) == 1 else "folders are none"
    return (
        f"{len(unknown)} {what} of the model's {labels} labels: {shown}{more}; "
        "`easel models --json` lists them, --names FILE says which is meant"
    )


def _check_single(found: Mapping[str, int], labels: Sequence[str]) -> None:
    first: dict[int, str] = {}
    for folder, index in found.items():
        if index in first:
            raise ValueError(f"folders {first[index]!r} and {folder!r} are both {labels[index]!r}")
        first[index] = folder
