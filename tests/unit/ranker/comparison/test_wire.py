"""The message says what the report says, and every field that a sentence names is in it."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message
from hypothesis import given, settings

from easel.ranker.v1 import ranker_pb2
from ranker.comparison.document import document
from ranker.comparison.numbers import fields
from ranker.comparison.report import Report
from ranker.comparison.wire import answer
from ranker.score.wire import score
from tests.unit.ranker.comparison.sides import reports


def resolved(message: Message, path: str) -> Any:
    """What stands at a path such as ``a.score.components[1].value.low``."""
    found: Any = message
    for part in path.split("."):
        name, index = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", part).groups()  # type: ignore[union-attr]
        found = getattr(found, name)
        if index is not None:
            found = found[int(index)]
    return found


def message_of(report: Report) -> ranker_pb2.CompareResponse:
    a, b = (
        ranker_pb2.CatalogueModel(
            id=side.id, name=side.name, type=side.type, score=score(side.scored)
        )
        for side in (report.a, report.b)
    )
    return answer(report, document(report), a, b)


@settings(deadline=None, max_examples=40)
@given(reports())
def test_every_field_of_a_sentence_is_in_the_answer(report: Report) -> None:
    message = message_of(report)
    values = fields(report)

    assert [each.text for each in message.verdict_sentences] == list(message.sentences)
    for sentence in message.verdict_sentences:
        assert sentence.fields
        for path in sentence.fields:
            told, value = resolved(message, path), values[path]
            if path == "verdict":
                assert ranker_pb2.Comparison.Name(told) == f"COMPARISON_{value}"
            elif isinstance(value, tuple):
                assert tuple(told) == value
            else:
                assert told == value, path


@settings(deadline=None, max_examples=20)
@given(reports())
def test_points_add_up_in_the_message(report: Report) -> None:
    message = message_of(report)

    for model in (message.a, message.b):
        found = model.score
        assert sum(each.points_hundredths for each in found.components) == found.total_hundredths
        assert found.total.value == found.total_hundredths / 100
        assert message_of(report.mirrored).a_better.evidence == message.a_better.evidence
