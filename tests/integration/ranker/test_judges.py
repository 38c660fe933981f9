"""All kinds of judges on the wire, in RankImages and BestOf."""

from __future__ import annotations

import io
import math
from collections.abc import AsyncIterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.pictures.judges.reward import GROUP, Plugins
from services.core.errors import EaselError, InvalidInput
from services.core.server.status import from_rpc_error
from tests.clips import write_clip
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import FIRST_SEED, PROMPT, upstreams


class Brightness:
    """Scores how light a picture is, and by how long the prompt is."""

    spread = 10.0

    def score(self, pixels: np.ndarray, prompt: str) -> float:
        return float(pixels.mean()) + len(prompt)


class Brighter:
    """Prefers the lighter one, and the one that comes first."""

    def prefer(self, a: np.ndarray, b: np.ndarray, prompt: str) -> float:
        gap = float(a.mean()) - float(b.mean())
        return min(1.0, 0.1 + 1.0 / (1.0 + math.exp(-gap / 10.0)))


def unloadable() -> None:
    raise ImportError("no such library")


def plugins() -> Plugins:
    here = "tests.integration.ranker.test_judges"
    found = {"brightness": "Brightness", "brighter": "Brighter", "unloadable": "unloadable"}
    points = [EntryPoint(name, f"{here}:{what}", GROUP) for name, what in found.items()]
    return Plugins(lambda: points)


