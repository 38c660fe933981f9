"""The contract's messages to plain values and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from services.core.card import ModelState
from services.core.errors import InvalidInput
from services.inference import open_inference_pb2 as pb
from services.inference.model import (
    DEFAULT_LEVEL,
    PRIORITY_LEVELS,
    Inference,
    InferRequest,
    ModelDescription,
    OutputRequest,
    Value,
    classes_of,
    unknown_parameter,
)
from services.inference.statistics import ModelCounts, Steps, Total, whole
from services.inference.tensors import BYTES, Tensor, TensorSpec, shortened

MAX_TENSORS: Final = 64
"""Far more than any model has; counted before anything is copied."""

_MAX_DIMENSIONS: Final = 16

_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
_RAW_ALONE: Final = ("FP16", "BF16")
_LAYOUTS: Final = {
    "": pb.ModelInput.FORMAT_NONE,
    "NHWC": pb.ModelInput.FORMAT_NHWC,
    "NCHW": pb.ModelInput.FORMAT_NCHW,
}
_STATES: Final = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.WARMING_UP: "LOADING",
    ModelState.UNLOADING: "UNLOADING",
}


def request_from_pb(message: pb.ModelInferRequest) -> InferRequest:
    """Raises ``InvalidInput`` where the tensors and their contents do not go together."""
    _bounded(message.inputs, "inputs")
    _bounded(message.outputs, "outputs")
    return InferRequest(
        inputs=_inputs(message),
        outputs=[
            OutputRequest(
                output.name,
                classes_of(
                    _parameters(output.parameters, f"outputs[{index}].parameters"),
                    f"outputs[{index}]",
                ),
                f"outputs[{index}]",
            )
            for index, output in enumerate(message.outputs)
        ],
        id=message.id,
        model=message.model_name,
        version=message.model_version,
        parameters=_parameters(message.parameters, "parameters"),
    )


def _inputs(message: pb.ModelInferRequest) -> list[Tensor]:
    raw = len(message.raw_input_contents)
    if raw not in (0, len(message.inputs)):
        raise InvalidInput(
            "raw_input_contents",
            f"There are {len(message.inputs)} inputs and {raw} raw_input_contents; each input has "
            "one, or none has.",
            len(message.inputs),
            raw,
        )
    return [_input(message, index, raw > 0) for index in range(len(message.inputs))]


def _input(message: pb.ModelInferRequest, index: int, raw: bool) -> Tensor:
    tensor, field = message.inputs[index], f"inputs[{index}]"
    for name in tensor.parameters:
        # Those of shared memory, which is served to nobody.
        raise unknown_parameter(name, f"{field}.parameters")
    if len(tensor.shape) > _MAX_DIMENSIONS:
        raise InvalidInput(
            f"{field}.shape", "The shape has too many dimensions.", _MAX_DIMENSIONS,
            len(tensor.shape),
        )  # fmt: skip
    values, values_field = _raw(message, index) if raw else _typed(tensor, field)
    return Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), values, field, values_field)


def _raw(message: pb.ModelInferRequest, index: int) -> tuple[bytes, str]:
    if message.inputs[index].HasField("contents"):
        raise InvalidInput(
            f"inputs[{index}].contents", "An input has contents or raw_input_contents, not both."
        )
    return message.raw_input_contents[index], f"raw_input_contents[{index}]"


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, field: str) -> tuple[Sequence[Any], str]:
    datatype = shortened(tensor.datatype)
    if datatype in _RAW_ALONE:
        raise InvalidInput(f"{field}.contents", f"{datatype} goes in raw_input_contents alone.")
    if datatype not in _CONTENTS:
        known = ", ".join((*_CONTENTS, *_RAW_ALONE))
        raise InvalidInput(
            f"{field}.datatype", f"There is no datatype {datatype!r}; known: {known}.", known,
            datatype,
        )  # fmt: skip
    name = _CONTENTS[datatype]
    for other, _ in tensor.contents.ListFields():
        if other.name != name:
            raise InvalidInput(
                f"{field}.contents.{other.name}",
                f"{datatype} goes in {name}, not in {other.name}.",
                name,
                other.name,
            )
    values: Sequence[Any] = getattr(tensor.contents, name)
    return values, f"{field}.contents.{name}"


def _parameters(messages: Mapping[str, pb.InferParameter], field: str) -> dict[str, Value]:
    _bounded(messages, field)
    return {name: _value(message, f"{field}.{name}") for name, message in messages.items()}


def _value(message: pb.InferParameter, field: str) -> Value:
    choice = message.WhichOneof("parameter_choice")
    if choice is None:
        raise InvalidInput(shortened(field), "A parameter has a value.")
    value: Value = getattr(message, choice)
    return value


def _bounded(values: Sequence[Any] | Mapping[str, Any], field: str) -> None:
    if len(values) > MAX_TENSORS:
        raise InvalidInput(field, f"Too many {field}.", MAX_TENSORS, len(values))


def response_to_pb(id: str, inference: Inference) -> pb.ModelInferResponse:
    return pb.ModelInferResponse(
        model_name=inference.model,
        model_version=inference.version,
        id=id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=output.name, datatype=output.datatype, shape=output.shape
            )
            for output in inference.outputs
        ],
        raw_output_contents=[output.data for output in inference.outputs],
    )


def metadata_to_pb(model: ModelDescription, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=model.backend,
        inputs=[_spec_to_pb(spec) for spec in model.inputs],
        outputs=[_spec_to_pb(spec) for spec in model.outputs],
    )


def _spec_to_pb(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.shape
    )


def config_to_pb(model: ModelDescription) -> pb.ModelConfig:
    return pb.ModelConfig(
        name=model.name,
        platform=model.backend,
        backend=model.backend,
        max_batch_size=model.max_batch,
        input=[
            pb.ModelInput(
                name=spec.name,
                data_type=_data_type(spec),
                format=_LAYOUTS[spec.layout],
                dims=spec.shape[1:],
            )
            for spec in model.inputs
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:])
            for spec in model.outputs
        ],
        dynamic_batching=pb.ModelDynamicBatching(
            max_queue_delay_microseconds=round(model.queue_delay_seconds * 1e6),
            priority_levels=PRIORITY_LEVELS,
            default_priority_level=DEFAULT_LEVEL,
        ),
        parameters={
            name: pb.ModelParameter(string_value=value) for name, value in model.parameters.items()
        },
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )


def _data_type(spec: TensorSpec) -> pb.DataType.ValueType:
    name = "STRING" if spec.datatype == BYTES else spec.datatype
    return pb.DataType.Value(f"TYPE_{name}")


def statistics_to_pb(model: ModelDescription, counts: ModelCounts) -> pb.ModelStatistics:
    return pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=int(counts.last_at * 1e3),
        inference_count=counts.items,
        execution_count=counts.executions,
        inference_stats=pb.InferStatistics(
            success=_total_to_pb(counts.success),
            fail=_total_to_pb(counts.fail),
            queue=_total_to_pb(counts.queue),
            compute_input=_total_to_pb(counts.steps.prepare),
            compute_infer=_total_to_pb(counts.steps.compute),
            compute_output=_total_to_pb(counts.steps.finish),
        ),
        batch_stats=[_batch_to_pb(rows, steps) for rows, steps in sorted(counts.by_batch.items())],
        memory_usage=_memory_to_pb(model),
    )


def _total_to_pb(total: Total) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=whole(total.count), ns=round(total.seconds * 1e9))


def _batch_to_pb(rows: int, steps: Steps) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=rows,
        compute_input=_total_to_pb(steps.prepare),
        compute_infer=_total_to_pb(steps.compute),
        compute_output=_total_to_pb(steps.finish),
    )


def _memory_to_pb(model: ModelDescription) -> list[pb.MemoryUsage]:
    kind, _, number = model.device.partition(":")
    where = "GPU" if kind == "cuda" else "CPU"
    id = int(number) if number.isdecimal() else 0
    return [pb.MemoryUsage(type=where, id=id, byte_size=model.bytes_in_memory)]


def index_to_pb(model: ModelDescription) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=model.name,
        version=model.version,
        state=_STATES.get(model.state, "UNAVAILABLE"),
        reason=model.reason,
    )
