from types import SimpleNamespace

import pytest

from services.classifier.keras import check_engine, check_model
from services.core.errors import FailedPrecondition


def test_two_backends_cannot_share_a_process() -> None:
    check_engine("jax", None)
    check_engine("jax", "jax")
    with pytest.raises(
        FailedPrecondition, match=r"runs on tensorflow.*cannot run on jax.*keras-jax"
    ):
        check_engine("jax", "tensorflow")


def test_a_model_that_it_does_not_build() -> None:
    check_model(SimpleNamespace(model_type="vit", hidden_act="gelu"))
    with pytest.raises(FailedPrecondition, match="vit, deit, vit_msn, not 'swin'"):
        check_model(SimpleNamespace(model_type="swin", hidden_act="gelu"))
    with pytest.raises(FailedPrecondition, match="not 'quick_gelu'"):
        check_model(SimpleNamespace(model_type="vit", hidden_act="quick_gelu"))
