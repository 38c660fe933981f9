"""The catalogue in every kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from ranker.catalogue import document, store
from ranker.catalogue.document import Document
from ranker.catalogue.model import Model, Usage
from ranker.catalogue.store import Changes
from ranker.database import Database
from services.core.errors import FailedPrecondition, InvalidInput, NotFound
from tests.unit.ranker.catalogue.models import NOW, capability, claim, model

T = TypeVar("T")

VIT = model(
    "vit",
    name="ViT",
    licence="Apache-2.0",
    aliases=("google/vit", "Big ViT"),
    versions=("1", "2"),
    released=date(2020, 10, 22),
    usage=(Usage("likes", 12, "hub", NOW), Usage("downloads", 0, "hub")),
    capabilities=(
        capability(
            "vit/embed",
            name="Embeddings",
            intents=("find similar images", "embed an image"),
            claims=(
                claim(measured="85 %", source="here", measured_at=NOW, verified=True),
                claim(name="another"),
            ),
        ),
        capability("vit/classify"),
    ),
)
DIFFUSION = model("sd", name="Stable Diffusion", type="image-generator")
MIRROR = Model("sd-mirror", "sd-mirror", same_as="sd", aliases=("runwayml/sd",))


class Catalogue:
    """``store`` over a database, on a clock of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOW

    async def read(self, fn: Callable[[Connection], T]) -> T:
        return await self.database.read(fn)

    async def put(self, *models: Model, max_models: int = 100) -> list[Model]:
        def put(connection: Connection) -> list[Model]:
            return [store.put(connection, each, self.now, max_models) for each in models]

        return await self.database.write(put)

    async def remove(self, name: str) -> None:
        await self.database.write(lambda c: store.remove(c, name))

    async def find(self, text: str) -> Model:
        return await self.read(lambda c: store.find(c, text))

    async def apply(self, *models: Model, keep_others: bool = False) -> Changes:
        given = Document(models, {})
        return await self.database.write(
            lambda c: store.apply(c, given, self.now, keep_others=keep_others, max_models=100)
        )

    async def plan(self, *models: Model, keep_others: bool = False) -> Changes:
        given = Document(models, {})
        return await self.read(
            lambda c: store.plan(c, given, keep_others=keep_others, max_models=100)
        )

    async def revision(self) -> int:
        return await self.read(store.revision)

    async def content(self) -> str:
        return document.write(await self.read(store.every_record))


@pytest.fixture
async def catalogue(database_url: str) -> AsyncIterator[Catalogue]:
    database = Database.open(database_url)
    yield Catalogue(database)
    await database.close()


async def test_what_is_put_is_found_by_any_of_its_names(catalogue: Catalogue) -> None:
    (kept,) = await catalogue.put(VIT)
    assert kept == replace(VIT, updated_at=NOW, revision=1)
    for name in ("vit", "VIT", "google/vit", "GOOGLE/ViT", " big  vit "):
        assert await catalogue.find(name) == kept


async def test_what_is_not_there_offers_the_nearest(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match=r"no model 'vit' in the catalogue\.$"):
        await catalogue.find("vit")
    await catalogue.put(VIT, DIFFUSION)
    with pytest.raises(NotFound, match="nearest names: 'Stable Diffusion'"):
        await catalogue.find("stable difusion")
    with pytest.raises(NotFound, match="'google/vit'"):
        await catalogue.find("gogle/vit")
    for empty in ("", "  "):
        with pytest.raises(InvalidInput):
            await catalogue.find(empty)


async def test_what_no_name_can_be_is_told(catalogue: Catalogue) -> None:
    await catalogue.put(VIT)
    for size in (199, 200):
        with pytest.raises(NotFound):
            await catalogue.find("x" * size)
    for text in ("x" * 201, "a\0b"):
        with pytest.raises(InvalidInput):
            await catalogue.find(text)
    assert await catalogue.read(lambda c: store.page(c, type="a\0b", after="", size=1)) == []


