"""Encoded pictures to Pillow images and back, with every limit checked before decoding.

Nothing here changes a global of Pillow, and nothing depends on one: headers are read and files are
opened by the format's own plugin, past ``Image.open`` and its process-wide bomb warning. All
functions may run in many threads at once.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from PIL import (
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from services.core.errors import InvalidInput

PARAMETERS_KEY: Final = "parameters"
DEFAULT_QUALITY: Final = 90
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_EXIF_IFD: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_IMAGE_DESCRIPTION: Final = 0x010E
_COMMENT_IS_UNICODE: Final = b"UNICODE\0"
_FULL_CHROMA_QUALITY: Final = 95
# An EXIF segment is one marker of JPEG, whose length has 16 bits.
_MAX_EXIF_BYTES: Final = 65_000
_START_OF_SCAN: Final = b"\xff\xda"
# Real progressive files have about ten; each scan is a pass over every pixel.
_MAX_SCANS: Final = 100
# Of a picture of 64 x 64 that does not compress, and a header.
_SMALL_FILE_BYTES: Final = 16 * 2**10
_COMPRESSED_CHUNKS: Final = (b"zTXt", b"iTXt", b"iCCP")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is accepted: bounds are inclusive, sides and pixels are those the header declares."""

    max_bytes: int = 20 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 16_384
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP")


DEFAULT_LIMITS: Final = ImageLimits()


def decode(
    data: bytes, *, field: str = "image", limits: ImageLimits = DEFAULT_LIMITS
) -> Image.Image:
    """Decode one still picture, turned upright by its EXIF orientation, in its own mode.

    Checked in this order: empty, too many bytes, unknown format, a JPEG's scans, declared size,
    animation; only then is a pixel decoded. Embedded colour profiles are left
    unapplied, as model processors do. Raises ``InvalidInput`` naming ``field``, the limit and what
    was given.
    """
    kind = _checked_format(data, field, limits)
    try:
        _check_size(*_DECLARED_SIZE[kind](data), field, limits)
        image = _OPEN[kind](io.BytesIO(data))
        _check_size(*image.size, field, limits)
        _check_still(image, field)
        image.load()
        return _upright(image)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # the plugins raise a dozen kinds on bad data, none of them ours
        raise InvalidInput(field, f"The {kind} image is truncated or corrupt.") from error


def small_size(data: bytes) -> tuple[int, int] | None:
    """The width and height that a file of at most 16 KiB declares; None for a larger file, for one
    that is none of our formats or broken, and for a PNG whose text may unpack to megabytes.

    It says how long ``decode`` will take, and checks nothing.
    """
    kind = _sniffed_format(data) if len(data) <= _SMALL_FILE_BYTES else None
    if kind is None or (kind == "PNG" and any(name in data for name in _COMPRESSED_CHUNKS)):
        return None
    try:
        return _DECLARED_SIZE[kind](data)
    except Exception:  # as in ``decode``, which will say what is wrong
        return None


