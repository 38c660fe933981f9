"""Every limit at, below and above; every mode; and no bytes that get past as an exception."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageOps, PngImagePlugin

from services.core.errors import InvalidInput
from services.core.images import ImageLimits, decode, encode, read_text, small_size, to_rgb

FORMATS = ("JPEG", "PNG", "WEBP")


def gradient(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    bands = [
        Image.linear_gradient("L").resize(size).rotate(90 * turn)
        for turn in range(len(Image.new(mode, (1, 1)).getbands()))
    ]
    return Image.merge(mode, bands) if len(bands) > 1 else bands[0].convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes, **limits: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode(data, field="image.data", limits=ImageLimits(**limits))
    assert caught.value.field == "image.data"
    return caught.value


def png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def jpeg_declaring(width: int, height: int) -> bytes:
    data = bytearray(saved(gradient(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_declaring(width: int, height: int) -> bytes:
    data = bytearray(saved(gradient("RGBA"), "WEBP", exif=b"Exif\0\0x"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1 | (height - 1) << 24).to_bytes(6, "little")
    return bytes(data)


def same(one: Image.Image, other: Image.Image) -> bool:
    equal = (one.mode, one.size) == (other.mode, other.size)
    return equal and ImageChops.difference(one, other).getbbox() is None


@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_encoded_decodes(kind: str) -> None:
    image = decode(saved(gradient(), kind, quality=95, lossless=True))
    assert image.size == (40, 24)
    assert kind == "JPEG" or same(image.convert("RGB"), gradient())
    assert type(image) is Image.Image


def test_empty() -> None:
    assert "empty" in refused(b"").message


def test_bytes_at_and_above_the_limit() -> None:
    data = saved(gradient(), "PNG")
    assert decode(data, limits=ImageLimits(max_bytes=len(data)))
    error = refused(data, max_bytes=len(data) - 1)
    assert (error.limit, error.given) == (f"{len(data) - 1} bytes", f"{len(data)} bytes")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ({"max_pixels": 40 * 24 + 1}, True),
        ({"max_pixels": 40 * 24}, True),
        ({"max_pixels": 40 * 24 - 1}, False),
        ({"max_side": 41}, True),
        ({"max_side": 40}, True),
        ({"max_side": 39}, False),
    ],
)
def test_sizes_below_at_and_above_the_limit(kind: str, limits: dict[str, Any], fits: bool) -> None:
    for lossless in (False, True):
        data = saved(gradient(), kind, lossless=lossless)
        if fits:
            assert decode(data, limits=ImageLimits(**limits)).size == (40, 24)
        else:
            assert refused(data, **limits).given == "40x24"


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (png_declaring(50_000, 50_000), "50000x50000"),
        (png_declaring(16_384, 16_384), "16384x16384"),
        (png_declaring(10_000, 10_000), "10000x10000"),
        (jpeg_declaring(50_000, 50_000), "50000x50000"),
        (jpeg_declaring(9_500, 9_500), "9500x9500"),
        (webp_declaring(50_000, 50_000), "50000x50000"),
    ],
    ids=["png", "png-side", "png-warned", "jpeg", "jpeg-warned", "webp"],
)
def test_bombs_are_refused_by_their_header_without_a_warning(data: bytes, given: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert refused(data).given == given
    assert warned == []


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO"])
def test_other_formats(kind: str) -> None:
    assert refused(saved(gradient(), kind)).limit == "JPEG, PNG, WEBP"


def test_formats_can_be_narrowed() -> None:
    error = refused(saved(gradient(), "WEBP"), formats=("PNG",))
    assert (error.limit, error.given) == ("PNG", "WEBP")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations(kind: str) -> None:
    frames = [gradient(), gradient().rotate(180)]
    assert refused(saved(frames[0], kind, save_all=True, append_images=frames[1:])).given == (
        "2 frames"
    )
    assert decode(saved(frames[0], kind, save_all=True)).size == (40, 24)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9])
def test_truncated(kind: str, kept: float) -> None:
    data = saved(gradient(size=(200, 120)), kind)
    refused(data[: int(len(data) * kept)])


@pytest.mark.parametrize("kind", FORMATS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_corrupt_bytes_are_invalid_or_decode(kind: str, data: st.DataObject) -> None:
    good = saved(gradient(), kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    damaged = bytearray(good)
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255)), max_size=12)
    ):
        damaged[at] = value
    decoded_or_invalid(bytes(damaged))


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]), st.binary()
)
@example(b"RIFF\0\0\0\0WEBP", b"VP8X")
def test_random_bytes_are_invalid(head: bytes, rest: bytes) -> None:
    decoded_or_invalid(head + rest)


def decoded_or_invalid(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on corrupt EXIF
        with suppress(InvalidInput):
            to_rgb(decode(data, limits=ImageLimits(max_pixels=10_000)))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient(), kind, exif=exif.tobytes(), quality=90)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert same(decode(data), upright)
    assert decode(data).size == ((24, 40) if orientation > 4 else (40, 24))


def test_the_size_limit_is_on_the_file_not_on_the_turned_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(gradient(), "JPEG", exif=exif.tobytes())
    assert decode(data, limits=ImageLimits(max_side=40)).size == (24, 40)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("1", "PNG"),
        ("RGBA", "WEBP"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
    ],
)
def test_rgb_is_what_pillow_converts_to(mode: str, kind: str) -> None:
    data = saved(gradient(mode), kind)
    assert same(to_rgb(decode(data)), Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 240, 15))])
def test_palettes(transparency: int | bytes | None) -> None:
    image = gradient().quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    data = saved(image, "PNG", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rgb = to_rgb(decode(data))
    assert same(rgb, image.convert("RGB"))


def test_sixteen_bit_grey_is_scaled_with_rounding() -> None:
    image = Image.new("I;16", (256 + 4, 1))
    levels = [*(level * 257 for level in range(256)), 128, 129, 65535 - 129, 65535 - 128]
    for x, level in enumerate(levels):
        image.putpixel((x, 0), level)
    decoded = decode(saved(image, "PNG"))
    assert decoded.mode.startswith("I")
    grey = list(to_rgb(decoded).getchannel("R").tobytes())
    assert grey[:256] == list(range(256))
    assert grey[256:] == [0, 1, 254, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_over_a_background(mode: str) -> None:
    clear = Image.new(mode, (4, 4), 0)
    assert to_rgb(clear).getpixel((0, 0)) == (0, 0, 0)
    assert to_rgb(clear, background=(255, 0, 128)).getpixel((0, 0)) == (255, 0, 128)
    opaque = gradient("RGB")
    assert to_rgb(opaque, background=(255, 0, 128)) is opaque


def test_a_palettes_transparency_over_a_background() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    decoded = decode(saved(image, "PNG", transparency=1))
    rgb = to_rgb(decoded, background=(255, 255, 255))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


@pytest.mark.parametrize("kind", FORMATS)
def test_text_comes_back_and_bytes_are_the_same_each_time(kind: str) -> None:
    text = {"parameters": "a cat, Steps: 20 — größer 猫", "provenance": '{"seed": 1}'}
    data = encode(gradient(), kind, text=text)
    assert data == encode(gradient(), kind, text=text)
    assert data != encode(gradient(), kind)
    assert read_text(data) == text
    assert read_text(encode(gradient(), kind)) == {}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ('{"easel": "a record", "other": "text"}', {"easel": "a record", "other": "text"}),
        ('{"easel": 5, "other": "text", "more": ["easel"]}', {"other": "text"}),
        ('["easel"]', {}),
        ("OLYMPUS DIGITAL CAMERA", {}),
        ("", {}),
        ("[" * 50_000, {}),
    ],
)
def test_text_of_other_programs(description: str, expected: dict[str, str]) -> None:
    exif = Image.Exif()
    exif[0x010E] = description
    assert read_text(saved(gradient(), "JPEG", exif=exif.tobytes())) == expected


def test_a_pngs_texts_are_read_whatever_exif_another_program_adds() -> None:
    text = {"parameters": "a cat — größer", "easel": '{"seed": 1}'}
    ours = Image.open(io.BytesIO(encode(gradient(), "PNG", text=text)))
    chunks = PngImagePlugin.PngInfo()
    for name, words in ours.text.items():  # type: ignore[attr-defined]
        chunks.add_itxt(name, words)
    exif = Image.Exif()
    exif[0x010E] = '{"easel": "not ours", "other": "text"}'
    data = saved(ours, "PNG", pnginfo=chunks, exif=exif.tobytes())
    assert read_text(data) == {**text, "other": "text"}


def test_half_a_character_in_a_comment() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "a star".encode("utf-16-be") + b"\0"
    found = read_text(saved(gradient(), "JPEG", exif=exif.tobytes()))
    assert found == {"parameters": "a star\N{REPLACEMENT CHARACTER}"}


def test_latin_parameters_are_in_the_customary_chunk() -> None:
    assert b"tEXtparameters\0a cat" in encode(gradient(), "PNG", text={"parameters": "a cat"})


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_quality_matters_and_is_bounded(kind: str) -> None:
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    sizes = [len(encode(image, kind, quality=quality)) for quality in (1, 50, 100)]
    assert sizes == sorted(sizes)
    for quality in (0, 101):
        with pytest.raises(InvalidInput) as caught:
            encode(image, kind, quality=quality, field="output")
        assert caught.value.field == "output.quality"


def test_alpha_and_jpeg() -> None:
    assert decode(encode(gradient("RGBA"), "jpg")).mode == "RGB"
    assert same(decode(encode(gradient("RGBA"), "PNG")), gradient("RGBA"))


def test_unknown_output_format() -> None:
    with pytest.raises(InvalidInput) as caught:
        encode(gradient(), "TIFF")
    assert caught.value.field == "output.format"


def test_many_threads_at_once() -> None:
    good, bad = saved(gradient(size=(300, 200)), "JPEG"), saved(gradient(), "JPEG")[:200]

    def work(number: int) -> tuple[int, int] | str:
        try:
            return decode(bad if number % 3 == 0 else good).size
        except InvalidInput as error:
            return error.field

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(60)))
    assert done == ["image" if number % 3 == 0 else (300, 200) for number in range(60)]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(("characters", "kept"), [(32_000, True), (33_000, False)])
def test_text_too_long_for_its_place_is_left_out(kind: str, characters: int, kept: bool) -> None:
    text = {"parameters": "x" * characters}
    assert read_text(encode(gradient(), kind, text=text)) == (text if kept else {})


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_the_parameters_are_kept_before_the_rest(kind: str) -> None:
    text = {"parameters": "x" * 20_000, "easel": "y" * 40_000}
    assert read_text(encode(gradient(), kind, text=text)) == {"parameters": "x" * 20_000}
    text = {"parameters": "x" * 10_000, "easel": "y" * 40_000}
    assert read_text(encode(gradient(), kind, text=text)) == text


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_opened() -> None:
    data = saved(gradient(), "JPEG", progressive=True)
    scan = data[data.index(b"\xff\xda") : -2]
    assert decode(data).size == (40, 24)
    error = refused(data[:-2] + scan * 100 + data[-2:])
    assert error.limit == "100 scans"
    assert error.given is not None
    assert error.given.endswith(" scans")


@pytest.mark.parametrize("kind", FORMATS)
def test_small_files_tell_their_size(kind: str) -> None:
    assert small_size(saved(gradient(), kind)) == (40, 24)


@pytest.mark.parametrize(("more", "size"), [(-1, (40, 24)), (0, (40, 24)), (1, None)])
def test_what_is_a_small_file(more: int, size: tuple[int, int] | None) -> None:
    data = saved(gradient(), "PNG")
    assert small_size(data + bytes(16 * 1024 + more - len(data))) == size


@pytest.mark.parametrize("text", ["zTXt", "iTXt"])
def test_a_png_whose_text_is_compressed_is_not_small(text: str) -> None:
    chunks = PngImagePlugin.PngInfo()
    if text == "zTXt":
        chunks.add_text("long", "x" * 100_000, zip=True)
    else:
        chunks.add_itxt("long", "x" * 100_000, zip=True)
    data = saved(gradient(), "PNG", pnginfo=chunks)
    assert len(data) < 16 * 1024
    assert small_size(data) is None


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"])
def test_what_is_no_picture_is_not_small(data: bytes) -> None:
    assert small_size(data) is None
