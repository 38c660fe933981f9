"""ListScores: the log of scores, each computed again."""

from __future__ import annotations

import asyncio
from typing import Final

from sqlalchemy import Connection

from easel.ranker.v1 import ranker_pb2
from ranker import paging
from ranker.catalogue import store
from ranker.database import Database
from ranker.score import log, wire
from ranker.score.log import Entry

_MAX_TOKEN_CHARS: Final = 19


class ScoreService:
    """What was told of models, and whether it can be computed again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, asked: ranker_pb2.ListScoresRequest) -> ranker_pb2.ListScoresResponse:
        """Raises ``NotFound`` with the nearest names, and ``InvalidInput``."""
        size = paging.page_size(asked.page_size)
        before = _before(asked.page_token)

        def read(connection: Connection) -> list[Entry]:
            model = store.find(connection, asked.model)
            return log.page(connection, model.id, before, size + 1)

        found = await self._database.read(read)
        shown = found[:size]
        scores = await asyncio.to_thread(lambda: [wire.logged(each.logged) for each in shown])
        more = str(shown[-1].number) if len(found) > size else ""
        return ranker_pb2.ListScoresResponse(scores=scores, next_page_token=more)


def _before(token: str) -> int | None:
    if not token:
        return None
    if not (token.isascii() and token.isdecimal()) or len(token) > _MAX_TOKEN_CHARS:
        raise paging.unknown_token(token)
    return min(int(token), 2**63 - 1)
