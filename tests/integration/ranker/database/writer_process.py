"""A process that records outcomes for the answers on its first line, and says each on stdout once
it is kept. It ends when its input does."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from sqlalchemy import Connection

from ranker.database import Database
from ranker.graph.log import Report, record
from ranker.graph.outcome import Outcome

HALF_LIFE = 30 * 86_400.0
AT = datetime(2026, 1, 1, tzinfo=UTC)
IN_FLIGHT = 8


async def main(url: str, answers: list[str]) -> None:
    database = Database.open(url)
    room = asyncio.Semaphore(IN_FLIGHT)

    async def tell(answer: str) -> None:
        def write(connection: Connection) -> None:
            (found,) = record(connection, [Report(answer, 1, Outcome.SUCCEEDED, AT)], HALF_LIFE)
            if isinstance(found, Exception):
                raise found

        async with room:
            await database.write(write)
            print(answer, flush=True)

    await asyncio.gather(*map(tell, answers))
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.stdin.readline().split()))
    sys.stdin.read()
