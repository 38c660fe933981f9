"""Quantised models: what they answer, what they are refused for, and how the service loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import DEMO_CLASSIFIER
from services.classifier import openvino, quantisation, samples
from services.classifier.backends import ChosenNetwork
from services.classifier.network import Floats, Options, Pooling, Reading
from services.classifier.preprocessing import read_preprocessing
from services.classifier.publication import RECORD_FILE
from services.classifier.quantisation import Scheme, quantise
from services.classifier.quantisers import Task
from services.classifier.samples import Samples
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition, InvalidInput
from services.core.reference import ModelFiles, digest_of
from tests.parity.classifier.pictures import save_shapes

DEMO = ModelFiles("demo", "1", DEMO_CLASSIFIER, digest_of(DEMO_CLASSIFIER))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_shapes(tmp_path_factory.mktemp("pictures"), 48)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    """What was converted for one test is found by the next."""
    return ArtifactStore(tmp_path_factory.mktemp("converted"))


DEFAULT = (Scheme.INT8_STATIC, Scheme.BFLOAT16)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=each.value, marks=[] if each in DEFAULT else pytest.mark.slow)
        for each in Scheme
    ],
)
def published(
    request: pytest.FixtureRequest,
    pictures: Path,
    store: ArtifactStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Scheme, Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("published") / "model"
    report = quantise(
        DEMO,
        request.param,
        out,
        calibrate=pictures,
        min_agreement=0.9,
        store=store,
        weigh=lambda *_: 1000,
    )
    return request.param, out, report


def network(directory: Path, store: ArtifactStore, **options: Any) -> ChosenNetwork:
    found = ChosenNetwork(Options("cpu", threads=1, **options), store)
    found.load(directory)
    return found


def shown(pictures: Path) -> Samples:
    return samples.of_folder(pictures, read_preprocessing(DEMO_CLASSIFIER), field="calibrate")


def logits(network: ChosenNetwork, pictures: Path) -> Floats:
    [batch] = shown(pictures).batches(48)
    found = network.run(batch, head=True, readings={}).logits
    assert found is not None
    return found


def test_what_was_measured(published: tuple[Scheme, Path, dict[str, Any]]) -> None:
    scheme, out, report = published
    agreement = report["agreement"]
    compared = 24 if scheme is Scheme.INT8_STATIC else 48
    assert agreement["pictures"] == compared
    assert agreement["rate"] == agreement["agreeing"] / compared >= 0.9
    assert agreement["interval"][0] < agreement["rate"] <= agreement["interval"][1]
    assert report["calibration_pictures"] == (24 if scheme is Scheme.INT8_STATIC else 0)
    # The demo model's weights are float16 as they come.
    assert (report["max_logit_difference"] > 0) == (scheme is not Scheme.FLOAT16)
    assert min(report["seconds"].values()) > 0
    assert report["bytes_in_memory"] == {"float32": 1000, "quantised": 1000}
    record = json.loads((out / RECORD_FILE).read_text())
    assert record["source"] == DEMO.digest
    assert record["figures"]["agreement"] == agreement


def test_the_weights_are_smaller(
    published: tuple[Scheme, Path, dict[str, Any]], store: ArtifactStore
) -> None:
    scheme, _, report = published
    exact = 4 * network(DEMO_CLASSIFIER, store, backend="pytorch").load(DEMO_CLASSIFIER).parameters
    most = {
        Scheme.INT8_DYNAMIC: 0.5,
        Scheme.INT8_STATIC: 0.7,
        Scheme.INT4_WEIGHTS: 0.5,
        Scheme.FLOAT16: 0.55,
        Scheme.BFLOAT16: 0.55,
    }
    assert report["bytes_on_disk"]["quantised"] < most[scheme] * exact


def test_the_service_loads_it_as_what_it_is(
    published: tuple[Scheme, Path, dict[str, Any]], pictures: Path, store: ArtifactStore
) -> None:
    scheme, out, report = published
    loaded = ChosenNetwork(Options("cpu", threads=1), store)
    traits = loaded.load(out)
    if quantisation.ROUTES[scheme].artefact:
        assert traits.backend == report["backend"]
        assert traits.precision == quantisation.ROUTES[scheme].called
        assert traits.extra["quantised"] == scheme.value
        assert traits.extra["made_of"] == DEMO.digest
    reference = network(DEMO_CLASSIFIER, store, backend="pytorch", precision="float32")
    ours, theirs = logits(loaded, pictures), logits(reference, pictures)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() >= 0.9


def test_pictures_of_another_size_are_refused(
    published: tuple[Scheme, Path, dict[str, Any]], store: ArtifactStore
) -> None:
    scheme, out, _ = published
    if not quantisation.ROUTES[scheme].artefact:
        assert network(out, store, image_size=96).network
        return
    with pytest.raises(FailedPrecondition, match="quantised for pictures of 64x64, not of 96x96"):
        network(out, store, image_size=96)


def test_float32_runs_the_weights_that_it_was_made_of(
    published: tuple[Scheme, Path, dict[str, Any]], pictures: Path, store: ArtifactStore
) -> None:
    scheme, out, _ = published
    exact = network(DEMO_CLASSIFIER, store, backend="pytorch", precision="float32")
    ours = network(out, store, backend="pytorch", precision="float32")
    difference = np.abs(logits(ours, pictures) - logits(exact, pictures)).max()
    assert difference == 0 or scheme is Scheme.BFLOAT16


def test_vectors_come_out_of_it_too(
    published: tuple[Scheme, Path, dict[str, Any]], pictures: Path, store: ArtifactStore
) -> None:
    _, out, _ = published
    [batch] = shown(pictures).some(range(3)).batches(3)
    readings = {Reading(1, Pooling.MEAN): (0, 1, 2), Reading(4, Pooling.CLS, True): (1,)}
    ours = network(out, store).run(batch, head=False, readings=readings).vectors
    exact = network(DEMO_CLASSIFIER, store, backend="pytorch", precision="float32")
    theirs = exact.run(batch, head=False, readings=readings).vectors
    for reading in readings:
        assert ours[reading].shape == theirs[reading].shape
        assert cosine(ours[reading], theirs[reading]) > 0.9


def test_alone_and_in_company(
    published: tuple[Scheme, Path, dict[str, Any]], pictures: Path, store: ArtifactStore
) -> None:
    scheme, out, _ = published
    loaded = network(out, store)
    together = logits(loaded, pictures)
    alone = loaded.run([shown(pictures)[5]], head=True, readings={}).logits
    assert alone is not None
    spread = float(together.max() - together.min())
    # Dynamic ranges are a batch's: a picture's company moves them.
    bound = 0.1 if scheme is Scheme.INT8_DYNAMIC else 0.02
    assert np.abs(alone[0] - together[5]).max() <= bound * spread


def test_int8_of_a_model_that_was_not_quantised(tmp_path: Path) -> None:
    loaded = ChosenNetwork(Options("cpu", precision="int8"), ArtifactStore(tmp_path))
    with pytest.raises(FailedPrecondition, match="`easel quantize` makes one"):
        loaded.load(DEMO_CLASSIFIER)


def test_too_little_agreement_publishes_nothing(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"at least 1 is asked for") as caught:
        quantise(
            DEMO,
            Scheme.INT8_STATIC,
            tmp_path / "out",
            calibrate=pictures,
            min_agreement=1.0,
            quantiser=spoiled,
        )
    assert caught.value.reason == "LOW_AGREEMENT"
    assert "of 24 pictures" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def spoiled(task: Task) -> None:
    """Another network's trunk, in the place of a quantised one."""
    with torch.no_grad():
        for weight in task.source.body.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(0))
    openvino.convert(task.source, task.path.parent, half=True)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="has no JPEG, PNG or WebP file") as caught:
        quantise(DEMO, Scheme.INT8_STATIC, tmp_path / "out", calibrate=tmp_path / "empty")
    assert caught.value.field == "calibrate"
    assert not (tmp_path / "out").exists()


