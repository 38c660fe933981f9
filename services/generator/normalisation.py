"""Group normalisation (Wu and He, 2018) as OpenVINO computes it quickly in batches of any size.

Where the batch is not known when a model is compiled, OpenVINO scales and shifts each channel of
each picture by itself, and, below 256 numbers a channel, number by number: in the demo U-Net that
took as long as half of its convolutions. With the channels last it is one pass over all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.openvino import integers, operations


def with_channels_last(model: Any) -> Any:
    """``model`` itself, an ``openvino.Model``: of each normalisation of pictures (B, C, H, W) the
    scale, the shift, and the activation and quantisation after them have the channels last.

    Equal up to the last bits of float32. Other shapes are left as they are.
    """
    for layer in model.get_ordered_ops():
        if layer.get_type_name() == "GroupNormalization" and _of_pictures(layer):
            _replace(layer)
    model.validate_nodes_and_infer_types()
    return model


def _of_pictures(layer: Any) -> bool:
    shape = layer.get_input_partial_shape(0)
    return bool(shape.rank.is_static and shape.rank.get_length() == 4 and shape[1].is_static)


def _replace(layer: Any) -> None:
    given, scale, shift = (port.get_source_output() for port in layer.inputs())
    told = layer.get_attributes()
    channels = given.get_partial_shape()[1].get_length()
    groups = operations.reshape(given, integers(0, int(told["num_groups"]), -1), True)
    normal = operations.mvn(groups, integers(2), True, float(told["epsilon"]), "inside_sqrt")
    pictures = operations.reshape(normal, operations.shape_of(given), False)
    last = operations.transpose(pictures, integers(0, 2, 3, 1))
    per_channel = integers(1, 1, 1, channels)
    scaled = operations.multiply(last, operations.reshape(scale, per_channel, False))
    end, result = layer, operations.add(scaled, operations.reshape(shift, per_channel, False))
    while (after := _next(end)) is not None:
        if end is layer:
            after.input(0).replace_source_output(result.output(0))
        end = result = after
    readers = list(end.output(0).get_target_inputs())
    back = operations.transpose(result, integers(0, 3, 1, 2))
    for reader in readers:
        reader.replace_source_output(back.output(0))


def _next(layer: Any) -> Any:
    """What takes ``layer``'s numbers one by one, and nothing else does; or None."""
    readers = list(layer.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_index() != 0:
        return None
    reader = readers[0].get_node()
    kind = reader.get_type_name()
    alone = kind == "Swish" or (kind == "FakeQuantize" and _one_range(reader))
    return reader if alone else None


def _one_range(quantisation: Any) -> bool:
    return all(
        shape.is_static and int(np.prod(list(shape.to_shape()))) == 1
        for shape in map(quantisation.get_input_partial_shape, range(1, 5))
    )
