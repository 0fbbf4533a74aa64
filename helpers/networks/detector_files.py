"""Detectors in files, ONNX or OpenVINO's own format: their labels, and the form of their inputs and outputs.

YOLO (Redmon et al. 2016) has one output with a box in each column or row: center x and y, width and height in pixels of
the input, then the scores of the classes. In older versions, the score that the box has an object precedes those of the
classes. DETR (Carion et al. 2020) has the outputs ``logits`` and ``pred_boxes``, with boxes relative to the image.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.files import content_hash
from helpers.networks.compiled import openvino_package, reason
from helpers.networks.onnx_files import axes_text, external_data, read_graph
from helpers.networks.ssd import sigmoid

if TYPE_CHECKING:
    import openvino

#: Side of the input in pixels for a network that takes any size.
DYNAMIC_SIZE = 640
#: Mean and standard deviation of ImageNet's red, green and blue, in 0 … 255.
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_MASK = "pixel_mask"

#: Outputs of one image, (height, width) of the input → boxes float32 (n, 4), x, y, width, height relative to the input,
#: and scores float32 (n, classes).
Decode = Callable[[Sequence[np.ndarray], tuple[int, int]], tuple[np.ndarray, np.ndarray]]


class DetectorFileError(ValueError):
    """A file of a detector or of its labels is missing, damaged, or of a form that is not accepted."""


@dataclass(frozen=True)
class Form:
    """A form of a network's outputs.

    text : shows it in messages.
    outputs : the names of the outputs, in the order that ``decode`` takes.
    mean, std : the network takes (pixel − mean) / std.
    pad : whether images keep their aspect ratio, with gray borders.
    """

    text: str
    outputs: tuple[str, ...]
    decode: Decode
    mean: tuple[float, float, float] = (0, 0, 0)
    std: tuple[float, float, float] = (255, 255, 255)
    pad: bool = False


@dataclass(frozen=True, eq=False)
class DetectorFile:
    """A network for one image, with the form of its outputs.

    height, width : of the input, in pixels. channels_first : whether its input is (1, 3, height, width).
    digest : hash of the network's files.
    """

    graph: "openvino.Model"
    form: Form
    height: int
    width: int
    channels_first: bool
    digest: str


def read_labels(path: str | Path) -> tuple[str, ...]:
    """The names of the classes, one in each line, in the order of the network's outputs. Raises `DetectorFileError`."""
    try:
        names = Path(path).read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DetectorFileError(f"the labels {path} cannot be read: {error}") from error
    if not names or not all(name.strip() for name in names):
        raise DetectorFileError(f"the labels {path} must have one name in each line, without empty lines")
    return tuple(name.strip() for name in names)


def read_detector(path: str | Path, classes: int, size: int | None = None) -> DetectorFile:
    """Read a network and find the form of its outputs.

    Parameters
    ----------
    classes : number of names in the labels file.
    size : side of the input in pixels for a network that takes any size, by default `DYNAMIC_SIZE`.

    Raises
    ------
    DetectorFileError : the file is missing or damaged, or its inputs or outputs are not of an accepted form.
    """
    path = Path(path)
    if path.suffix.lower() not in (".onnx", ".xml"):
        raise DetectorFileError(f"{path} must be an ONNX file (.onnx) or one of OpenVINO (.xml with its .bin)")
    graph = read_graph(path, DetectorFileError)
    height, width, channels_first = _fix_input(path, graph, size)
    form = _find_form(path, _shapes(graph), classes)
    named = dict(zip(_shapes(graph), graph.outputs, strict=True))
    part = openvino_package().Model(
        [named[name].get_node().input_value(0) for name in form.outputs], graph.get_parameters(), path.stem
    )
    return DetectorFile(part, form, height, width, channels_first, _digest(path))


def _digest(path: Path) -> str:
    """Hash of a network's files: the ONNX file and its external weights, or the .xml and the .bin beside it."""
    files = [path, *external_data(path)] if path.suffix.lower() == ".onnx" else [path, path.with_suffix(".bin")]
    return hashlib.sha256(b"".join(content_hash(file) for file in files)).hexdigest()


