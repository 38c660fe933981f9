"""Tensors as they come and go: names, datatypes, shapes, and numbers in rows.

Everything here is checked without decoding a picture. Field names in errors are those of
``inference.ModelInferRequest``; the texts say all of it, for clients of this protocol show
nothing else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from services.core.errors import InvalidInput

BYTES: Final = "BYTES"
FP32: Final = "FP32"
UINT8: Final = "UINT8"

ANY: Final = -1
"""Any length, in the shape of a ``TensorSpec``."""

_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {UINT8: np.dtype(np.uint8), FP32: np.dtype("<f4")}
_LENGTH_BYTES: Final = 4
_MAX_SHOWN_CHARS: Final = 100
_MAX_SHOWN_DIMENSIONS: Final = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or answers with; the first dimension is the batch.

    ``layout`` is "NHWC" or "NCHW" for pictures.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    layout: str = ""


@dataclass(slots=True)
class Tensor:
    """A tensor of a request.

    ``values`` are its elements row by row: little-endian ``bytes``, which for BYTES have each
    element's length before it, or a sequence of them. ``field`` is the path of the tensor in the
    request, ``values_field`` that of its elements.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: bytes | Sequence[Any]
    field: str = "inputs[0]"
    values_field: str = "raw_input_contents[0]"

    @property
    def typed(self) -> bool:
        """Whether each element is a number of Python's."""
        return not isinstance(self.values, bytes)

    def check_values(self) -> None:
        """Raises ``InvalidInput`` where there are not as many numbers as the shape says."""
        expected, given, unit = math.prod(self.shape), len(self.values), "elements"
        if not self.typed:
            expected, unit = expected * _DTYPES[self.datatype].itemsize, "bytes"
        if given != expected:
            raise InvalidInput(
                self.values_field,
                f"{self.name!r} is {self.datatype} {shown(self.shape)}, which takes {expected} "
                f"{unit}, not {given}.",
                f"{expected} {unit}",
                f"{given} {unit}",
            )

    def item(self, index: int) -> npt.NDArray[Any]:
        """The numbers at ``index`` of the batch, in the shape of the rest; after ``check_values``.

        Raises ``InvalidInput`` where a number is beyond its datatype.
        """
        dtype, shape = _DTYPES[self.datatype], self.shape[1:]
        size = math.prod(shape)
        start = index * size
        if isinstance(self.values, bytes):
            return np.frombuffer(self.values, dtype, size, start * dtype.itemsize).reshape(shape)
        try:
            return np.array(self.values[start : start + size], dtype).reshape(shape)
        except (OverflowError, ValueError) as error:
            raise InvalidInput(
                self.values_field,
                f"{self.name!r} has an element that is no {self.datatype}.",
                self.datatype,
            ) from error

    def elements(self) -> Sequence[bytes]:
        """The elements of BYTES. Raises ``InvalidInput`` where there are not as many as the shape
        says.
        """
        count, values = math.prod(self.shape), self.values
        if isinstance(values, bytes):
            return _split(self, values, count)
        if len(values) != count:
            raise self._wrong_count(count, f"{len(values)}")
        elements: Sequence[Any] = values
        return elements

    def _wrong_count(self, count: int, given: str) -> InvalidInput:
        return InvalidInput(
            self.values_field,
            f"{self.name!r} is {BYTES} {shown(self.shape)}, which takes {count} elements, "
            f"not {given}.",
            f"{count} elements",
            f"{given} elements",
        )


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """A tensor of an answer; ``data`` as it goes over the wire."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


def _split(tensor: Tensor, data: bytes, count: int) -> list[bytes]:
    found: list[bytes] = []
    start = 0
    while start < len(data):
        if len(found) == count:
            raise tensor._wrong_count(count, "more")
        begin = start + _LENGTH_BYTES
        end = begin
        if begin <= len(data):
            end += struct.unpack_from("<I", data, start)[0]
        if begin > len(data) or end > len(data):
            raise InvalidInput(
                tensor.values_field,
                f"Element {len(found)} of {tensor.name!r} ends after the data; each is its length "
                f"in {_LENGTH_BYTES} bytes, little-endian, then itself.",
                f"{len(data)} bytes",
                f"{end} bytes",
            )
        found.append(data[begin:end])
        start = end
    if len(found) < count:
        raise tensor._wrong_count(count, f"{len(found)}")
    return found


def join(elements: Iterable[bytes]) -> bytes:
    """The elements of BYTES as they go over the wire."""
    return b"".join([struct.pack("<I", len(element)) + element for element in elements])


def numbers(name: str, rows: npt.NDArray[np.float32]) -> OutputTensor:
    """``rows`` [batch, ...] as a tensor."""
    return OutputTensor(name, FP32, rows.shape, np.ascontiguousarray(rows, "<f4").tobytes())


def classes(name: str, rows: Sequence[Sequence[tuple[float, int, str]]]) -> OutputTensor:
    """The best (score, index, label) of each item of a batch, equally many each, as the
    classification extension has them: ``score:index:label``.
    """
    texts = [f"{score:f}:{index}:{label}".encode() for row in rows for score, index, label in row]
    return OutputTensor(name, BYTES, (len(rows), len(rows[0])), join(texts))


def check_batch(tensor: Tensor, max_batch: int) -> int:
    """How many items the tensor has. Raises ``InvalidInput`` below 1 and above ``max_batch``."""
    count = tensor.shape[0]
    if not 1 <= count <= max_batch:
        raise InvalidInput(
            f"{tensor.field}.shape",
            f"{tensor.name!r} has a batch of {count}; 1 to {max_batch} are taken at a time.",
            f"1 to {max_batch}",
            count,
        )
    return count


def check_shape(tensor: Tensor, *accepted: tuple[int, ...]) -> None:
    """Raises ``InvalidInput`` where the shape is none of these, in which ``ANY`` is any length from
    1 on, but for the batch.
    """
    if not any(_fits(tensor.shape, shape) for shape in accepted):
        limit = " or ".join(shown(shape) for shape in accepted)
        raise InvalidInput(
            f"{tensor.field}.shape",
            f"{tensor.name!r} as {tensor.datatype} has the shape {limit}, not "
            f"{shown(tensor.shape)}.",
            limit,
            shown(tensor.shape),
        )


def _fits(given: tuple[int, ...], accepted: tuple[int, ...]) -> bool:
    if len(given) != len(accepted):
        return False
    pairs = zip(given[1:], accepted[1:], strict=True)
    return all(length >= 1 and wanted in (ANY, length) for length, wanted in pairs)


def shown(shape: Sequence[int]) -> str:
    """``shape`` in an error's text."""
    lengths = [str(length) for length in shape[:_MAX_SHOWN_DIMENSIONS]]
    more = ["..."] if len(shape) > _MAX_SHOWN_DIMENSIONS else []
    return f"[{', '.join(lengths + more)}]"


def shortened(text: str) -> str:
    """A caller's ``text`` in an error's."""
    return text[:_MAX_SHOWN_CHARS]
