from dataclasses import replace
from pathlib import Path

import pytest

from services.classifier.catalogue import ClassifierMaker, options_of
from services.classifier.network import Options
from services.core.errors import FailedPrecondition, InvalidInput
from services.core.fleet import LoadOrder, References
from tests.unit.classifier.fakes import FILES, FakeNetwork

DEFAULTS = Options("cpu", "float32", 2)


def order(**fields: object) -> LoadOrder:
    return LoadOrder("somewhere", **fields)  # type: ignore[arg-type]


def test_what_an_order_leaves_open_is_the_servers_own() -> None:
    assert options_of(order(), DEFAULTS) == DEFAULTS
    asked = order(
        backend="pytorch", device="cuda:1", precision="bfloat16", options={"compiled": "true"}
    )
    told = Options("cuda:1", "bfloat16", 2, backend="pytorch", compiled=True)
    assert options_of(asked, DEFAULTS) == told


def test_another_backend_is_not_told_what_the_servers_own_was() -> None:
    defaults = Options("cpu", "float32", 2, backend="pytorch", compiled=True)
    assert options_of(order(), defaults) == defaults
    assert options_of(order(backend="pytorch"), defaults) == defaults
    asked = order(backend="onnxruntime", options={"providers": "cuda,cpu"})
    told = Options("cpu", "float32", 2, backend="onnxruntime", providers=("cuda", "cpu"))
    assert options_of(asked, defaults) == told


@pytest.mark.parametrize("size", ["8", "4096"])
def test_the_size_of_pictures_is_the_models_own_unless_ordered(size: str) -> None:
    defaults = replace(DEFAULTS, image_size=512)
    assert options_of(order(), defaults).image_size is None
    assert options_of(order(options={"image_size": size}), defaults).image_size == int(size)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"backend": "abacus"}, "backend"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu\n"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"precision": "int3"}, "precision"),
        ({"options": {"threads": "2"}}, "options"),
        ({"options": {"compiled": "yes"}}, "options"),
        ({"options": {"image_size": "7"}}, "options"),
        ({"options": {"image_size": "4097"}}, "options"),
        ({"options": {"image_size": "-8"}}, "options"),
        ({"options": {"image_size": "²²"}}, "options"),
        ({"options": {"providers": ""}}, "options"),
        ({"options": {"providers": "cpu,cpu"}}, "options"),
        ({"options": {"providers": "cpu,abacus"}}, "options"),
    ],
)
def test_what_cannot_be_ordered(fields: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        options_of(order(**fields), DEFAULTS)
    assert (caught.value.field, caught.value.limit is not None) == (field, True)


def test_the_maker_opens_the_network_that_is_ordered() -> None:
    opened: list[Options] = []

    def open_network(options: Options) -> FakeNetwork:
        opened.append(options)
        return FakeNetwork()

    maker = ClassifierMaker(References(), DEFAULTS, open_network)
    build = maker.builder(order(precision="bfloat16"))
    assert not opened
    model = build(FILES)
    model.load()
    assert (model.find(), model.loaded.files) == (FILES, FILES)
    assert opened == [Options("cpu", "bfloat16", 2)]


def test_what_cannot_be_had_here_is_said_before_anything_is_looked_for() -> None:
    def check(options: Options) -> None:
        raise FailedPrecondition(f"No {options.backend}.")

    maker = ClassifierMaker(References(), DEFAULTS, lambda _: FakeNetwork(), check=check)
    with pytest.raises(FailedPrecondition, match="No openvino"):
        maker.find(order(backend="openvino"))


def test_the_maker_finds_what_the_references_allow(tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    maker = ClassifierMaker(References(root=tmp_path), DEFAULTS, lambda _: FakeNetwork())
    files = maker.find(LoadOrder("vit", name="mine"))
    assert (files.name, files.directory) == ("mine", tmp_path / "vit")
    with pytest.raises(InvalidInput):
        maker.find(LoadOrder("../vit"))