def _fix_input(path: Path, graph: "openvino.Model", size: int | None) -> tuple[int, int, bool]:
    """Fix the shape of the input for one image: (height, width, whether the channels are first)."""
    openvino = openvino_package()
    images = [one for one in graph.inputs if _MASK not in one.get_names()]
    shape = images[0].get_partial_shape() if len(images) == 1 else openvino.PartialShape([])
    channels_first = shape.rank == 4 and shape.compatible(openvino.PartialShape([1, 3, -1, -1]))
    if not channels_first and not (shape.rank == 4 and shape.compatible(openvino.PartialShape([1, -1, -1, 3]))):
        found = ", ".join(
            f"{_name(one, number)} {axes_text(one.get_partial_shape())}" for number, one in enumerate(graph.inputs)
        )
        raise DetectorFileError(
            f"{path} must have one input of images, 1 × 3 × height × width or 1 × height × width × 3; it has {found}"
        )
    sides = [axis.get_length() if axis.is_static else None for axis in list(shape)[2 if channels_first else 1 :][:2]]
    if size is not None and any(side not in (None, size) for side in sides):
        raise DetectorFileError(f"{path} takes images of {sides[1]} × {sides[0]} pixels, not of {size} × {size}")
    height, width = (side or size or DYNAMIC_SIZE for side in sides)
    try:
        graph.reshape({images[0]: [1, 3, height, width] if channels_first else [1, height, width, 3]})
    except RuntimeError as error:  # OpenVINO's
        raise DetectorFileError(f"{path} cannot compute {width} × {height} pixels: {reason(error)}") from error
    _fill_mask(graph, height, width)
    return height, width, channels_first


def _fill_mask(graph: "openvino.Model", height: int, width: int) -> None:
    """Replace DETR's mask of the pixels that are not padding by ones."""
    for parameter in graph.get_parameters():
        if _MASK in parameter.output(0).get_names():
            shape = list(parameter.get_partial_shape())
            sides = [
                axis.get_length() if axis.is_static else side
                for axis, side in zip(shape, (1, height, width), strict=True)
            ]
            ones = np.ones(sides, parameter.get_element_type().to_dtype())
            parameter.output(0).replace(openvino_package().op.Constant(ones).output(0))
            graph.remove_parameter(parameter)
            graph.validate_nodes_and_infer_types()


def _shapes(graph: "openvino.Model") -> dict[str, tuple[int | None, ...]]:
    """Name → shape of the outputs; None is an unknown number."""
    return {
        _name(one, number): tuple(axis.get_length() if axis.is_static else None for axis in one.get_partial_shape())
        for number, one in enumerate(graph.outputs)
    }


def _find_form(path: Path, shapes: dict[str, tuple[int | None, ...]], classes: int) -> Form:
    matches = []
    for name, shape in shapes.items():
        if len(shape) == 3 and None not in shape and shape[0] == 1:
            if shape[1] == 4 + classes:
                matches.append(Form("YOLO, boxes in columns", (name,), _decode_columns, pad=True))
            if shape[2] == 5 + classes:
                matches.append(Form("YOLO, boxes in rows", (name,), _decode_rows, pad=True))
    logits, boxes = shapes.get("logits", ()), shapes.get("pred_boxes", ())
    if len(logits) == len(boxes) == 3 and None not in (*logits, *boxes) and boxes == (1, logits[1], 4):
        names = ("logits", "pred_boxes")
        if logits[2] == classes + 1:
            matches.append(Form("DETR, softmax", names, _decode_softmax, IMAGENET_MEAN, IMAGENET_STD))
        if logits[2] == classes:
            matches.append(Form("DETR, sigmoid", names, _decode_sigmoid))
    if len(matches) == 1:
        return matches[0]
    found = ", ".join(
        f"{name} {' × '.join('?' if n is None else str(n) for n in axes)}" for name, axes in shapes.items()
    )
    if matches:
        raise DetectorFileError(
            f"{path}: its outputs fit several forms ({', '.join(m.text for m in matches)}): {found}"
        )
    raise DetectorFileError(
        f"{path} has the outputs {found}. With {classes} labels, these are accepted: YOLO, one output "
        f"1 × {4 + classes} × n or 1 × n × {5 + classes}; DETR, logits 1 × n × {classes + 1} or 1 × n × {classes}, and "
        "pred_boxes 1 × n × 4. Does the labels file have one line for each class of the network?"
    )


def _decode_columns(outputs: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows = outputs[0].T
    return _from_centers(rows[:, :4] / _four(size)), rows[:, 4:]


def _decode_rows(outputs: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows = outputs[0]
    return _from_centers(rows[:, :4] / _four(size)), rows[:, 5:] * rows[:, 4:5]


def _decode_softmax(outputs: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The last class means that there is no object."""
    powers = np.exp(outputs[0] - outputs[0].max(axis=1, keepdims=True))
    return _from_centers(outputs[1]), (powers / powers.sum(axis=1, keepdims=True))[:, :-1]


def _decode_sigmoid(outputs: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return _from_centers(outputs[1]), sigmoid(outputs[0])


def _from_centers(boxes: np.ndarray) -> np.ndarray:
    """Center x and y, width and height → x, y, width, height."""
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]])


def _four(size: tuple[int, int]) -> np.ndarray:
    """(height, width) → float32 (width, height, width, height)."""
    return np.array([size[1], size[0]] * 2, np.float32)


def _name(one: "openvino.Output", number: int) -> str:
    return one.get_any_name() if one.get_names() else f"number {number}"
