from importlib.util import find_spec

import numpy as np
import pytest

from services.classifier.network import Options
from services.core.errors import FailedPrecondition

if find_spec("onnxruntime") is None:
    pytest.skip("onnxruntime is not installed", allow_module_level=True)

import onnx

from services.classifier.onnxruntime import (
    NAMES,
    check_available,
    check_in_force,
    part,
    wanted_providers,
)

TENSORRT, CUDA, CPU = NAMES["tensorrt"], NAMES["cuda"], NAMES["cpu"]


def test_the_device_says_which_where_nothing_else_does() -> None:
    assert wanted_providers(Options("cpu")) == ("cpu",)
    assert wanted_providers(Options("cuda:1")) == ("cuda",)
    assert wanted_providers(Options("cuda:1", providers=("tensorrt", "cuda"))) == (
        "tensorrt",
        "cuda",
    )


@pytest.mark.parametrize(
    "options", [Options("cpu", providers=("cuda",)), Options("cuda:0", providers=("cpu",))]
)
def test_a_provider_of_another_device(options: Options) -> None:
    with pytest.raises(FailedPrecondition, match=f"{options.providers[0]}.*{options.device}"):
        wanted_providers(options)


def test_a_build_without_the_provider_names_the_extra() -> None:
    check_available(("cpu",), [CPU])
    with pytest.raises(FailedPrecondition, match=r"tensorrt, cuda here.*onnxruntime-gpu\]'"):
        check_available(("tensorrt", "cuda"), [CPU])


@pytest.mark.parametrize(
    ("wanted", "in_force"),
    [(("cpu",), [CPU]), (("cuda",), [CUDA, CPU]), (("tensorrt", "cuda"), [TENSORRT, CUDA, CPU])],
)
def test_what_was_wanted_is_in_force(wanted: tuple[str, ...], in_force: list[str]) -> None:
    assert check_in_force(wanted, in_force) == tuple(in_force)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "in_force"),
    [(("cuda",), [CPU]), (("tensorrt",), [CUDA, CPU]), (("tensorrt", "cuda"), [CUDA, CPU])],
)
def test_a_silent_fall_back_is_an_error(wanted: tuple[str, ...], in_force: list[str]) -> None:
    with pytest.raises(FailedPrecondition, match=f"on {in_force[0]}.*not on {NAMES[wanted[0]]}"):  # type: ignore[index]
        check_in_force(wanted, in_force)  # type: ignore[arg-type]


def test_a_part_has_what_its_outputs_need_and_nothing_else() -> None:
    model = chain("first", "second", "third")
    found = onnx.ModelProto.FromString(part(model, ["second"]))
    assert [node.name for node in found.graph.node] == ["make first", "make second"]
    assert [each.name for each in found.graph.initializer] == ["weight first", "weight second"]
    assert [each.name for each in found.graph.output] == ["second"]
    both = onnx.ModelProto.FromString(part(model, ["first", "third"]))
    assert len(both.graph.node) == 3
    assert [each.name for each in both.graph.output] == ["first", "third"]


def chain(*names: str) -> onnx.ModelProto:
    """A sum a name, each of the one before and a weight."""
    nodes, weights, last = [], [], "pixels"
    for name in names:
        weight = f"weight {name}"
        weights.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), weight))
        nodes.append(onnx.helper.make_node("Add", [last, weight], [name], f"make {name}"))
        last = name
    kind, shape = onnx.TensorProto.FLOAT, [2]
    given = [onnx.helper.make_tensor_value_info("pixels", kind, shape)]
    outputs = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in names]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", given, outputs, weights))
