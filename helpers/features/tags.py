"""Image → words: the class names of an image with calibrated scores, as a table and as XMP sidecars."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO
from xml.sax.saxutils import escape

import numpy as np

from helpers.features.calibration import TemperatureScaling
from helpers.files import write_atomically
from helpers.images import imagenet
from helpers.text import printable, write_csv

#: Network → temperature of its class probabilities with plain resizing, fitted on one image of each ImageNet class.
#: These are training images of the network; `tests/measured/test_word_search.py` measures the scores on other images.
TEMPERATURES = {"efficientnet-lite0": 0.734}

#: An XMP packet (XMP specification part 1, 7.3.2) without its words.
_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" \
xmlns:x="adobe:ns:meta/">
  <rdf:RDF>
    <rdf:Description rdf:about="">
      <dc:subject>
        <rdf:Bag>
{}        </rdf:Bag>
      </dc:subject>
    </rdf:Description>
  </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


class Tag(NamedTuple):
    """A word for an image, and the estimated probability that it is right."""

    word: str
    score: float


class Tagger:
    """Selects the tags of images from scores.

    Parameters
    ----------
    names : of the columns of the scores; by default ImageNet's classes. The probabilities of equal names are added.
    calibration : turns scores into probabilities; None if they are.
    k : maximum number of tags per image.
    threshold : the lowest score of a tag.
    """

    def __init__(
        self, names: Sequence[str] | None = None, calibration: TemperatureScaling | None = None, k: int = 5,
        threshold: float = 0.1,
    ):  # fmt: skip
        if k < 1 or not 0 <= threshold <= 1:
            raise ValueError(f"k must be at least 1 and threshold in 0 … 1, got {k} and {threshold}")
        columns = tuple(imagenet.classes().values() if names is None else names)
        self.names = tuple(dict.fromkeys(columns))
        column = {name: number for number, name in enumerate(self.names)}
        self._target = [column[name] for name in columns]
        self.calibration, self.k, self.threshold = calibration, k, threshold

    @classmethod
    def for_network(cls, network: str, k: int = 5, threshold: float = 0.1) -> "Tagger":
        """ImageNet's classes, calibrated for `helpers.features.deep.ClassScores` of a network with plain resizing.

        Raises KeyError for a network whose temperature was not measured; fit a `TemperatureScaling` for it.
        """
        if network not in TEMPERATURES:
            raise KeyError(
                f"no temperature of {network!r} is known, only of {', '.join(TEMPERATURES)}; fit a TemperatureScaling"
            )
        return cls(None, TemperatureScaling(TEMPERATURES[network]), k, threshold)

    def tags(self, scores: np.ndarray) -> list[tuple[Tag, ...]]:
        """The tags of each image, the best first, from scores (n, c).

        An image may have none. A row of NaN, of an image that could not be read, has none.
        """
        scores = np.asarray(scores)
        if scores.ndim != 2 or scores.shape[1] != len(self._target):
            raise ValueError(f"expected scores (n, {len(self._target)}), got {scores.shape}")
        unread = np.isnan(scores).any(axis=1)
        scores = np.where(unread[:, None], 0, scores)
        if self.calibration is not None:
            scores = self.calibration.transform(scores)
        added = np.zeros((len(scores), len(self.names)), np.float64)
        for column, target in enumerate(self._target):
            added[:, target] += scores[:, column]
        best = np.argsort(-added, axis=1, kind="stable")[:, : self.k]
        return [
            tuple(Tag(self.names[column], float(row[column])) for column in order if row[column] >= self.threshold)
            for row, order in zip(np.where(unread[:, None], -1, added), best, strict=True)
        ]


def write_table(file: TextIO, keys: Sequence[str], tags: Sequence[Sequence[Tag]]) -> None:
    """Write CSV with one line per tag: image, tag, score. An image without tags has one line with empty cells."""
    rows: list[tuple[str, str | None, float | None]] = []
    for key, found in zip(keys, tags, strict=True):
        rows += [(key, tag.word, round(tag.score, 4)) for tag in found] or [(key, None, None)]
    write_csv(file, ("image", "tag", "score"), rows)


# ---- XMP sidecars -----------------------------------------------------------------------------------------


class Sidecars(NamedTuple):
    """What `write_sidecars` did with the sidecar of each image that has tags: new files, and those that existed."""

    written: list[Path]
    kept: list[Path]


def sidecar_path(image: str | Path) -> Path:
    """``photo.jpg`` → ``photo.jpg.xmp``, as darktable and digiKam name it; ``photo.png`` has another one."""
    image = Path(image)
    return image.with_name(f"{image.name}.xmp")


def sidecar(words: Iterable[str]) -> bytes:
    """An XMP file with the words as keywords: the bag ``dc:subject``, which photo managers read."""
    # XML cannot hold control characters, not even escaped.
    items = (f"          <rdf:li>{escape(printable(word))}</rdf:li>\n" for word in words)
    return _PACKET.format("".join(items)).encode()


def write_sidecars(images: Sequence[Path], tags: Sequence[Sequence[Tag]]) -> Sidecars:
    """Write the sidecar of each image that has tags, next to the image. Each file is written atomically.

    Existing sidecars are kept, with everything in them, such as ratings.
    """
    done = Sidecars([], [])
    for image, found in zip(images, tags, strict=True):
        path = sidecar_path(image)
        if found and (path.exists() or path.is_symlink()):
            done.kept.append(path)
        elif found:
            write_atomically(path, sidecar(tag.word for tag in found), durable=False)
            done.written.append(path)
    return done
