import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from services.classifier.classifier import Classifier
from services.classifier.model import Answer, ClassifierModel, Row
from services.classifier.request import ClassifyRequest, EmbedRequest, Picture
from services.core.caller import Caller
from services.core.card import ClassifierDetails, ModelState
from services.core.engine import Engine
from services.core.errors import DeadlineExceeded, InvalidInput, ModelFault, NotFound
from services.core.pool import WorkerPool
from tests.unit.classifier.fakes import DEPTH, FILES, LABELS, FakeNetwork, fleet_of, until

GREEN = ClassifyRequest(Picture(lambda: Image.new("RGB", (3, 5), (0, 255, 0))))
CALLER = Caller("tenant", 1, None)


def undecoded() -> Image.Image:
    raise AssertionError("limits are checked before decoding")


class Bench:
    """A classifier over a fake network; ``gate`` holds every batch back until it is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.network = FakeNetwork(gate=self.gate)
        model = ClassifierModel(self.network, lambda: FILES, now=lambda: 7.0)
        self.fleet = fleet_of(model)
        self.pool = WorkerPool("decode", 1, 8)
        self.classifier = Classifier(self.fleet, self.pool, max_answer_bytes=1000)

    @property
    def engine(self) -> Engine[Row, Answer]:
        return self.fleet.find("", "").engine


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await asyncio.to_thread(bench.fleet.load)
    await bench.fleet.start()
    yield bench
    bench.gate.set()
    await bench.fleet.close()
    bench.pool.close()
    assert bench.network.closed


async def test_classify(bench: Bench) -> None:
    result = await bench.classifier.classify(replace(GREEN, logits=True, top_k=2), CALLER)
    assert [label.name for label in result.labels] == ["green", "red"]
    assert [label.logit for label in result.labels] == [1.0, 0.0]
    assert result.model == FILES
    assert (result.timing.steps, result.timing.batch_rows) == (1, 1)
    assert result.timing.prepare_seconds > 0.0
    assert result.timing.finish_seconds > 0.0


async def test_a_quick_picture_takes_no_thread(bench: Bench) -> None:
    bench.pool.close()
    quick = replace(GREEN, picture=replace(GREEN.picture, quick_bytes=45))
    assert (await bench.classifier.classify(quick, CALLER)).labels[0].name == "green"


async def test_embed(bench: Bench) -> None:
    request = EmbedRequest(GREEN.picture, layers=(1, -1), normalize=True)
    result = await bench.classifier.embed(request, CALLER)
    assert [embedding.reading.layer for embedding in result.embeddings] == [1, DEPTH]
    assert np.frombuffer(result.embeddings[0].data, "<f4").tolist() == [0.5] * 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"top_k": 0}, "top_k"),
        ({"top_k": len(LABELS) + 1}, "top_k"),
        ({"threshold": float("nan")}, "threshold"),
        ({"labels": ("red", "mauve")}, "labels"),
        ({"id": "x" * 129}, "id"),
    ],
)
async def test_limits_come_before_decoding(
    bench: Bench, changes: dict[str, object], field: str
) -> None:
    request = replace(GREEN, picture=Picture(undecoded), **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        await bench.classifier.classify(request, CALLER)
    assert caught.value.field == field


async def test_another_models_name_or_version(bench: Bench) -> None:
    assert await bench.classifier.classify(replace(GREEN, model="fake", model_version="1"), CALLER)
    for changes in ({"model": "other"}, {"model_version": "2"}):
        with pytest.raises(NotFound):
            await bench.classifier.classify(
                replace(GREEN, picture=Picture(undecoded), **changes),  # type: ignore[arg-type]
                CALLER,
            )


async def test_a_deadline_that_passed(bench: Bench) -> None:
    with pytest.raises(DeadlineExceeded):
        await bench.classifier.classify(GREEN, Caller(deadline=time.monotonic() - 1.0))


async def test_a_cancelled_caller_leaves_nothing(bench: Bench) -> None:
    bench.gate.clear()
    first, second = (
        asyncio.ensure_future(bench.classifier.classify(GREEN, CALLER)) for _ in range(2)
    )
    await until(lambda: bench.engine.report().rows == 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    bench.gate.set()
    assert (await second).labels[0].name == "green"
    await until(lambda: bench.engine.report().rows == 0)
    assert bench.engine.backlog_seconds == 0.0


@pytest.mark.parametrize("begun", [True, False])
async def test_a_picture_that_is_being_prepared_holds_its_model(bench: Bench, begun: bool) -> None:
    opened = threading.Event()
    member = bench.fleet.find("", "")

    def decoded() -> Image.Image:
        opened.wait()
        return Image.new("RGB", (3, 5))

    request = replace(GREEN, picture=Picture(decoded))
    asked = asyncio.ensure_future(bench.classifier.classify(request, CALLER))
    if begun:
        await until(lambda: member.in_use)
    draining = asyncio.create_task(member.drain(60.0))
    await until(lambda: member.in_use)
    opened.set()
    assert (await asked).labels
    await draining
    assert not member.in_use


async def test_one_that_is_given_up_before_it_begins_does_not(bench: Bench) -> None:
    asked = asyncio.ensure_future(bench.classifier.classify(GREEN, CALLER))
    asked.cancel()
    await asyncio.wait([asked])
    assert not bench.fleet.find("", "").in_use
    await bench.fleet.find("", "").drain(60.0)


async def test_a_fault_ends_its_batch_alone(bench: Bench) -> None:
    bench.network.faults.append(RuntimeError("secret"))
    with pytest.raises(ModelFault) as caught:
        await bench.classifier.classify(GREEN, CALLER)
    assert "secret" not in caught.value.message
    assert (await bench.classifier.classify(GREEN, CALLER)).labels


async def test_the_card_tells_what_is_in_force(bench: Bench) -> None:
    card = bench.fleet.get_model("", "")
    assert [card] == list(bench.fleet.list_models())
    assert (card.name, card.state, card.loaded_at) == ("fake", ModelState.READY, 7.0)
    assert isinstance(card.details, ClassifierDetails)
    assert card.details.labels == LABELS
    (profile,) = card.config.batches
    assert profile.key == f"layer {DEPTH}"
    assert profile.observations > 0
    assert card.config.extra == {
        "formats": "",
        "poolings": "cls, mean, patch",
        "temperature": "1",
    }
    with pytest.raises(NotFound):
        bench.fleet.get_model("other", "")
