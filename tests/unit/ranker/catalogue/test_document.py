"""YAML documents: what is read, what is refused and where, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.catalogue import checks, document
from ranker.catalogue.model import Capability, Claim, Model
from services.core.errors import InvalidInput
from tests.unit.ranker.catalogue.models import model

MEGABYTE = 2**20
NOTHING: Mapping[str, Model] = {}

FULL = """
easel_catalogue: 1
models:
  - id: vit
    name: ViT
    type: image-classifier
    licence: Apache-2.0
    price: free
    provenance: |
      Two
      lines
    aliases: [google/vit, "on"]
    versions: [1.10, 2]
    capabilities:
      - id: classify
        name: Classification
        description: Names things.
        intents: [classify an image]
        best_for: [pictures]
        limitations: [1000]
        requires: [null_device]
        input_types: [image]
        output_types: [labels]
        claims:
          - name: accuracy
            claimed: 90.88
            measured: 85.1 %
            source: README
            measured_at: 2021-05-01
            verified: false
          - {name: other, measured: "1", source: s, measured_at: 2021-05-01T12:00:00+02:00, verified: true}
  - id: vit-copy
    same_as: vit
    type: ~
"""  # noqa: E501


def test_everything_is_read_as_it_is_written() -> None:
    first, second = document.read(FULL, MEGABYTE).models
    (capability,) = first.capabilities
    one, two = capability.claims

    assert first.aliases == ("google/vit", "on")
    assert first.versions == ("1.10", "2")
    assert first.provenance == "Two\nlines\n"
    assert capability.id == "vit/classify"
    assert capability.limitations == ("1000",)
    assert one == Claim(
        "accuracy", "90.88", "85.1 %", "README", datetime(2021, 5, 1, tzinfo=UTC), verified=False
    )
    assert two.measured_at == datetime(2021, 5, 1, 10, tzinfo=UTC)
    assert two.verified
    assert second == Model(id="vit-copy", name="vit-copy", same_as="vit")


def with_line(line: str, instead_of: str) -> str:
    assert instead_of in FULL
    return FULL.replace(instead_of, line)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("place", "instead_of", "line", "told"),
    [
        ("models[0].colour", "price: free", "colour: red", "no such field.* licence, price"),
        ("models[0].capabilities[0].uses", "best_for:", "uses:", "no such field"),
        (
            "models[0].capabilities[0].claims[0].believed",
            "claimed: 90.88",
            "believed: 90.88",
            "no such field",
        ),
        ("colour", "models:", "colour: red\nmodels:", "no such field.* easel_catalogue, models"),
        ("models[0].price", "price: free", "price: [free]", "must be a text"),
        ("models[0].aliases", "aliases: [google/vit,", "aliases: no #", "must be a list"),
        ("models[0].versions[0]", "[1.10, 2]", "[{a: b}]", "must be a text"),
        ("models[0].versions[0]", "[1.10, 2]", "[~]", "must be a text"),
        ("models[0].capabilities[0].name", "        name: Classification\n", "", "missing"),
        (
            "models[0].capabilities[0].claims[0].verified",
            "verified: false",
            "verified: 'no'",
            "must be true or false",
        ),
        (
            "models[0].capabilities[0].claims[0].measured_at",
            "measured_at: 2021-05-01\n",
            "measured_at: last May\n",
            "must be a day or a time",
        ),
        (
            "models[0].capabilities[0].claims[0].measured_at",
            "measured_at: 2021-05-01\n",
            "measured_at: 2021-05-01 12:00:00\n",
            "its zone",
        ),
        (
            "models[0].capabilities[0].claims[0].measured_at",
            "measured_at: 2021-05-01\n",
            "measured_at: 0001-01-01T00:00:00+14:00\n",
            "years 1 and 9999",
        ),
        ("models[0].type", "type: image-classifier", "type: Image Classifier", "small letters"),
        ("models[0].aliases[1]", '"on"]', "VIT]", "one of 'vit' already"),
        ("models[1].licence", "type: ~", "licence: MIT", "same as 'vit'"),
        ("easel_catalogue", "easel_catalogue: 1", "easel_catalogue: 2", "another format"),
    ],
)  # fmt: skip
def test_faults_are_told_by_place_and_line(
    place: str, instead_of: str, line: str, told: str
) -> None:
    text = with_line(line, instead_of)
    with pytest.raises(InvalidInput, match=told) as caught:
        document.read(text, MEGABYTE)
    assert caught.value.field == f"yaml.{place}"
    if line and place != "easel_catalogue":
        number = line_of(text, line.split("#")[0].strip())
        assert f"Line {number}:" in caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "one document"),
        ("--- 1\n--- 2\n", "one document"),
        ("just a text", "must be a mapping"),
        ("[1, 2]", "must be a mapping"),
        ("models: []", "easel_catalogue|needed, and missing"),
        ("a: [", r"Line \d: this is no YAML"),
        ("a: b\n\tc: d", "this is no YAML"),
        ("a: \x00", "no YAML"),
        ("a: 1\na: 2", "Line 2: the key 'a' stands there twice"),
        ("? [a]\n: b", "a key must be a text"),
        ("a: &x [1]\nb: *x", r"Line 2: aliases \(\*\) are not read"),
        ("a: !!python/object/apply:os.system ['true']", r"tags \(!\) are not read"),
        ("a: !!binary aGk=", "tags"),
        ("[" * 100_000, "nested too deep"),
        ("a: " + "{b: " * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_catalogue_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        document.read(text, MEGABYTE)
    assert caught.value.field.startswith("yaml")


def test_the_size_is_limited() -> None:
    size = len(FULL.encode())
    document.read(FULL, size + 1)
    document.read(FULL, size)
    with pytest.raises(InvalidInput) as caught:
        document.read(FULL, size - 1)
    assert (caught.value.limit, caught.value.given) == (f"{size - 1} bytes", str(size))


TWO = """
easel_catalogue: 1
models:
  - {id: a, type: t, aliases: [x]}
  - {id: b, type: t, aliases: [%s]%s}
