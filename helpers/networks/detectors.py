"""Object detectors: networks that find boxes of known classes in images.

The pretrained one is an SSD (Liu et al. 2016) on MobileNetV2 (Sandler et al. 2018), trained on Open Images v4. Others
are read from files, see `helpers.networks.detector_files`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from helpers.files import content_hash
from helpers.images import reading
from helpers.networks import boxes, detector_files, detector_weights, ssd
from helpers.networks.compiled import openvino_package, reason
from helpers.networks.detector_files import DetectorFile, DetectorFileError, Form
from helpers.networks.onnx_files import image_network

if TYPE_CHECKING:
    import openvino

#: Minimum score of a detection.
THRESHOLD = 0.5
#: Maximum number of detections in an image.
LIMIT = 100
#: Side in pixels of the input that the pretrained detector was trained with.
PRETRAINED_SIZE = ssd.AnchorGrid.size
#: Gray of the borders around an image that keeps its aspect ratio, as in YOLO's training.
BORDER = 114


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that were found in one image, best score first.

    boxes : float32 (n, 4), x, y, width, height in pixels of the image, inside of it.
    classes : int64 (n,), positions in ``class_names``.
    scores : float32 (n,), in 0 … 1.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def names(self) -> list[str]:
        """The name of each box's class."""
        return [self.class_names[number] for number in self.classes]


class Prepared(NamedTuple):
    """An image, resized for a network.

    pixels : uint8 (height, width, 3) of the network's input.
    width, height : of the image, before it was resized.
    """

    pixels: np.ndarray
    width: int
    height: int


