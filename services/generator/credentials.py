"""Content credentials: C2PA manifests, signed with the operator's certificate.

They need the extra ``c2pa``, which is imported on first use alone: its library is 50 MB.
"""

from __future__ import annotations

import importlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from PIL import Image

from services.core.errors import ModelFault
from services.core.packages import installed_version

ALGORITHMS: Final = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")
# IPTC NewsCodes, digital source type: made by a model that was trained on data.
_SOURCE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_TYPES: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Signs pictures as made by a trained model (C2PA 2, ``c2pa.created``); from any thread."""

    library: Any
    context: Any
    certificates: bytes
    key: bytes
    algorithm: str

    @classmethod
    def load(cls, certificates: Path, key: Path, algorithm: str) -> Self:
        """PEM files: the signing certificate with those above it, and its PKCS #8 key.

        Raises ``ValueError`` where nothing can be signed with them, or without the extra ``c2pa``;
        ``OSError`` for a file that cannot be read.
        """
        try:
            library = importlib.import_module("c2pa")
        except ImportError as error:
            raise ValueError("needs the extra c2pa: pip install 'easel[c2pa]'") from error
        context = library.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
        made = cls(library, context, certificates.read_bytes(), key.read_bytes(), algorithm)
        made._try()
        return made

    def sign(self, data: bytes, format_name: str, record: str) -> bytes:
        """``data``, a PNG, JPEG or WEBP file, with a manifest in it, and in that what ``record``, a
        JSON object, says; blocking. Pixels and metadata stay as they are. Raises ``ModelFault``.
        """
        try:
            return self._signed(data, format_name, record)
        except self.library.C2paError as error:
            raise ModelFault() from error

    def _try(self) -> None:
        sample = io.BytesIO()
        Image.new("RGB", (8, 8)).save(sample, "PNG")
        try:
            self._signed(sample.getvalue(), "PNG", "")
        except self.library.C2paError as error:
            raise ValueError(f"cannot sign: {error}") from error

    def _signed(self, data: bytes, format_name: str, record: str) -> bytes:
        library = self.library
        info = library.C2paSignerInfo(self.algorithm, self.certificates, self.key, None)
        signed = io.BytesIO()
        with (
            library.Signer.from_info(info) as signer,
            library.Builder(_manifest(record), self.context) as builder,
        ):
            builder.sign(signer, _TYPES[format_name], io.BytesIO(data), signed)
        return signed.getvalue()


def _manifest(record: str) -> str:
    created = {"action": "c2pa.created", "digitalSourceType": _SOURCE}
    assertions: list[dict[str, Any]] = [
        {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
    ]
    if record:
        assertions.append({"label": "easel.provenance", "data": json.loads(record)})
    generator = {"name": "easel", "version": installed_version("easel") or "unreleased"}
    return json.dumps({"claim_generator_info": [generator], "assertions": assertions})
