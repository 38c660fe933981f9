"""Messages of a stream as plain values."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import json_format

from easel.client.events import Refused, generate_event
from easel.generator.v1 import generator_pb2


def test_a_kind_of_a_later_version_is_passed_over() -> None:
    # Field 500, empty: what a later contract might have added.
    later = generator_pb2.GenerateEvent.FromString(b"\xa2\x1f\x00")

    assert generate_event(later) is None


def test_a_refused_action_is_an_event_of_its_own() -> None:
    if "refused" not in generator_pb2.GenerateEvent.DESCRIPTOR.fields_by_name:
        pytest.skip("the contract has no such event yet")
    error = {"code": 5, "message": "There is no such request."}
    message = generator_pb2.GenerateEvent()
    json_format.ParseDict({"index": 2, "refused": error}, message)

    event = generate_event(message)

    assert isinstance(event, Refused)
    assert (event.index, event.error.code) == (2, grpc.StatusCode.NOT_FOUND)
