"""The key that tickets are signed with: a setting's, or one that the database keeps."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select

from ranker.database.schema import insert_into
from ranker.database.tables import KEY
from ranker.tickets import KEY_BYTES


def parse_key(text: str) -> bytes:
    """The bytes of at least 64 hexadecimal digits. Raises ``ValueError``, without the text."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        raise ValueError("must be hexadecimal digits") from None
    if len(key) < KEY_BYTES:
        raise ValueError(f"must be at least {2 * KEY_BYTES} hexadecimal digits, not {2 * len(key)}")
    return key


def shared_key(connection: Connection) -> bytes:
    """The database's own key, made when it is first asked for: all that share the database have
    the same. Within a transaction that writes."""
    own = insert_into(connection, KEY).values(id=1, secret=secrets.token_bytes(KEY_BYTES))
    connection.execute(own.on_conflict_do_nothing(index_elements=[KEY.c.id]))
    return bytes(connection.execute(select(KEY.c.secret)).scalar_one())