"""


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        (TWO % ("X", ""), "models[1].aliases[0]", "Line 5: the name 'X' is that of 'a' already"),
        (TWO % ("A", ""), "models[1].aliases[0]", "'A' is that of 'a'"),
        ((TWO % ("y", "")).replace("id: b", "id: a"), "models[1].id", r"models\[0\] \(line 4\)"),
        (
            TWO.replace("type: t, aliases: [x]", "same_as: b") % ("y", ", same_as: a"),
            "models[0].same_as",
            "a -> b -> a",
        ),
        (TWO % ("y", ", same_as: c"), "models[1].same_as", "no record 'c'"),
        (TWO % ("z", ""), "models[1].aliases[0]", "'z' is that of 'other' already"),
    ],
)
def test_what_does_not_fit_together_is_refused(text: str, place: str, told: str) -> None:
    given = document.read(text, MEGABYTE)
    with pytest.raises(InvalidInput, match=told) as caught:
        given.check({"other": model("other", aliases=("Z",))}, 10)
    assert caught.value.field == f"yaml.{place}"


def test_the_number_of_models_is_limited() -> None:
    given = document.read(TWO % ("y", ""), MEGABYTE)
    others = {"other": model("other")}
    given.check(others, 4)
    given.check(others, 3)
    with pytest.raises(InvalidInput, match="would have 3") as caught:
        given.check(others, 2)
    assert (caught.value.limit, caught.value.given) == ("2", "3")


LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20
).filter(str.strip)
BLOCKS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), include_characters="\n\t"),
    max_size=40,
)
SLUGS = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True)
LISTS = st.lists(LINES, max_size=3, unique=True).map(tuple)
MOMENTS = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone(timedelta(hours=2)))
)
CLAIMS = st.builds(
    Claim,
    name=LINES,
    claimed=LINES,
    measured=LINES,
    source=LINES,
    measured_at=st.none() | MOMENTS,
    verified=st.booleans(),
)


@st.composite
def models(draw: st.DrawFn) -> Model:
    id = draw(SLUGS)
    names = draw(st.lists(SLUGS, max_size=3, unique=True))
    capabilities = [
        Capability(
            id=f"{id}/{name}",
            name=draw(LINES),
            description=draw(BLOCKS),
            intents=draw(LISTS),
            limitations=draw(LISTS),
            claims=tuple(draw(st.lists(CLAIMS, max_size=2))),
        )
        for name in names
    ]
    return Model(
        id=id,
        name=draw(LINES),
        type=draw(SLUGS),
        licence=draw(LINES),
        provenance=draw(BLOCKS),
        versions=draw(LISTS),
        capabilities=tuple(capabilities),
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(models(), max_size=2))
def test_what_is_written_is_read(given_models: list[Model]) -> None:
    for each in given_models:
        checks.check_model(each)
    text = document.write(given_models)
    assert document.read(text, MEGABYTE).models == tuple(given_models)
    assert document.write(document.read(text, MEGABYTE).models) == text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(FULL.splitlines())).map("\n".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        document.read(text, MEGABYTE).check(NOTHING, 100)
