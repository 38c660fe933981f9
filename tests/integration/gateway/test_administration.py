"""Whether the gateway lets its callers administer what is behind it."""

from __future__ import annotations

import grpc
import pytest

from tests.integration.gateway.fakes import FakeService, gateway, reason_of

SERVICE = "/easel.model.v1.ModelService/"
TO_CLASSIFIER = (("easel-service", "classifier"),)


@pytest.mark.parametrize("method", ["LoadModel", "UnloadModel", "SetTraffic"])
async def test_on_loopback_it_does_unless_told_not_to(classifier: FakeService, method: str) -> None:
    async with gateway(classifier_target=classifier.target) as door:
        assert await door.method(SERVICE + method)(b"x", metadata=TO_CLASSIFIER) == b"x"
    async with gateway(classifier_target=classifier.target, administration=False) as door:
        with pytest.raises(grpc.aio.AioRpcError, match="EASEL_GATEWAY_ADMINISTRATION") as caught:
            await door.method(SERVICE + method)(b"x", metadata=TO_CLASSIFIER)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(caught.value) == "ADMINISTRATION_OFF"
        reading = door.method(SERVICE + "ListModels")
        assert await reading(b"x", metadata=TO_CLASSIFIER) == b"x"
        watching = door.method(SERVICE + "WatchModels")(b"x", metadata=TO_CLASSIFIER)
        assert [message async for message in watching] == [b"x"] * 3
