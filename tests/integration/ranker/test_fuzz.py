"""Random bytes and random messages: answered or refused, never a fault of the ranker's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easel.ranker.v1 import ranker_pb2
from tests.integration.ranker.conftest import RunningRanker
from tests.integration.ranker.upstreams import PROMPT

FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
BEST_OF = "/easel.ranker.v1.RankerService/BestOf"
RANK_IMAGES = "/easel.ranker.v1.RankerService/RankImages"
MAX_DEPTH = 4
F = FieldDescriptor

_SMALL = st.sampled_from([0, 1, 2, 3, 7])
_FLOATS = st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0, -1.0]) | st.floats(width=32)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    F.TYPE_DOUBLE: _FLOATS,
    F.TYPE_FLOAT: _FLOATS,
    F.TYPE_INT32: _SMALL | st.integers(-(2**31), 2**31 - 1),
    F.TYPE_ENUM: _SMALL,
    F.TYPE_UINT32: _SMALL | st.integers(0, 2**32 - 1),
    F.TYPE_INT64: _SMALL | st.integers(-(2**63), 2**63 - 1),
    F.TYPE_UINT64: _SMALL | st.integers(0, 2**64 - 1),
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_STRING: st.sampled_from(["", PROMPT, "red star", "vit", "sd"])
    | st.text(st.characters(codec="utf-8"), max_size=20),
    F.TYPE_BYTES: st.sampled_from([b"", b"picture 5"]) | st.binary(max_size=20),
}


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], depth: int = 0) -> Message:
    """A message with some of its fields set."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if draw(st.integers(0, 2)) and depth < MAX_DEPTH:
            _fill(draw, message, field, depth)
    return message


def _fill(draw: st.DrawFn, message: Message, field: Any, depth: int) -> None:
    if field.type == F.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
        text = _SCALARS[F.TYPE_STRING]
        getattr(message, field.name).update(draw(st.dictionaries(text, text, max_size=3)))
    elif field.type == F.TYPE_MESSAGE:
        inner = getattr(message, field.name)
        target = inner.add() if field.is_repeated else inner
        target.CopyFrom(draw(messages(type(target), depth + 1)))
    elif field.is_repeated:
        values = draw(st.lists(_SCALARS[field.type], max_size=3))
        getattr(message, field.name).extend(values)
    else:
        setattr(message, field.name, draw(_SCALARS[field.type]))


async def _code(call: Callable[[], Any]) -> grpc.StatusCode:
    made = call()
    try:
        if hasattr(made, "__aiter__"):
            async for _ in made:
                pass
        else:
            await made
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@FUZZ
@given(data=st.binary(max_size=200))
async def test_random_bytes_to_best_of(ranker: RunningRanker, data: bytes) -> None:
    call: Any = ranker.channel.unary_stream(BEST_OF)
    assert await _code(lambda: call(data, timeout=30)) not in FAULTS


@FUZZ
@given(request_=messages(ranker_pb2.CompareRequest))
async def test_random_messages_to_compare(
    ranker: RunningRanker, request_: ranker_pb2.CompareRequest
) -> None:
    assert await _code(lambda: ranker.stub.Compare(request_, timeout=30)) not in FAULTS


@FUZZ
@given(data=st.binary(max_size=200))
async def test_random_bytes_to_rank_images(ranker: RunningRanker, data: bytes) -> None:
    call: Any = ranker.channel.unary_unary(RANK_IMAGES)
    assert await _code(lambda: call(data, timeout=30)) not in FAULTS


def _bounded(message: Message) -> Message:
    """The script makes every step one by one, so a thousand million of them are left out."""
    assert isinstance(message, ranker_pb2.BestOfRequest)
    message.generate.steps = message.generate.steps % 8
    return message


@FUZZ
@given(request_=messages(ranker_pb2.BestOfRequest).map(_bounded))
async def test_random_messages_to_best_of(
    ranker: RunningRanker, request_: ranker_pb2.BestOfRequest
) -> None:
    assert await _code(lambda: ranker.stub.BestOf(request_, timeout=30)) not in FAULTS


@FUZZ
@given(
    request_=messages(ranker_pb2.ResolveRequest) | messages(ranker_pb2.RecordOutcomeRequest),
    data=st.binary(max_size=200),
)
async def test_random_messages_to_the_match_graph(
    ranker: RunningRanker, request_: Message, data: bytes
) -> None:
    for name in ("Resolve", "RecordOutcome"):
        call: Any = ranker.channel.unary_unary(f"/easel.ranker.v1.RankerService/{name}")
        for content in (request_.SerializeToString(), data):
            assert await _code(partial(call, content, timeout=30)) not in FAULTS