async def test_another_record_leads_to_the_model(catalogue: Catalogue) -> None:
    copy = replace(MIRROR, id="sd-copy", name="sd-copy", same_as="sd-mirror", aliases=())
    _, mirror, _ = await catalogue.put(DIFFUSION, MIRROR, copy)
    assert mirror.same_as == "sd"
    for name in ("sd-mirror", "RUNWAYML/sd", "sd-copy", "Stable Diffusion"):
        assert (await catalogue.find(name)).id == "sd"
    assert await catalogue.read(store.ids) == ["sd"]
    found = await catalogue.read(lambda c: store.model_ids(c, ["SD-Copy", "sd", "vit"]))
    assert found == {"SD-Copy": "sd", "sd": "sd"}


async def test_every_change_raises_the_revision_and_nothing_else_does(
    catalogue: Catalogue,
) -> None:
    assert await catalogue.revision() == 0
    await catalogue.put(VIT, DIFFUSION)
    assert await catalogue.revision() == 2
    catalogue.now += timedelta(hours=1)
    (same,) = await catalogue.put(VIT)
    assert (same.updated_at, same.revision) == (NOW, 1)
    assert await catalogue.revision() == 2
    (changed,) = await catalogue.put(replace(VIT, price="free"))
    assert (changed.updated_at, changed.revision) == (catalogue.now, 3)
    assert await catalogue.read(lambda c: store.changed_since(c, 2)) == [changed]
    await catalogue.remove("sd")
    assert await catalogue.revision() == 4
    assert await catalogue.read(store.ids) == ["vit"]


async def test_a_put_takes_the_place_of_all_that_was(catalogue: Catalogue) -> None:
    await catalogue.put(VIT)
    smaller = replace(VIT, aliases=("vit-l",), capabilities=VIT.capabilities[:1], versions=())
    (kept,) = await catalogue.put(smaller)
    assert await catalogue.find("vit-l") == kept
    assert kept.capabilities == VIT.capabilities[:1]
    with pytest.raises(NotFound):
        await catalogue.find("google/vit")


async def test_a_fault_leaves_everything_as_it_was(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION, MIRROR)
    before, revision = await catalogue.content(), await catalogue.revision()
    for wrong, told in (
        (replace(DIFFUSION, aliases=("Google/ViT",)), "'vit' already"),
        (replace(DIFFUSION, name="vit"), "'vit' already"),
        (replace(DIFFUSION, type="", same_as="sd-mirror"), "sd-mirror -> sd"),
        (replace(MIRROR, same_as="nowhere"), "no record 'nowhere'"),
        (replace(VIT, id="Not an id"), "small letters"),
    ):
        with pytest.raises(InvalidInput, match=told):
            await catalogue.put(wrong)
        if wrong.id != "Not an id":  # a document's models were checked one by one
            others = [each for each in (VIT, DIFFUSION, MIRROR) if each.id != wrong.id]
            with pytest.raises(InvalidInput, match=told):
                await catalogue.apply(*others, wrong)
    with pytest.raises(FailedPrecondition, match="'sd-mirror'") as caught:
        await catalogue.remove("sd")
    assert caught.value.reason == "SAME_AS_IN_USE"
    with pytest.raises(NotFound):
        await catalogue.remove("nothing")
    assert (await catalogue.content(), await catalogue.revision()) == (before, revision)


async def test_no_more_than_may_be(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION, max_models=2)
    await catalogue.put(replace(VIT, price="free"), max_models=2)
    with pytest.raises(FailedPrecondition, match="has 2 models, and 2 may be") as caught:
        await catalogue.put(MIRROR, max_models=2)
    assert caught.value.reason == "CATALOGUE_FULL"
    await catalogue.put(MIRROR, max_models=3)


async def test_removing_one_record_leaves_the_model(catalogue: Catalogue) -> None:
    await catalogue.put(DIFFUSION, MIRROR)
    await catalogue.remove("runwayml/sd")
    assert (await catalogue.find("sd")).id == "sd"
    with pytest.raises(NotFound):
        await catalogue.find("sd-mirror")
    await catalogue.remove("stable diffusion")
    assert await catalogue.read(store.every_record) == []