def test_one_picture_cannot_both_calibrate_and_be_compared(tmp_path: Path) -> None:
    folder = save_shapes(tmp_path / "one", 1)
    with pytest.raises(InvalidInput, match="Half of the pictures") as caught:
        quantise(DEMO, Scheme.INT8_STATIC, tmp_path / "out", calibrate=folder)
    assert (caught.value.limit, caught.value.given) == ("2 pictures or more", "1")


@pytest.mark.parametrize("agreement", [-0.01, 1.01, float("nan")])
def test_an_agreement_that_is_no_share(agreement: float, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="out of range") as caught:
        quantise(DEMO, Scheme.FLOAT16, tmp_path / "o", calibrate=pictures, min_agreement=agreement)
    assert (caught.value.field, caught.value.limit) == ("min_agreement", "0 to 1")


@pytest.mark.parametrize("agreement", [0.0, 1.0])
def test_the_ends_of_the_range_are_in_it(agreement: float) -> None:
    quantisation.check_min_agreement(agreement)


def test_an_unknown_precision() -> None:
    with pytest.raises(InvalidInput, match="There is no precision 'int2'") as caught:
        quantisation.scheme("int2")
    assert caught.value.limit == "int8-dynamic, int8-static, int4-weights, float16, bfloat16"


@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.INT4_WEIGHTS, Scheme.INT8_DYNAMIC])
def test_packages_that_are_missing_name_their_extra(scheme: Scheme) -> None:
    with pytest.raises(FailedPrecondition, match="not installed") as caught:
        quantisation.check_installed(scheme, lambda package: None)
    assert f"'easel[classifier,{quantisation.ROUTES[scheme].extra}]'" in caught.value.message


def test_what_calibrates_is_not_compared() -> None:
    found = samples.drawn(7, read_preprocessing(DEMO_CLASSIFIER))
    calibration, compared = quantisation.split(found, calibrated=True)
    assert (len(calibration), len(compared)) == (4, 3)
    taken = [calibration[place].tobytes() for place in range(4)]
    assert all(compared[place].tobytes() not in taken for place in range(3))
    nothing, everything = quantisation.split(found, calibrated=False)
    assert (len(nothing), len(everything)) == (0, 7)


def test_no_more_calibrate_than_are_of_use() -> None:
    found = samples.drawn(1000, read_preprocessing(DEMO_CLASSIFIER))
    calibration, compared = quantisation.split(found, calibrated=True)
    assert (len(calibration), len(compared)) == (300, 700)


def cosine(ours: Floats, theirs: Floats) -> float:
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return float(((ours * theirs).sum(axis=-1) / lengths).min())
