"""Records of how a picture was made: who signed them, and what they hold for."""

from __future__ import annotations

import hashlib
import hmac
import platform
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import torch

from services.core.errors import FailedPrecondition, InvalidInput
from services.generator.network import Effective
from services.generator.request import Order

RECORD_KEY: Final = "easel"
"""What a record is called in a picture's metadata."""
# Which libraries have kernels of their own for, beyond AVX2 and AVX-512, NEON and SVE.
_SETS: Final = (
    "avx_vnni", "avx_vnni_int8", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx10_1", "avx10_2",
    "amx_int8", "amx_bf16", "amx_fp16", "dot", "i8mm", "bf16", "sve_bf16", "sme", "sme2",
)  # fmt: skip
_KEY_BYTES: Final = 32
_NAME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = _NAME_BYTES + hashlib.sha256().digest_size
_SIGNATURE: Final = "provenance.signature"


class Scribe(Protocol):
    """Writes down how the pictures of an order are made."""

    def record(self, order: Order, seed: int, pixel_sha256: str, painted: Effective) -> str:
        """The signed record of one picture, as JSON; from any thread. ``painted``: by what."""


class Signer:
    """Signs with the first of ``keys``, and knows what any of them has signed.

    HMAC-SHA256 (RFC 2104). A signature begins with its key's name, so that a forged record is told
    from one that another server signed. ``source`` says where the keys are from.
    """

    def __init__(self, keys: Sequence[bytes], source: str) -> None:
        self._keys = {_name(key): key for key in keys}
        self._own = _name(keys[0])
        self._source = source

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """As ``read_keys``."""
        return cls(read_keys(path), "the key file")

    @classmethod
    def drawn(cls) -> Self:
        """With a key that nobody else has, and that ends with this process."""
        return cls([secrets.token_bytes(_KEY_BYTES)], "drawn at start")

    def __str__(self) -> str:
        return f"{self._own.hex()}, {self._source}"

    def sign(self, record: bytes) -> bytes:
        return self._own + _mac(self._keys[self._own], record)

    def check(self, record: bytes, signature: bytes) -> None:
        """Raises ``InvalidInput`` for a signature that is none or not ``record``'s, and
        ``FailedPrecondition`` for one of another server.
        """
        if not signature:
            raise InvalidInput(
                _SIGNATURE,
                "The record is not signed.",
                f"{_SIGNATURE_BYTES} bytes",
                "0 bytes",
                reason="UNSIGNED_RECORD",
            )
        if len(signature) != _SIGNATURE_BYTES:
            raise InvalidInput(
                _SIGNATURE,
                "This is no signature of a record.",
                f"{_SIGNATURE_BYTES} bytes",
                f"{len(signature)} bytes",
                reason="FORGED_RECORD",
            )
        name, mac = signature[:_NAME_BYTES], signature[_NAME_BYTES:]
        if name not in self._keys:
            known = ", ".join(each.hex() for each in self._keys)
            raise FailedPrecondition(
                f"Another server signed the record: with key {name.hex()}, not with {known}.",
                reason="FOREIGN_SIGNATURE",
            )
        if not hmac.compare_digest(mac, _mac(self._keys[name], record)):
            raise InvalidInput(
                _SIGNATURE,
                "The signature does not match: the record is not as it was signed.",
                reason="FORGED_RECORD",
            )


def read_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a file: at least 32 bytes in hexadecimal each, one a line; lines that start with
    ``#`` are passed over. Raises ``ValueError`` and ``OSError``.
    """
    lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    keys = tuple(bytes.fromhex(line) for line in lines if line and not line.startswith("#"))
    if not keys or min(map(len, keys)) < _KEY_BYTES:
        raise ValueError(
            f"must hold keys of at least {_KEY_BYTES} bytes in hexadecimal, one a line"
        )
    return keys


def device_class(effective: Effective) -> str:
    """What exact pictures are equal on: libraries choose their kernels by it."""
    kind = effective.device.partition(":")[0].lower()
    if kind != "cpu":
        return f"{kind}/{effective.device_name}/{effective.backend}"
    # Older versions of PyTorch do not tell.
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    here = processor(torch.backends.cpu.get_cpu_capability(), told)
    return f"cpu/{here}/{effective.backend}/{effective.threads} threads"


def processor(capability: str, told: Mapping[str, Any]) -> str:
    """What of a processor libraries choose kernels and their blocks by, with slashes between: its
    name, ``capability`` (as PyTorch has it) with further sets of instructions, and the size of its
    second cache. ``told``: by PyTorch, nothing of what it does not know.
    """
    name = str(told.get("cpu_name", platform.machine())).replace("/", " ").strip()
    sets = [capability, *(each for each in _SETS if told.get(each))]
    cache = told.get("l2_cache_size", 0) // 1024
    return "/".join((name, "+".join(sets), *([f"L2 {cache} KiB"] if cache else [])))


def check_model(recorded: str, served: str) -> None:
    """Digests; raises ``FailedPrecondition`` when they differ."""
    if recorded != served:
        raise FailedPrecondition(
            f"The record is of another model: {recorded[:80]}, where {served} is served.",
            reason="OTHER_MODEL",
        )


def check_versions(recorded: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raises ``FailedPrecondition`` when the picture was made by other versions."""
    if others := differing(recorded, here):
        raise FailedPrecondition(
            f"The record is of other versions: {others}. "
            "allow_other_versions recomputes all the same.",
            reason="OTHER_VERSION",
        )


def differing(recorded: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs between a record and this server, in words; nothing where all is the same."""
    return "; ".join(
        f"{name} {recorded.get(name, 'unknown')} there, {here.get(name, 'unknown')} here"
        for name in sorted({*recorded, *here})
        if recorded.get(name) != here.get(name)
    )


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"easel signing key\0" + key).digest()[:_NAME_BYTES]


def _mac(key: bytes, record: bytes) -> bytes:
    return hmac.digest(key, record, "sha256")