async def test_pages_hold_every_model_once(catalogue: Catalogue) -> None:
    made = [model(f"m{number:02d}", type=f"type-{number % 2}") for number in range(25)]
    await catalogue.apply(*made, MIRROR, DIFFUSION)
    seen: list[str] = []

    def next_page(connection: Connection) -> list[Model]:
        return store.page(connection, type="", after=seen[-1] if seen else "", size=7)

    while page := await catalogue.read(next_page):
        seen += [each.id for each in page]
        assert len(page) <= 7
    assert seen == sorted([*(each.id for each in made), "sd"])
    odd = await catalogue.read(lambda c: store.page(c, type="type-1", after="m10", size=100))
    assert [each.id for each in odd] == [f"m{number}" for number in range(11, 25, 2)]


async def test_an_import_is_told_before_and_done_as_told(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION, MIRROR)
    new, changed = model("new", aliases=("google/vit",)), replace(VIT, aliases=())
    expected = Changes(added=("new",), changed=("vit",), removed=("sd", "sd-mirror"))
    before, revision = await catalogue.content(), await catalogue.revision()

    assert await catalogue.plan(changed, new) == expected
    assert (await catalogue.content(), await catalogue.revision()) == (before, revision)

    assert await catalogue.apply(changed, new) == expected
    assert await catalogue.content() == document.write([new, changed])
    assert await catalogue.revision() == revision + 1
    assert (await catalogue.find("google/vit")).id == "new"

    assert not await catalogue.apply(new, changed)
    assert await catalogue.revision() == revision + 1


async def test_an_import_may_leave_the_others(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION)
    assert await catalogue.plan(MIRROR, keep_others=True) == Changes(added=("sd-mirror",))
    await catalogue.apply(MIRROR, keep_others=True)
    assert await catalogue.read(store.ids) == ["sd", "vit"]
    with pytest.raises(InvalidInput, match="'vit' already"):
        await catalogue.apply(model("other", aliases=("ViT",)), keep_others=True)


async def test_what_was_a_model_may_become_another_record_and_back(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION)
    turned = Model("vit", "ViT", same_as="sd", aliases=VIT.aliases)
    await catalogue.put(turned)
    assert (await catalogue.find("google/vit")).id == "sd"
    await catalogue.apply(VIT, Model("sd", "sd", same_as="vit"))
    assert (await catalogue.find("sd")).capabilities == VIT.capabilities


async def test_an_export_is_the_import_of_itself(catalogue: Catalogue) -> None:
    await catalogue.put(VIT, DIFFUSION, MIRROR)
    text = await catalogue.content()
    given = document.read(text, 2**20)
    assert not await catalogue.plan(*given.models)
    for each in (MIRROR, VIT, DIFFUSION):
        await catalogue.remove(each.id)
    await catalogue.apply(*given.models)
    assert await catalogue.content() == text


async def test_times_come_back_as_they_were(catalogue: Catalogue) -> None:
    at = datetime.fromisoformat("2026-11-26T01:02:03.000004+05:00")
    found = claim(measured="1", source="s", measured_at=at)
    await catalogue.put(model(capabilities=(capability(claims=(found,)),)))
    kept = await catalogue.find("vit")
    assert kept.capabilities[0].claims[0].measured_at == at
    assert kept.updated_at == NOW


async def test_counts_of_use_by_type(catalogue: Catalogue) -> None:
    other = model("deit", usage=(Usage("likes", 3, "hub"),))
    generator = model("sd", type="image-generator", usage=(Usage("likes", 9, "hub"),))
    await catalogue.put(VIT, other, generator)

    found = await catalogue.read(lambda connection: store.usage(connection, "image-classifier"))

    assert found == {"likes": {"vit": 12, "deit": 3}, "downloads": {"vit": 0}}
