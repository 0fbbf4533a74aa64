"""Neural networks in ONNX files, computed by OpenVINO on the CPU in single precision.

Weights in half precision or in 8 bits are accepted, as are inputs and outputs in half precision; the arithmetic is in
float32. Axes may be dynamic: images are computed one by one, at the size for which a model is read.
"""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.networks.compiled import CompiledNetwork, openvino_package, reason

if TYPE_CHECKING:
    import openvino

IMAGE_INPUT, TOKENS, MASK = "pixel_values", "input_ids", "attention_mask"

#: Beginning of a file that Git LFS has not fetched, and of every ONNX file: the field ir_version.
_LFS, _FIRST_FIELD = b"version https://git-lfs", b"\x08"


class OnnxFileError(ValueError):
    """An ONNX file is damaged, or its inputs or outputs are not those that are needed; the message names them."""


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A model in an ONNX file with one of its outputs, for one image or one text.

    output : name of the output. shape : of the output, without the batch axis.
    """

    path: Path
    graph: "openvino.Model"
    output: str
    shape: tuple[int, ...]


def read_image_model(path: Path, size: int, outputs: Sequence[str]) -> OnnxModel:
    """Read a model of images, for size × size pixels, with the first of these outputs that it has.

    Its one input is floating (batch, 3, height, width). Raises `OnnxFileError`.
    """
    graph = read_graph(path)
    names = [one.any_name for one in graph.inputs]
    if names != [IMAGE_INPUT]:
        raise OnnxFileError(f"{path} must have the one input {IMAGE_INPUT}, it has {', '.join(names)}")
    return _for_shapes(path, graph, {IMAGE_INPUT: [1, 3, size, size]}, outputs)


def read_text_model(path: Path, length: int, outputs: Sequence[str]) -> OnnxModel:
    """Read a model of texts, for ``length`` tokens, with the first of these outputs that it has.

    Its inputs are input_ids and optionally attention_mask: integer (batch, tokens). Raises `OnnxFileError`.
    """
    graph = read_graph(path)
    names = [one.any_name for one in graph.inputs]
    if TOKENS not in names or set(names) - {TOKENS, MASK}:
        raise OnnxFileError(
            f"{path} must have the input {TOKENS}, and no other one than {MASK}; it has {', '.join(names)}"
        )
    return _for_shapes(path, graph, dict.fromkeys(names, [1, length]), outputs)


def fixed_length(path: Path) -> int | None:
    """The number of tokens that a model of texts takes; None if it takes any number. Raises `OnnxFileError`."""
    for one in read_graph(path).inputs:
        shape = one.get_partial_shape()
        if one.any_name == TOKENS and shape.rank.is_static and len(shape) == 2 and shape[1].is_static:
            return shape[1].get_length()
    return None


class TextNetwork:
    """A model of texts, compiled for this computer."""

    def __init__(self, model: OnnxModel):
        self._compiled = openvino_package().Core().compile_model(
            model.graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        )  # fmt: skip
        self._types = {one.any_name: one.get_element_type().to_dtype() for one in model.graph.inputs}

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Token ids and attention mask (n, length) → float32 (n, …)."""
        values = {TOKENS: ids, MASK: mask}
        rows = []
        # One for each call, so that threads can call at the same time.
        request = self._compiled.create_infer_request()
        for row in range(len(ids)):
            given = {name: values[name][row : row + 1].astype(kind) for name, kind in self._types.items()}
            rows.append(np.array(request.infer(given)[0][0], np.float32))
        return np.stack(rows)


def image_network(
    graph: "openvino.Model", mean: Sequence[float], std: Sequence[float], layout: str = "NCHW", single: bool = False
) -> CompiledNetwork:
    """A model of images with its normalization, compiled for this computer.

    Its input is uint8 (b, height, width, 3), and that of the model (pixel − mean) / std.

    layout : of the model's input, NCHW or NHWC.
    single : see `CompiledNetwork`.
    """
    openvino = openvino_package()
    steps = openvino.preprocess.PrePostProcessor(graph)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout(layout))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(list(mean)).scale(list(std))
    return CompiledNetwork(steps.build(), single=single)


def read_graph(path: Path, error: type[ValueError] = OnnxFileError) -> "openvino.Model":
    """Read an ONNX file, or one in OpenVINO's own format (.xml). Raises ``error`` if it is missing or damaged."""
    if not path.is_file():
        raise error(f"{path} is missing")
    with path.open("rb") as file:
        head = file.read(len(_LFS))
    if head == _LFS:
        raise error(f"{path} is only a pointer of Git LFS: run `git lfs pull` in its folder")
    # OpenVINO would try its other formats, too, and print their errors.
    if head[:1] != _FIRST_FIELD and path.suffix.lower() != ".xml":
        raise error(f"{path} is not an ONNX file")
    try:
        return openvino_package().Core().read_model(path)
    except RuntimeError as cause:  # OpenVINO's
        why = "it is not complete" if "Unable to read the model" in str(cause) else reason(cause)
        raise error(f"{path} is damaged, or a part of it is missing: {why}") from cause


def external_data(path: Path) -> list[Path]:
    """Files with the weights of an ONNX file that is larger than 2 GB, such as ``model.onnx_data``."""
    return sorted(other for other in path.parent.glob(f"{glob.escape(path.name)}?*") if other.is_file())


def _for_shapes(path: Path, graph: "openvino.Model", shapes: dict[str, list[int]], outputs: Sequence[str]) -> OnnxModel:
    """The model with fixed shapes and only the first of these outputs."""
    for one in graph.inputs:
        found, wanted = one.get_partial_shape(), shapes[one.any_name]
        if not found.compatible(openvino_package().PartialShape([-1, *wanted[1:]])):
            raise OnnxFileError(
                f"{path}: its input {one.any_name} is {axes_text(found)}, but {axes_text(wanted)} is needed"
            )
    names = {name: one for one in graph.outputs for name in one.names}
    output = next((name for name in outputs if name in names), None)
    if output is None:
        raise OnnxFileError(f"{path} must have one of the outputs {', '.join(outputs)}, it has {', '.join(names)}")
    try:
        part = openvino_package().Model([names[output].node], graph.get_parameters(), path.stem)
        part.reshape(shapes)
    except RuntimeError as error:  # OpenVINO's
        given = ", ".join(f"{name} {axes_text(axes)}" for name, axes in shapes.items())
        raise OnnxFileError(f"{path} cannot compute an input of {given}: {reason(error)}") from error
    shape = part.outputs[0].get_partial_shape()
    if shape.is_dynamic or shape[0].get_length() != 1:
        raise OnnxFileError(f"{path}: its output {output} is {axes_text(shape)}, not that of one image or text")
    return OnnxModel(path, part, output, tuple(axis.get_length() for axis in shape)[1:])


def axes_text(shape: "openvino.PartialShape") -> str:
    """A shape in messages, such as 1 × 3 × 224 × 224."""
    return " × ".join(str(axis) for axis in shape)