class Detector:
    """A network that finds boxes of known classes, computed by OpenVINO.

    Raises `DetectorFileError` if OpenVINO cannot compile it.

    Attributes
    ----------
    name : of the network or its file.
    class_names : the classes, without a background.
    height, width : of its input, in pixels.
    fingerprint : the name and a hash of everything that changes the boxes and scores, except for the arguments of
        `detect`.
    """

    def __init__(self, name: str, file: DetectorFile, class_names: Sequence[str]):
        self.name = name
        self.class_names = tuple(class_names)
        self.height, self.width = file.height, file.width
        self._form = file.form
        settings = [file.digest, file.form.text, self.height, self.width, *self.class_names]
        self.fingerprint = f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}"
        try:
            layout = "NCHW" if file.channels_first else "NHWC"
            self._network = image_network(file.graph, file.form.mean, file.form.std, layout)
        except RuntimeError as error:  # OpenVINO's
            raise DetectorFileError(f"{name} cannot be compiled by OpenVINO: {reason(error)}") from error

    def detect(
        self, images: Sequence[np.ndarray | Prepared], threshold: float | Mapping[str, float] = THRESHOLD,
        max_iou: float = boxes.NMS_IOU, limit: int = LIMIT,
    ) -> list[Detections]:  # fmt: skip
        """Find the objects in a batch of images, uint8 (height, width, 3) RGB each, or from `prepare`.

        A box can have several classes, e.g. Car and Vehicle.

        Parameters
        ----------
        threshold : minimum score for all classes, or for each class by its name; then other classes are left out.
        max_iou : see `helpers.networks.boxes.suppress`.
        limit : maximum number of boxes in an image; the best are kept.
        """
        lowest = self._thresholds(threshold)
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        if not len(images):
            return []
        prepared = [image if isinstance(image, Prepared) else self.prepare(image) for image in images]
        outputs = self.outputs(prepared)
        return [
            self._detections(one, image, lowest, max_iou, limit) for one, image in zip(outputs, prepared, strict=True)
        ]

    def prepare(self, image: np.ndarray | Image.Image) -> Prepared:
        """Resize an image to the input; in YOLO's form with its aspect ratio.

        image : uint8 (height, width, 3) RGB, or Pillow's image.
        """
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        left, top, width, height = self._place(image.height, image.width)
        pixels = np.full((self.height, self.width, 3), BORDER, np.uint8)
        pixels[top : top + height, left : left + width] = reading.resize(image, (height, width))
        return Prepared(pixels, image.width, image.height)

    def outputs(self, images: Sequence[Prepared]) -> list[tuple[np.ndarray, ...]]:
        """The network's outputs for each image, before they are decoded."""
        found = self._network(np.stack([image.pixels for image in images]))
        return list(zip(*(found if isinstance(found, tuple) else (found,)), strict=True))

    def _thresholds(self, threshold: float | Mapping[str, float]) -> np.ndarray:
        """float64 (classes,): the minimum score of each class; infinity for one that is left out."""
        if not isinstance(threshold, Mapping):
            threshold = dict.fromkeys(self.class_names, threshold)
        if unknown := set(threshold) - set(self.class_names):
            raise ValueError(
                f"{self.name} has no class {', '.join(sorted(unknown))}; it has {', '.join(self.class_names)}"
            )
        if wrong := [value for value in threshold.values() if not 0 < value <= 1]:
            raise ValueError(f"a threshold must be more than 0 and at most 1, got {wrong[0]}")
        return np.array([threshold.get(name, np.inf) for name in self.class_names])

    def _place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where an image of this size is in the input: (left, top, width, height)."""
        if not self._form.pad:
            return 0, 0, self.width, self.height
        scale = min(self.height / height, self.width / width)
        # At least one pixel, so that a very long image becomes a line.
        inner_width, inner_height = max(1, round(width * scale)), max(1, round(height * scale))
        return (self.width - inner_width) // 2, (self.height - inner_height) // 2, inner_width, inner_height

    def _detections(
        self, outputs: Sequence[np.ndarray], image: Prepared, lowest: np.ndarray, max_iou: float, limit: int
    ) -> Detections:
        relative, scores = self._form.decode(outputs, (self.height, self.width))
        rows, classes = np.nonzero(scores >= lowest)
        width, height = image.width, image.height
        left, top, inner_width, inner_height = self._place(height, width)
        found = relative[rows] * np.array([self.width, self.height] * 2)
        found = (found - [left, top, 0, 0]) * np.array([width / inner_width, height / inner_height] * 2)
        found = boxes.clip(found, width, height)
        values = scores[rows, classes].astype(np.float32)
        # Those in the border have no area.
        inside = np.flatnonzero((found[:, 2:] > 0).all(axis=1))
        found, values, classes = found[inside], values[inside], classes[inside]
        kept = boxes.suppress(found, values, classes, max_iou)[:limit]
        return Detections(found[kept], classes[kept].astype(np.int64), values[kept], self.class_names)


def pretrained(size: int = PRETRAINED_SIZE) -> Detector:
    """SSD MobileNetV2 with the 23 classes of Open Images v4. Raises `WeightsUnavailable`.

    size : side of the input in pixels. A smaller one than that of the training takes less time.
    """
    path, names = detector_weights.load()
    grid = ssd.AnchorGrid(size)
    anchors = grid.anchors()

    def decode(outputs: Sequence[np.ndarray], _: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        encoded, logits = outputs
        return ssd.decode(encoded, logits, anchors)

    half = (127.5, 127.5, 127.5)
    form = Form("SSD", ("raw_outputs/box_encodings", "raw_outputs/class_predictions"), decode, half, half)
    graph = openvino_package().Core().read_model(path)
    _resize_input(graph, size)
    return Detector(
        detector_weights.NAME, DetectorFile(graph, form, size, size, False, content_hash(path).hex()), names[1:]
    )


def _resize_input(graph: "openvino.Model", size: int) -> None:
    """Let the pretrained network take images of another size, (size, size)."""
    from openvino import opset8

    trained = len(ssd.AnchorGrid().anchors())
    for node in graph.get_ordered_ops():
        # Its last layers name the number of anchors, which depends on the size.
        if node.get_type_name() == "Reshape" and trained in (shape := node.input_value(1).get_node().data.tolist()):
            free = opset8.constant(np.array([-1 if length == trained else length for length in shape], np.int32))
            node.input(1).replace_source_output(free.output(0))
    graph.reshape([1, size, size, 3])


def from_file(path: str | Path, labels: str | Path, size: int | None = None) -> Detector:
    """A detector in a file, ONNX or OpenVINO's own format (.xml), with YOLO's or DETR's outputs.

    Parameters
    ----------
    labels : text file with the names of the classes, one in each line.
    size : side of the input in pixels for a network that takes any size, by default 640.

    Raises
    ------
    DetectorFileError : a file is missing or damaged, or the network has other inputs or outputs than these forms with
        this number of labels.
    """
    names = detector_files.read_labels(labels)
    return Detector(Path(path).name, detector_files.read_detector(path, len(names), size), names)