def _feasible(message: Message) -> Message:
    """Few steps and candidates, and mostly prompts enough."""
    assert isinstance(message, ranker_pb2.CalibratePruningRequest)
    message.generate.steps = message.generate.steps % 8
    message.candidates = message.candidates % 4
    if message.generate.guidance_scale >= 0.0:
        message.prompts.extend([PROMPT] * 4)
    return message


@FUZZ
@given(request_=messages(ranker_pb2.CalibratePruningRequest).map(_feasible))
async def test_random_messages_to_calibrate_pruning(
    ranker: RunningRanker, request_: ranker_pb2.CalibratePruningRequest
) -> None:
    assert await _code(lambda: ranker.stub.CalibratePruning(request_, timeout=30)) not in FAULTS


INDEX = {
    "SearchImages": ranker_pb2.SearchImagesRequest,
    "ListImages": ranker_pb2.ListImagesRequest,
    "DeleteImages": ranker_pb2.DeleteImagesRequest,
    "CreateCollection": ranker_pb2.CreateCollectionRequest,
    "DeleteCollection": ranker_pb2.DeleteCollectionRequest,
}


@FUZZ
@given(
    request_=st.one_of([messages(kind) for kind in INDEX.values()]), data=st.binary(max_size=200)
)
async def test_random_messages_and_bytes_to_the_index(
    ranker: RunningRanker, request_: Message, data: bytes
) -> None:
    method = type(request_).__name__.removesuffix("Request")
    assert await _code(lambda: getattr(ranker.stub, method)(request_, timeout=30)) not in FAULTS
    call: Any = ranker.channel.unary_unary(f"/easel.ranker.v1.RankerService/{method}")
    assert await _code(lambda: call(data, timeout=30)) not in FAULTS


@FUZZ
@given(requests=st.lists(messages(ranker_pb2.IndexImagesRequest), max_size=3))
async def test_random_messages_to_index_images(
    ranker: RunningRanker, requests: list[ranker_pb2.IndexImagesRequest]
) -> None:
    assert await _code(lambda: ranker.stub.IndexImages(iter(requests), timeout=30)) not in FAULTS


@FUZZ
@given(request_=messages(ranker_pb2.RankImagesRequest))
async def test_random_messages_to_rank_images(
    ranker: RunningRanker, request_: ranker_pb2.RankImagesRequest
) -> None:
    assert await _code(lambda: ranker.stub.RankImages(request_, timeout=30)) not in FAULTS


CATALOGUE = {
    "GetCatalogueModel": ranker_pb2.GetCatalogueModelRequest,
    "ListCatalogueModels": ranker_pb2.ListCatalogueModelsRequest,
    "PutCatalogueModel": ranker_pb2.PutCatalogueModelRequest,
    "DeleteCatalogueModel": ranker_pb2.DeleteCatalogueModelRequest,
    "ImportCatalogue": ranker_pb2.ImportCatalogueRequest,
}


@FUZZ
@given(
    request_=st.one_of([messages(kind) for kind in CATALOGUE.values()]),
    data=st.binary(max_size=200),
)
async def test_random_messages_and_bytes_to_the_catalogue(
    ranker: RunningRanker, request_: Message, data: bytes
) -> None:
    method = type(request_).__name__.removesuffix("Request")
    assert await _code(lambda: getattr(ranker.stub, method)(request_, timeout=30)) not in FAULTS
    call: Any = ranker.channel.unary_unary(f"/easel.ranker.v1.RankerService/{method}")
    assert await _code(lambda: call(data, timeout=30)) not in FAULTS


ARENA = (
    "NextPair",
    "RecordVote",
    "ListLeaderboard",
    "ListJudges",
    "ListContenders",
    "PutContender",
    "DeleteContender",
    "PutArenaPrompts",
    "PutArenaPicture",
    "JudgePairs",
)


@FUZZ
@given(data=st.data(), method=st.sampled_from(ARENA))
async def test_random_messages_to_the_arena(
    ranker: RunningRanker, data: st.DataObject, method: str
) -> None:
    request = data.draw(messages(getattr(ranker_pb2, f"{method}Request")))
    call = getattr(ranker.stub, method)
    assert await _code(lambda: call(request, timeout=30)) not in FAULTS


@FUZZ
@given(requests=st.lists(messages(ranker_pb2.ImportVotesRequest), max_size=3))
async def test_random_votes_to_import(
    ranker: RunningRanker, requests: list[ranker_pb2.ImportVotesRequest]
) -> None:
    call = ranker.stub.ImportVotes
    assert await _code(lambda: call(iter(requests), timeout=30)) not in FAULTS