def grey(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def images(*encoded: bytes) -> list[ranker_pb2.RankImage]:
    return [
        ranker_pb2.RankImage(id=str(place), image=common_pb2.Image(encoded=data))
        for place, data in enumerate(encoded)
    ]


def angles(*degrees: int) -> list[ranker_pb2.RankImage]:
    return images(*(b"picture %d" % each for each in degrees))


def judged(**kind: Any) -> ranker_pb2.Judge:
    return ranker_pb2.Judge(**kind)


@pytest.fixture
async def ranker() -> AsyncIterator[RunningRanker]:
    async with upstreams() as up, running_ranker(up, plugins(), max_pairwise=4) as running:
        yield running


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small-clip"
    write_clip(directory)
    return directory


async def rank(
    ranker: RunningRanker,
    pictures: Sequence[ranker_pb2.RankImage],
    *judges: ranker_pb2.Judge,
    prompt: str = PROMPT,
) -> ranker_pb2.RankImagesResponse:
    request = ranker_pb2.RankImagesRequest(images=pictures, judges=judges, prompt=prompt)
    answer: ranker_pb2.RankImagesResponse = await ranker.stub.RankImages(request)
    return answer


async def refused(
    ranker: RunningRanker, pictures: Sequence[ranker_pb2.RankImage], *judges: Any, **fields: Any
) -> tuple[grpc.StatusCode, EaselError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rank(ranker, pictures, *judges, **fields)
    return caught.value.code(), from_rpc_error(caught.value)


def places(answer: ranker_pb2.RankImagesResponse) -> list[tuple[str, int, bool]]:
    return [(each.id, each.rank, each.tied) for each in answer.images]


# ---- similarity ----


async def test_similarity_to_references_with_ties(ranker: RunningRanker) -> None:
    references = [common_pb2.Image(encoded=b"like 0"), common_pb2.Image(encoded=b"like 60")]
    judge = judged(similarity=ranker_pb2.SimilarityJudge(references=references))
    answer = await rank(ranker, angles(90, 30, 0, 0), judge, prompt="")
    assert places(answer) == [("1", 1, False), ("2", 2, True), ("3", 2, True), ("0", 4, False)]
    assert answer.images[0].score == pytest.approx(math.cos(math.radians(30)))
    assert answer.images[0].parts[:] == [answer.images[0].score]
    assert not answer.images[0].HasField("top")
    assert answer.classifier.name == "vit"
    assert ranker.upstreams.classifier.images == []
    (resolved,) = answer.judges
    assert (resolved.weight, resolved.spread, resolved.similarity.layer) == (1.0, 1.0, -1)
    assert not resolved.similarity.references


async def test_similarity_in_a_layer_of_ones_own(ranker: RunningRanker) -> None:
    like = ranker_pb2.SimilarityJudge(
        references=[common_pb2.Image(encoded=b"like 0")], layer=2, model="vit"
    )
    await rank(ranker, angles(1), judged(similarity=like))
    assert ranker.upstreams.classifier.embedded == [(b"like 0", 2), (b"picture 1", 2)]


@pytest.mark.parametrize(
    ("like", "field"),
    [
        ({"references": [{"encoded": b"no picture"}]}, "judges[1].similarity.references"),
        ({"references": [{"encoded": b"like 1"}], "layer": 7}, "judges[1].similarity.layer"),
        ({"references": [{"encoded": b"like 1"}] * 17}, "judges[1].similarity.references"),
    ],
)
async def test_similarity_to_what_cannot_be_looked_at(
    ranker: RunningRanker, like: dict[str, Any], field: str
) -> None:
    judges = judged(label={"label": "red star"}), judged(similarity=like)
    code, error = await refused(ranker, angles(1), *judges)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, InvalidInput)
    assert error.field == field


async def test_similarity_by_an_unknown_model(ranker: RunningRanker) -> None:
    like = {"references": [{"encoded": b"like 1"}], "model": "nope"}
    code, _ = await refused(ranker, angles(1), judged(similarity=like))
    assert code is grpc.StatusCode.NOT_FOUND


# ---- sums ----


async def test_a_sum_counts_in_spreads(ranker: RunningRanker) -> None:
    like = ranker_pb2.SimilarityJudge(references=[common_pb2.Image(encoded=b"like 0")])
    label = ranker_pb2.LabelJudge(label="red star")
    judges = judged(label=label, weight=2.0), judged(similarity=like, weight=-1.0, spread=0.5)
    answer = await rank(ranker, angles(0, 60), *judges)
    for image in answer.images:
        log_probability, cosine = image.parts
        assert image.score == pytest.approx(2.0 * log_probability - cosine / 0.5)
    assert [each.id for each in answer.images] == ["1", "0"]
    assert answer.images[0].top.name == "red star"
    assert [each.spread for each in answer.judges] == [1.0, 0.5]
    unset = judged(label=label), judged(similarity=like)
    assert [each.spread for each in (await rank(ranker, angles(0), *unset)).judges] == [1.0, 0.1]


# ---- text and picture ----


async def test_text_and_picture(ranker: RunningRanker, clip: Path) -> None:
    judge = judged(text_image=ranker_pb2.TextImageJudge())
    async with upstreams() as up, running_ranker(up, text_image_models=[clip]) as own:
        answer = await rank(own, images(grey(10), grey(250), b"no picture", grey(10)), judge)
        named = judged(text_image={"text": "a blue ring", "model": "small-clip"})
        other = await rank(own, images(grey(10)), named, prompt="")
        code, error = await refused(own, images(grey(1)), judge, prompt=" ")
        unknown = judged(text_image={"model": "large-clip"})
        _, missing = await refused(own, images(grey(1)), unknown)
        long = judged(text_image={"text": "red " * 200})
        _, too_long = await refused(own, images(grey(1)), long)
    scored = {each.id: each for each in answer.images}
    assert scored["0"].score == scored["3"].score != scored["1"].score
    assert scored["0"].tied
    assert scored["2"].error.field == "images[2].image.encoded"
    assert not answer.classifier.name
    (resolved,) = answer.judges
    assert (resolved.text_image.text, resolved.text_image.model) == (PROMPT, "small-clip")
    assert other.images[0].score != scored["0"].score
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    for found, field in ((error, "text"), (missing, "model"), (too_long, "text")):
        assert isinstance(found, InvalidInput)
        assert found.field == f"judges[0].text_image.{field}"
    assert isinstance(missing, InvalidInput)
    assert missing.limit == "small-clip"


async def test_no_text_image_model_is_configured(ranker: RunningRanker) -> None:
    code, error = await refused(ranker, images(grey(1)), judged(text_image={"text": "x"}))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "EASEL_RANKER_TEXT_IMAGE_MODELS" in error.message


# ---- plug-ins ----


async def test_a_plugin_scores_encoded_and_raw_pictures(ranker: RunningRanker) -> None:
    raw = common_pb2.RawImage(data=b"\x64" * 12, width=2, height=2, channels=3)
    pictures = [*images(grey(50)), ranker_pb2.RankImage(id="raw", image=common_pb2.Image(raw=raw))]
    answer = await rank(ranker, pictures, judged(reward={"name": "brightness", "text": "abc"}))
    assert [(each.id, each.score) for each in answer.images] == [("raw", 103.0), ("0", 53.0)]
    label = judged(label={"label": "red star"})
    summed = await rank(ranker, images(b"5"), label, judged(reward={"name": "brightness"}))
    assert summed.judges[1].spread == 10.0
    assert summed.images[0].error.field == "images[0].image.encoded"


async def test_a_plugin_that_cannot_be_loaded(ranker: RunningRanker) -> None:
    code, error = await refused(ranker, images(grey(1)), judged(reward={"name": "unloadable"}))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "'unloadable'" in error.message
    assert "ImportError" in error.message


async def test_a_plugin_that_is_not_there_and_a_ranking_it_has_no_use_for(
    ranker: RunningRanker,
) -> None:
    _, missing = await refused(ranker, images(grey(1)), judged(reward={"name": "brightnes"}))
    assert isinstance(missing, InvalidInput)
    assert (missing.field, missing.limit) == ("judges[0].reward.name", "brightness, brighter")
    pairs = {"name": "brightness", "ranking": ranker_pb2.PAIRWISE_RANKING_WIN_RATE}
    _, error = await refused(ranker, images(grey(1)), judged(reward=pairs))
    assert isinstance(error, InvalidInput)
    assert error.field == "judges[0].reward.ranking"
    _, unknown = await refused(ranker, images(grey(1)), judged(reward={"name": "x", "ranking": 9}))
    assert isinstance(unknown, InvalidInput)
    assert (unknown.field, unknown.given) == ("judges[0].reward.ranking", "9")


# ---- pairs ----


async def test_pictures_compared_two_by_two(ranker: RunningRanker) -> None:
    pictures = images(grey(20), grey(90), b"no picture", grey(20))
    answer = await rank(ranker, pictures, judged(reward={"name": "brighter"}))
    assert places(answer) == [("1", 1, False), ("0", 2, True), ("3", 2, True), ("2", 0, False)]
    assert sum(each.score for each in answer.images) == pytest.approx(0.0, abs=1e-6)
    (resolved,) = answer.judges
    assert resolved.reward.ranking == ranker_pb2.PAIRWISE_RANKING_BRADLEY_TERRY
    rates = {"name": "brighter", "ranking": ranker_pb2.PAIRWISE_RANKING_WIN_RATE}
    answer = await rank(ranker, pictures[:2], judged(reward=rates))
    assert 0.5 < answer.images[0].score < 1.0
    assert answer.images[0].score + answer.images[1].score == pytest.approx(1.0)


@pytest.mark.parametrize("count", [4, 5])
async def test_no_more_than_the_bound_are_compared(ranker: RunningRanker, count: int) -> None:
    pictures = images(*(grey(10 * place) for place in range(count)))
    judge = judged(reward={"name": "brighter"})
    if count <= 4:
        assert len((await rank(ranker, pictures, judge)).images) == count
        return
    code, error = await refused(ranker, pictures, judge)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, InvalidInput)
    assert (error.field, error.limit, error.given) == ("judges", "4", "5")


