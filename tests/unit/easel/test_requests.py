"""Keyword arguments to requests."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from easel.cli.best_of import parse_rounds
from easel.cli.generate import parse_control
from easel.client import Control, requests
from easel.client.picture import to_message
from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from tests.unit.easel.pictures import png


def test_what_is_left_out_is_left_to_the_server() -> None:
    request = requests.generate_request("a cat")

    set_fields = {field.name for field, _ in request.ListFields()}
    assert set_fields == {"prompt", "text_to_image"}


def test_a_picture_to_begin_from(tmp_path: Path) -> None:
    file = tmp_path / "in.png"
    file.write_bytes(png())
    request = requests.generate_request("a cat", image=file, strength=0.5)
    assert request.WhichOneof("mode") == "image_to_image"
    assert request.image_to_image.image.encoded == png()
    assert request.image_to_image.strength == 0.5


def test_a_mask_makes_it_an_inpainting() -> None:
    request = requests.generate_request(
        "a cat",
        image=png(),
        mask=png(),
        mask_polarity="transparent-is-repainted",
        feather_px=4,
        padding_px=0,
    )
    assert request.WhichOneof("mode") == "inpaint"
    asked = request.inpaint
    assert asked.image.encoded == asked.mask.encoded == png()
    assert asked.polarity == generator_pb2.MASK_POLARITY_TRANSPARENT_IS_REPAINTED
    assert (asked.feather_px, asked.padding_px) == (4, 0)
    assert asked.HasField("padding_px")
    assert not asked.HasField("strength")
    # Never guessed: left out, the server refuses it.
    unsaid = requests.generate_request("a cat", image=png(), mask=png())
    assert unsaid.inpaint.polarity == generator_pb2.MASK_POLARITY_UNSPECIFIED


def test_a_style_makes_it_a_stylization() -> None:
    request = requests.generate_request("", image=png(), style=png(), style_strength=0.0)
    assert request.WhichOneof("mode") == "stylize"
    asked = request.stylize
    assert asked.content.encoded == asked.style.encoded == png()
    assert asked.HasField("style_strength")
    assert not asked.HasField("content_strength")
    stray: tuple[dict[str, Any], ...] = (
        {"style": png()},
        {"image": png(), "content_strength": 0.5},
    )
    for options, needed in zip(stray, ("image", "style"), strict=True):
        with pytest.raises(ValueError, match=f"needs {needed}"):
            requests.generate_request("", **options)
    for other in ({"strength": 0.5}, {"mask": png()}):
        with pytest.raises(ValueError, match="does not go with style"):
            requests.generate_request("", image=png(), style=png(), **other)


def test_options_of_what_is_not_given_are_refused() -> None:
    for stray in ({"strength": 0.5}, {"mask": png()}, {"image": png(), "feather_px": 2}):
        with pytest.raises(ValueError, match=r"needs (image|mask)"):
            requests.generate_request("a cat", **stray)
    with pytest.raises(ValueError, match="'black' is not one of white-is-repainted"):
        requests.generate_request("a cat", image=png(), mask=png(), mask_polarity="black")


@pytest.mark.parametrize(
    ("written", "sampler"),
    [
        ("ddim", generator_pb2.SAMPLER_DDIM),
        ("Euler a", generator_pb2.SAMPLER_EULER_ANCESTRAL),
        ("euler-ancestral", generator_pb2.SAMPLER_EULER_ANCESTRAL),
        ("DPM++ 2M Karras", generator_pb2.SAMPLER_DPMPP_2M_KARRAS),
    ],
)
def test_samplers_are_read_as_people_write_them(written: str, sampler: int) -> None:
    assert requests.generate_request("x", sampler=written).sampler == sampler


def test_every_sampler_name_is_read_back() -> None:
    read = [requests.generate_request("x", sampler=n).sampler for n in requests.sampler_names()]

    assert sorted(read) == sorted(value for value in generator_pb2.Sampler.values() if value)


def test_an_unknown_sampler_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="sampler: 'magic' is not one of ddim, euler"):
        requests.generate_request("x", sampler="magic")


def test_adapters_with_and_without_a_scale() -> None:
    request = requests.generate_request("x", adapters=["ink", "a:b:0.8", "c:-1e-1"])

    assert [adapter.name for adapter in request.adapters] == ["ink", "a:b", "c"]
    assert not request.adapters[0].HasField("scale")
    assert request.adapters[1].scale == pytest.approx(0.8)
    assert request.adapters[2].scale == pytest.approx(-0.1)


def test_an_adapter_whose_scale_is_no_number() -> None:
    with pytest.raises(ValueError, match="adapter: 'ink:strong' is not a name, or a name:scale"):
        requests.generate_request("x", adapters=["ink:strong"])


def test_zero_and_unset_stay_apart() -> None:
    assert not requests.generate_request("x").HasField("seed")
    assert requests.generate_request("x", seed=0).HasField("seed")


def test_options_reach_their_fields() -> None:
    request = requests.generate_request(
        "x", seeds=[1, 2], preview_every=3, preview_method="decoded", format="jpeg", quality=80
    )

    assert list(request.seeds) == [1, 2]
    assert request.preview.every == 3
    assert request.preview.method == generator_pb2.PREVIEW_METHOD_DECODED
    assert request.output.format == common_pb2.IMAGE_FORMAT_JPEG
    assert request.output.quality == 80


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        requests.generate_request("x", colour="red")  # type: ignore[call-arg]


def test_no_rounds_means_no_pruning_and_none_means_the_servers_own() -> None:
    generate = requests.generate_request("x")

    assert requests.best_of_request(generate, candidates=4, rounds=[]).pruning.disabled
    assert not requests.best_of_request(generate, candidates=4).HasField("pruning")


def test_rounds_are_read_from_text() -> None:
    assert parse_rounds("0.3:4, 0.6:2") == [(0.3, 4), (0.6, 2)]
    assert parse_rounds("0.3:4:1.5,0.6:2") == [(0.3, 4, 1.5), (0.6, 2)]
    assert parse_rounds(" ") is None
    with pytest.raises(ValueError, match="'half' is not SHARE:KEEP"):
        parse_rounds("0.3:4,half")


def test_a_picture_may_be_a_path_bytes_or_a_pillow_image(tmp_path: Path) -> None:
    data = png()
    file = tmp_path / "p.png"
    file.write_bytes(data)

    assert to_message(file).encoded == to_message(str(file)).encoded == data
    assert to_message(data).encoded == data
    drawn = to_message(Image.new("RGB", (3, 2), "red")).encoded
    assert Image.open(BytesIO(drawn)).size == (3, 2)
    with pytest.raises(TypeError, match="not a picture: int"):
        to_message(3)  # type: ignore[arg-type]


def test_conditioning_reaches_its_fields(tmp_path: Path) -> None:
    (tmp_path / "edges.png").write_bytes(png())
    edges = Control("canny", tmp_path / "edges.png", scale=0.0, start=0.1)
    request = requests.generate_request(
        "x", prompt_weighting=True, clip_skip=2, guidance_rescale=0.5, controls=[edges]
    )
    assert (request.prompt_weighting, request.clip_skip) == (True, 2)
    assert request.guidance_rescale == 0.5
    [control] = request.controls
    assert (control.name, control.image.encoded) == ("canny", png())
    assert (control.HasField("scale"), control.scale, control.HasField("end")) == (True, 0.0, False)


@pytest.mark.parametrize(
    ("text", "control"),
    [
        ("canny=a.png", Control("canny", Path("a.png"))),
        ("canny=a,b=c.png", Control("canny", Path("a,b=c.png"))),
        ("c=a.png,end=0.5,scale=2", Control("c", Path("a.png"), scale=2.0, end=0.5)),
        ("c=a.png,start=0.25", Control("c", Path("a.png"), start=0.25)),
    ],
)
def test_controls_are_read_as_written(text: str, control: Control) -> None:
    assert parse_control(text) == control


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("canny", "is not NAME=FILE"),
        ("=a.png", "is not NAME=FILE"),
        ("c=,scale=1", "is not NAME=FILE"),
        ("c=a.png,scale=much", "scale 'much' is not a number"),
        ("c=a.png,end=1,end=1", "end is given twice"),
    ],
)
def test_a_control_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_control(text)
