"""dlib's face network as a graph of OpenVINO.

OpenVINO computes it much faster than dlib (``python -m benchmarks.embedding --faces``). The architecture is that of
dlib's example ``dnn_face_recognition_ex.cpp`` (http://dlib.net): a residual network (He et al. 2016) of 29
convolutions, whose batch normalizations were merged into a factor and an offset for each channel. The weights are read
from dlib's own file.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.networks.compiled import CompiledNetwork, openvino_package
from helpers.networks.onnx_files import image_network

if TYPE_CHECKING:
    import openvino

#: Side of the input in pixels, and length of the output.
SIZE, DIM = 150, 128
#: Means that are subtracted from red, green and blue, and the number that divides them.
MEAN, SCALE = (122.782, 117.001, 104.298), 256.0
#: Channels of each block and whether it halves the map.
_BLOCKS = tuple(
    (channels, halve and number == 0)
    for channels, count, halve in ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
    for number in range(count)
)


def face_network(path: Path) -> CompiledNetwork:
    """Read and compile the network: uint8 (b, 150, 150, 3) RGB, aligned faces → float32 (b, 128), not normalized.

    path : of ``dlib_face_recognition_resnet_model_v1.dat``, whose checksum `helpers.features.faces.model_files` checks.
        Raises ValueError if it is another file.
    """
    return image_network(_graph(_Parameters(path.read_bytes())), MEAN, [SCALE] * 3)


class _Parameters:
    """The parameters in dlib's file, in the order of the layers from input to output."""

    def __init__(self, content: bytes):
        self._content, self._position = content, 0

    def next(self, layer: bytes, *shape: int, before: int = 0) -> np.ndarray:
        """The parameters of the next layer of this name: float32 (*shape).

        before : number of integers between the name and the parameters.
        """
        name = b"\x01" + bytes([len(layer)]) + layer
        self._position = self._content.index(name, self._position) + len(name)
        # A tensor has a version and four lengths. dlib writes the number of an integer's bytes, then the bytes.
        for _ in range(before + 5):
            self._position += 1 + self._content[self._position]
        found = np.frombuffer(self._content, "<f4", math.prod(shape), self._position)
        self._position += found.nbytes
        return found.reshape(shape)


def _graph(parameters: _Parameters) -> "openvino.Model":
    """float32 (1, 3, 150, 150) → (1, 128)."""
    openvino = openvino_package()
    from openvino import opset1 as ops

    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32)
    x = ops.relu(_convolution(pixels, parameters, 3, 32, 7, 2))
    x = ops.max_pool(x, [2, 2], [0, 0], [0, 0], [3, 3])
    channels = 32
    for width, halve in _BLOCKS:
        start = ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], True) if halve else x
        x = ops.relu(_convolution(x, parameters, channels, width, 3, 2 if halve else 1))
        x = _convolution(x, parameters, width, width, 3, 1)
        x = ops.relu(ops.add(*_padded(x, start)))
        channels = width
    x = ops.reduce_mean(x, np.array([2, 3]), False)
    weights = parameters.next(b"fc_2", channels, DIM, before=2)
    return openvino.Model([ops.matmul(x, weights, False, False)], [pixels], "dlib-face")


def _convolution(
    x: "openvino.Node", parameters: _Parameters, channels: int, filters: int, side: int, stride: int
) -> "openvino.Node":
    """A convolution and its factors. As in dlib, only a convolution of stride 1 pads the map."""
    from openvino import opset1 as ops

    weights = channels * side * side
    values = parameters.next(b"con_4", filters * (weights + 1))
    kernel = values[: filters * weights].reshape(filters, channels, side, side)
    factor, offset = parameters.next(b"affine_", 2, 1, filters, 1, 1)
    padding = [side // 2] * 2 if stride == 1 else [0, 0]
    x = ops.convolution(x, kernel, [stride] * 2, padding, padding, [1, 1])
    x = ops.add(x, values[filters * weights :].reshape(1, filters, 1, 1))
    return ops.add(ops.multiply(x, factor), offset)


def _padded(*maps: "openvino.Node") -> "Iterator[openvino.Node]":
    """The maps with zeros behind their channels, rows and columns, so that all have the same shape."""
    from openvino import opset1 as ops

    shapes = np.array([list(each.get_output_shape(0)) for each in maps])
    for each, missing in zip(maps, shapes.max(axis=0) - shapes, strict=True):
        yield ops.pad(each, np.zeros(4, np.int64), missing, "constant") if missing.any() else each