async def test_best_of_with_a_pairwise_judge(ranker: RunningRanker) -> None:
    """The candidate of the largest seed is the lightest at every step."""
    script = ranker.upstreams.generator
    script.draw = lambda step, seed: grey(step + 20 * (seed - FIRST_SEED))
    script.patience = {6: 2, 8: 1}
    request = ranker_pb2.BestOfRequest(
        generate=generator_pb2.GenerateRequest(prompt=PROMPT),
        candidates=4,
        judges=[judged(reward={"name": "brighter"})],
    )
    events = [event async for event in ranker.stub.BestOf(request)]
    result = events[-1].result
    assert [each.index for each in result.candidates] == [3, 2, 1, 0]
    assert result.row_steps_spent == script.row_steps == 4 * 6 + 2 * 2 + 1 * 2
    assert not result.classifier.name
    assert ranker.upstreams.classifier.images == []
    assert [len(each.parts) for each in result.candidates] == [1, 1, 1, 1]
    started = events[0].started
    assert started.judges[0].reward.text == PROMPT


async def test_too_many_candidates_for_a_pairwise_judge(ranker: RunningRanker) -> None:
    request = ranker_pb2.BestOfRequest(
        generate=generator_pb2.GenerateRequest(prompt=PROMPT),
        candidates=5,
        judges=[judged(reward={"name": "brighter"})],
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ranker.stub.BestOf(request).read()
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidInput)
    assert (error.field, error.limit) == ("judges", "4")
    assert ranker.upstreams.generator.submitted == []
