"""What servers and channels tell gRPC about their connections."""

from __future__ import annotations

from typing import Any

from services.core.config import ServiceSettings, load_settings
from services.core.server.app import server_options
from services.core.server.channel import channel_options


def options(**values: object) -> dict[str, Any]:
    return dict(server_options(load_settings(ServiceSettings, environ={}, **values)))


def test_connections_grow_old_only_where_they_are_told_to() -> None:
    assert not any("connection_age" in name for name in options())


def test_calls_on_an_old_connection_have_a_time_of_their_own() -> None:
    aged = options(max_connection_age_seconds=60, drain_timeout_seconds=5)
    assert aged["grpc.max_connection_age_ms"] == 60_000
    assert "grpc.max_connection_age_grace_ms" not in aged
    graced = options(max_connection_age_seconds=60, max_connection_age_grace_seconds=7.5)
    assert graced["grpc.max_connection_age_grace_ms"] == 7500


def test_callers_that_are_gone_are_noticed() -> None:
    assert options()["grpc.keepalive_time_ms"] == 60_000
    assert options()["grpc.keepalive_timeout_ms"] == 20_000
    assert options()["grpc.http2.max_pings_without_data"] == 0


def test_pings_of_our_own_channels_are_no_abuse() -> None:
    pinging = dict(channel_options())["grpc.keepalive_time_ms"]
    assert pinging > options()["grpc.http2.min_ping_interval_without_data_ms"]
    assert options()["grpc.keepalive_permit_without_calls"] == 1