def to_rgb(image: Image.Image, background: tuple[int, int, int] | None = None) -> Image.Image:
    """Return ``image`` as 8-bit RGB: what ``ViTImageProcessor`` sees after ``.convert("RGB")``.

    That processor takes an RGB picture and by default converts nothing itself, so the meaning is
    Pillow's: grey is repeated, a palette looked up, CMYK inverted without a profile, and alpha
    *dropped*, which shows whatever colour lies under transparent pixels. Given a ``background``,
    pictures with alpha (a palette's included) are composited over it instead; transformers'
    own ``do_convert_rgb`` is ``background=(255, 255, 255)``.

    One exception: 16-bit grey is scaled to 8 bits with rounding, where Pillow would clip all
    above 255 to white.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        image = _scaled_to_8_bits(image)
    if background is not None and image.has_transparency_data:
        upper = image.convert("RGBA")
        lower = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(lower, upper).convert("RGB")
    if isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image if image.mode == "RGB" else image.convert("RGB")


def encode(
    image: Image.Image,
    format: str = "PNG",
    *,
    quality: int | None = None,
    text: Mapping[str, str] = MappingProxyType({}),
    field: str = "output",
) -> bytes:
    """Encode ``image``; equal arguments give equal bytes.

    ``format`` is PNG, JPEG or WEBP in any case; ``quality`` 1 to 100 for the latter two. ``text``
    becomes PNG text chunks (tEXt where Latin-1 suffices, else iTXt). In the other two,
    ``text["parameters"]`` becomes the EXIF UserComment, as image tools expect, and the rest a JSON
    object in ImageDescription; the rest, and then both, are left out where they would take more
    than 65,000 bytes.
    Raises ``InvalidInput`` on ``field``.
    """
    kind = {"JPG": "JPEG"}.get(format.upper(), format.upper())
    if kind not in _OPEN:
        raise InvalidInput(f"{field}.format", "Unknown image format.", ", ".join(_OPEN), format)
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise InvalidInput(f"{field}.quality", "Quality is out of range.", "1 to 100", quality)
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", compress_level=6, pnginfo=_png_text(text))
    elif kind == "JPEG":
        chroma = 0 if quality >= _FULL_CHROMA_QUALITY else 2
        to_rgb(image).save(
            buffer, "JPEG", quality=quality, subsampling=chroma, exif=_exif_text(text)
        )
    else:
        image.save(buffer, "WEBP", quality=quality, method=4, exif=_exif_text(text))
    return buffer.getvalue()


def read_text(
    data: bytes, *, field: str = "image", limits: ImageLimits = DEFAULT_LIMITS
) -> dict[str, str]:
    """Return the text that ``encode`` wrote into ``data``; empty where there is none.

    Raises as ``decode`` does.
    """
    image = decode(data, field=field, limits=limits)
    written = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    # A PNG may have both, once another tool was at it.
    return {**_exif_texts(image), **written} if "exif" in image.info else written


def _exif_texts(image: Image.Image) -> dict[str, str]:
    exif = image.getexif()
    found = _described(exif.get(_IMAGE_DESCRIPTION, "{}"))
    comment = exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    if isinstance(comment, bytes) and comment.startswith(_COMMENT_IS_UNICODE):
        text = comment.removeprefix(_COMMENT_IS_UNICODE).decode("utf-16-be", errors="replace")
        found[PARAMETERS_KEY] = text
    return found


def _described(description: Any) -> dict[str, str]:
    """Of an EXIF description what ``encode`` may have written; anybody can write anything there."""
    try:
        told = json.loads(description)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {name: text for name, text in told.items() if isinstance(text, str)}


def _checked_format(data: bytes, field: str, limits: ImageLimits) -> str:
    if not data:
        raise InvalidInput(field, "The image is empty.")
    if len(data) > limits.max_bytes:
        raise InvalidInput(
            field,
            "The image has too many bytes.",
            f"{limits.max_bytes} bytes",
            f"{len(data)} bytes",
        )
    kind = _sniffed_format(data)
    if kind is None or kind not in limits.formats:
        raise InvalidInput(
            field, "The image's format is not accepted.", ", ".join(limits.formats), kind
        )
    if kind == "JPEG":
        _check_scans(data, field)
    return kind


def _check_scans(data: bytes, field: str) -> None:
    scans = data.count(_START_OF_SCAN)
    if scans > _MAX_SCANS:
        raise InvalidInput(
            field, "The JPEG has too many scans.", f"{_MAX_SCANS} scans", f"{scans} scans"
        )


def _sniffed_format(data: bytes) -> str | None:
    if data.startswith(_PNG_MAGIC):
        return "PNG"
    if data.startswith(_JPEG_MAGIC):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def _check_size(width: int, height: int, field: str, limits: ImageLimits) -> None:
    given = f"{width}x{height}"
    if max(width, height) > limits.max_side:
        raise InvalidInput(field, "A side of the image is too long.", limits.max_side, given)
    if width * height > limits.max_pixels:
        raise InvalidInput(
            field, "The image has too many pixels.", f"{limits.max_pixels} pixels", given
        )


def _check_still(image: ImageFile.ImageFile, field: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise InvalidInput(
            field, "Animated images are not accepted.", "1 frame", f"{frames} frames"
        )


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    # The plugin reads markers up to the frame header and decodes nothing.
    return JpegImagePlugin.JpegImageFile(io.BytesIO(data)).size


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read the canvas of the first chunk; the plugin would allocate it before telling its size."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        packed = int.from_bytes(data[24:30], "little")
        return (packed & 0xFFFFFF) + 1, (packed >> 24) + 1
    if chunk == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


_DECLARED_SIZE: Final[Mapping[str, Callable[[bytes], tuple[int, int]]]] = MappingProxyType(
    {"JPEG": _jpeg_size, "PNG": _png_size, "WEBP": _webp_size}
)
_OPEN: Final[Mapping[str, Callable[[io.BytesIO], ImageFile.ImageFile]]] = MappingProxyType(
    {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
)


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a picture with a broken orientation tag is still a picture
        return image.copy()


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    wide = image.convert("I")
    return wide.point(lambda level: level * (1 / 257) + 0.5).convert("L")


def _png_text(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    return info


def _exif_text(text: Mapping[str, str]) -> bytes:
    parameters = {key: value for key, value in text.items() if key == PARAMETERS_KEY}
    for fitting in (text, parameters):
        if fitting and len(data := _exif(fitting)) <= _MAX_EXIF_BYTES:
            return data
    return b""


def _exif(text: Mapping[str, str]) -> bytes:
    exif = Image.Exif()
    rest = {key: value for key, value in text.items() if key != PARAMETERS_KEY}
    if rest:
        exif[_IMAGE_DESCRIPTION] = json.dumps(rest)
    if PARAMETERS_KEY in text:
        comment = _COMMENT_IS_UNICODE + text[PARAMETERS_KEY].encode("utf-16-be")
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
    return exif.tobytes()
