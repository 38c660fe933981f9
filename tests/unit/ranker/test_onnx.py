"""Networks in ONNX Runtime: what is read from a file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ranker.onnx import Network, Runtime, open_network
from services.core.errors import FailedPrecondition, ModelFault


def written(path: Path, *, kind: int = TensorProto.FLOAT) -> Path:
    """``y = x + x``, [free, 2]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x = helper.make_tensor_value_info("x", kind, ["batch", 2])
    y = helper.make_tensor_value_info("y", kind, ["batch", 2])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "twice", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return open_network(written(tmp_path / "model" / "twice.onnx"))


def test_what_it_reads_and_tells(network: Network) -> None:
    assert [(port.name, port.dtype, port.shape) for port in network.inputs.values()] == [
        ("x", np.dtype("float32"), (None, 2))
    ]
    assert list(network.outputs) == ["y"]
    assert network.title == "model/twice.onnx"


@pytest.mark.parametrize("rows", [1, 3])
def test_it_runs_on_any_number_of_rows_and_casts(network: Network, rows: int) -> None:
    given = np.arange(rows * 2, dtype=np.float64).reshape(rows, 2)
    found = network.run({"x": given, "unread": np.zeros(1)})
    assert found["y"].dtype == np.float32
    np.testing.assert_array_equal(found["y"], 2 * given)


@pytest.mark.parametrize("given", [{}, {"x": np.zeros((1, 3))}, {"x": np.zeros(2)}])
def test_what_does_not_fit_is_a_fault_of_the_model(network: Network, given: dict[str, Any]) -> None:
    with pytest.raises(ModelFault, match=r"model/twice\.onnx could not be run"):
        network.run(given)


def test_a_network_of_another_kind(network: Network) -> None:
    network.need(inputs=["x", "mask"], outputs=["y"])
    with pytest.raises(FailedPrecondition, match="reads x"):
        network.need(inputs=["pixel_values"])
    with pytest.raises(FailedPrecondition, match="does not tell z"):
        network.need(inputs=["x"], outputs=["y", "z"])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"no file model/none\.onnx"):
        open_network(tmp_path / "model" / "none.onnx")


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(FailedPrecondition, match="could not be opened as an ONNX network"):
        open_network(path)


def test_a_provider_that_is_not_there(tmp_path: Path) -> None:
    path = written(tmp_path / "twice.onnx")
    with pytest.raises(FailedPrecondition, match="no TensorrtExecutionProvider here"):
        open_network(path, Runtime(("tensorrt", "cpu")))


class _ElsewhereSession:
    """Falls back as the library does where a device is missing."""

    def __init__(self, *_: object, **__: object) -> None:
        self.providers = ["CPUExecutionProvider"]

    def disable_fallback(self) -> None: ...

    def get_providers(self) -> list[str]:
        return self.providers


class _Library:
    InferenceSession = _ElsewhereSession

    class SessionOptions:
        def add_session_config_entry(self, name: str, value: str) -> None: ...

    @staticmethod
    def get_available_providers() -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def test_a_provider_that_is_silently_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "twice.onnx")
    with pytest.raises(FailedPrecondition, match="not on CUDAExecutionProvider"):
        open_network(path, Runtime(("cuda",)), importer=lambda _: _Library())


def test_the_library_is_not_installed(tmp_path: Path) -> None:
    def importer(name: str) -> Any:
        raise ModuleNotFoundError(name)

    with pytest.raises(FailedPrecondition, match=r"easel\[ranker,meaning\]"):
        open_network(written(tmp_path / "twice.onnx"), importer=importer)


def test_ports_of_a_kind_that_numpy_has_no_numbers_for(tmp_path: Path) -> None:
    path = tmp_path / "strings.onnx"
    x = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    y = helper.make_tensor_value_info("y", TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [x], [y])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with pytest.raises(FailedPrecondition, match=r"ports of tensor\(string\)"):
        open_network(path)
