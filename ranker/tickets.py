"""What the ranker gives out to have it given back: signed, so that nobody can invent one.

A ticket is the payload and when it expires, with a MAC: HMAC-SHA256 (RFC 2104) over the purpose,
the time and the payload, cut to its left half as the RFC allows. One key does for all purposes, and
replicas that share it take each other's tickets.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from datetime import UTC, datetime
from typing import Final

from services.core.errors import FailedPrecondition, InvalidInput

KEY_BYTES: Final = 32
MAX_TICKET_CHARS: Final = 1024
_MAC_BYTES: Final = 16
# Before everything else: base64 may begin with a dash, which a command line takes for an option.
_PREFIX: Final = "e"
_EXPIRY: Final = struct.Struct(">Q")


class Signer:
    """Makes and reads tickets of one ``purpose``; those of another are forged to it."""

    def __init__(self, key: bytes, purpose: str) -> None:
        """Raises ``ValueError`` for a key of less than ``KEY_BYTES`` bytes."""
        if len(key) < KEY_BYTES:
            raise ValueError(f"a key needs {KEY_BYTES} bytes, this has {len(key)}")
        self._key = hmac.digest(key, purpose.encode(), hashlib.sha256)

    def sign(self, payload: bytes, expires_at: datetime) -> str:
        """A ticket of URL-safe characters; ``expires_at`` counts in whole seconds."""
        body = _EXPIRY.pack(int(expires_at.timestamp())) + payload
        return _text(self._mac(body) + body)

    def read(self, ticket: str, now: datetime, *, field: str = "token") -> bytes:
        """The payload. Raises ``InvalidInput`` (``TOKEN_FORGED``) for what was not signed here, and
        ``FailedPrecondition`` (``TOKEN_EXPIRED``) for what was, too long ago."""
        if not ticket:
            raise InvalidInput(field, "A token is needed.")
        if len(ticket) > MAX_TICKET_CHARS:
            raise InvalidInput(
                field, "The token is too long.", f"{MAX_TICKET_CHARS} characters", len(ticket)
            )
        content = _bytes(ticket)
        mac, body = content[:_MAC_BYTES], content[_MAC_BYTES:]
        if len(body) < _EXPIRY.size or not hmac.compare_digest(mac, self._mac(body)):
            raise InvalidInput(field, "The token was not made here.", reason="TOKEN_FORGED")
        expires_at = _EXPIRY.unpack_from(body)[0]
        if now.timestamp() >= expires_at:
            ended = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")
            raise FailedPrecondition(f"The token expired at {ended}.", reason="TOKEN_EXPIRED")
        return body[_EXPIRY.size :]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)[:_MAC_BYTES]


def _text(content: bytes) -> str:
    return _PREFIX + base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(ticket: str) -> bytes:
    """Empty for what is no ticket; one ticket has one spelling, or used ones could come again."""
    coded = ticket.removeprefix(_PREFIX)
    try:
        content = base64.urlsafe_b64decode(coded.encode("ascii") + b"=" * (-len(coded) % 4))
    except (UnicodeEncodeError, binascii.Error):
        return b""
    return content if hmac.compare_digest(_text(content), ticket) else b""
