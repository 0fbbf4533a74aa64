"""SSD's anchors and the decoding of its outputs (Liu et al., SSD: Single Shot MultiBox Detector, 2016).

The anchors are those of MediaPipe's ``SsdAnchorsCalculator``, by which the pretrained network was trained.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AnchorGrid:
    """Where SSD's anchors are: at each cell of each layer of the network, in several scales and aspect ratios.

    size : side of the input in pixels.
    strides : pixels between the cells of a layer, one number for each layer.
    min_scale, max_scale : side of a square anchor of the first and last layer, relative to the input; others are
        spread evenly.
    ratios : width / height of the anchors of a cell.
    reduce_lowest : whether the first layer has only three anchors in each cell: a square of scale 0.1, and the ratios
        2 and 1/2.
    """

    size: int = 300
    strides: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    min_scale: float = 0.2
    max_scale: float = 0.95
    ratios: tuple[float, ...] = (1.0, 2.0, 0.5, 3.0, 0.3333)
    reduce_lowest: bool = True

    def scales(self) -> np.ndarray:
        """The scale of each layer, and 1 for the layer that would follow the last one: float64 (layers + 1,)."""
        return np.append(np.linspace(self.min_scale, self.max_scale, len(self.strides)), 1.0)

    def anchors(self) -> np.ndarray:
        """float32 (n, 4): center x and y, width and height, relative to the input; the order is that of the outputs."""
        return np.concatenate([self._layer(number) for number in range(len(self.strides))])

    def _layer(self, number: int) -> np.ndarray:
        scale, following = self.scales()[number : number + 2]
        if number == 0 and self.reduce_lowest:
            shapes = np.array([(0.1, 1.0), (scale, 2.0), (scale, 0.5)])
        else:
            # A square between this layer's scale and the following one's is added.
            shapes = np.array([*((scale, ratio) for ratio in self.ratios), (np.sqrt(scale * following), 1.0)])
        root = np.sqrt(shapes[:, 1])
        sides = np.stack([shapes[:, 0] * root, shapes[:, 0] / root], axis=1)
        cells = -(-self.size // self.strides[number])
        y, x = np.mgrid[:cells, :cells].reshape(2, -1)
        centers = (np.stack([x, y], axis=1) + 0.5) / cells
        anchors = np.hstack([np.repeat(centers, len(sides), axis=0), np.tile(sides, (len(centers), 1))])
        return anchors.astype(np.float32)


#: By how much the outputs are multiplied in training: centers and sides.
CENTER_FACTOR, SIDE_FACTOR = 10.0, 5.0


def decode(encoded: np.ndarray, logits: np.ndarray, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The boxes and scores of SSD's outputs.

    Parameters
    ----------
    encoded : float32 (n, 4): the offset of the center y and x from the anchor's, relative to its height and width, and
        the logarithms of height and width relative to the anchor's, times their factors.
    logits : float32 (n, 1 + classes); the first class is the background.
    anchors : float32 (n, 4).

    Returns
    -------
    boxes : float32 (n, 4), x, y, width, height relative to the input.
    scores : float32 (n, classes), in 0 … 1.
    """
    center = encoded[:, 1::-1] / CENTER_FACTOR * anchors[:, 2:] + anchors[:, :2]
    sides = np.exp(encoded[:, :1:-1] / SIDE_FACTOR) * anchors[:, 2:]
    return np.hstack([center - sides / 2, sides]), sigmoid(logits[:, 1:])


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−x)), without an overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))
