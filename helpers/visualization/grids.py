"""Grids of images: sets, search results, pairs of duplicates, and faces."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.evaluation.protocol import Protocol
from helpers.images.duplicates import Pair
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.search.ranking import PAD, Ranking
from helpers.search.results import Result
from helpers.text import printable_lines
from helpers.visualization.curves import COLORS

if TYPE_CHECKING:
    from helpers.features.faces import Face

#: Green, red and gray that also differ in brightness, for color-blind readers and gray print.
POSITIVE, NEGATIVE, NEUTRAL = "#1b7837", "#b2182b", "#555555"
#: Relevant or not → the sign in a title.
SIGNS = {True: "○", False: "✗"}
#: Lines of text, and characters per line, that describe the parts of a query.
_PART_LINES, _PART_WIDTH = 6, 20
#: Results per line; further ones continue on the next line.
_COLUMNS = 10


def image_grid(images: ImageSet, rows: Sequence[int], columns: int = 8, titles: Sequence[str] | None = None) -> Figure:
    """Show images of a set with ``titles``, by default their classes."""
    cells = image_cells(-(-len(rows) // columns), columns, 12, 1.22)
    for i, (cell, row) in enumerate(zip(cells.ravel(), rows, strict=False)):
        cell.imshow(read_image(images.paths[row]))
        cell.set_title(_short(titles[i] if titles else images.class_name(row)), fontsize=9, parse_math=False)
    return cells[0, 0].figure


def result_grid(
    images: ImageSet, protocol: Protocol, ranking: Ranking, rows: Sequence[int], k: int = 10, width: float = 14
) -> Figure:
    """Show queries and their ``k`` nearest images, one line per query; ○ is relevant, ✗ is not.

    Parameters
    ----------
    images : the set that `Protocol.bind` returned: row *i* is id *i*.
    ranking : row *j* has the results of query *j* of the protocol.
    rows : rows of the ranking to show.
    """
    cells = image_cells(len(rows), k + 1, width)
    for line, row in zip(cells, rows, strict=True):
        query = int(protocol.queries[row])
        _framed(line[0], images.paths[query], "black", f"query\n{_short(images.class_name(query))}")
        relevant = set(protocol.relevant(row).tolist())
        for rank, (cell, id, score) in enumerate(zip(line[1:], ranking.ids[row], ranking.scores[row], strict=False), 1):
            if id != PAD:
                hit = id in relevant
                title = f"{SIGNS[hit]} {rank} · {score:.2f}\n{_short(images.class_name(id))}"
                _framed(cell, images.paths[id], POSITIVE if hit else NEGATIVE, title)
    return cells[0, 0].figure


def query_grid(query: np.ndarray, results: Sequence[Result]) -> Figure:
    """Show a query, uint8 (h, w, 3), and the results of `Engine.query`."""
    return query_grids([(query, results)])


def query_grids(
    queries: Sequence[tuple[np.ndarray, Sequence[Result]]],
    boxes: Sequence[Sequence[Sequence[np.ndarray | None]]] = (),
) -> Figure:
    """Show several queries and their results, one below the other.

    queries : tuples of (image, results): uint8 (h, w, 3) and the results of `Engine.query`.
    boxes : for each query and each of its results, the boxes to draw, one for each part of the query; or none.
    """
    columns = min(_COLUMNS, max([1, *(len(results) for _, results in queries)]))
    lines = [max(1, -(-len(results) // columns)) for _, results in queries]
    cells = image_cells(sum(lines), columns + 1, 1.3 * (columns + 1))
    for line, ((query, results), first) in enumerate(zip(queries, np.cumsum([0, *lines]), strict=False)):
        _framed(cells[first, 0], query, "black", "query\n")
        for i, result in enumerate(results):
            name = _short(" ".join((result.class_name if result.label >= 0 else result.path.stem).split()))
            cell = cells[first + i // columns, 1 + i % columns]
            _framed(cell, result.path, NEUTRAL, f"{result.rank} · {result.score:.2f}\n{name}")
            for box, color in zip(boxes[line][i] if boxes else (), COLORS, strict=False):
                if box is not None:
                    outline(cell, box, color)
    return cells[0, 0].figure


def picker_grid(
    query: np.ndarray | None,
    title: str,
    found: Sequence[tuple[str, Sequence]],
    paths: Sequence[Path],
    marks: Mapping[int, bool],
    parts: Sequence[str] = (),
    query_boxes: Sequence[Sequence[float]] = (),
) -> Figure:
    """Show a query of the picker and its results by one or more methods, with ○, ✗ or no sign.

    Parameters
    ----------
    query : uint8 (height, width, 3), or None for a query without an image. title : its title.
    found : tuples of (method, results): results have ``rank``, ``id``, ``score``, ``class_name``, ``relevant`` (None
        if unknown), and ``boxes``: for each part of the query a box to outline, or None.
    paths : the files of the set; a result's id is its row.
    marks : id → whether the user marked it as good.
    parts : further parts of the query, such as its texts; they stand below the image, or in its place.
    query_boxes : parts of the image to outline. All boxes are x, y, width, height in fractions of the image's size.
    """
    lines = [
        (name if start == 0 else "", results[start : start + _COLUMNS])
        for name, results in found
        for start in range(0, max(1, len(results)), _COLUMNS)
    ]
    across = max([4, *(len(results) for _, results in lines)]) + 1
    cells = image_cells(max(1, len(lines)), across, 14, 1.6)
    image = np.full((3, 4, 3), 255, np.uint8) if query is None else query
    _framed(cells[0, 0], image, "black", "\n".join(map(_short, title.split("\n"))))
    _outline_parts(cells[0, 0], query_boxes)
    wrapped = "\n".join(_wrapped(parts))
    if query is None:
        cells[0, 0].text(
            0.5, 0.5, wrapped, ha="center", va="center", fontsize=8, transform=cells[0, 0].transAxes, parse_math=False
        )
    for i, (line, (name, results)) in enumerate(zip(cells, lines, strict=False)):
        # The method stands in the first column; in the first line, below the query.
        method = name.replace(" · ", "\n")
        if i:
            line[0].text(0.5, 0.5, method, ha="center", va="center", fontsize=8, transform=line[0].transAxes)
        else:
            label = f"{wrapped}\n{method}" if wrapped and query is not None else method
            line[0].set_xlabel(label, fontsize=8, parse_math=False)
        for cell, result in zip(line[1:], results, strict=False):
            color = NEUTRAL if result.relevant is None else POSITIVE if result.relevant else NEGATIVE
            mark = {True: " · good", False: " · bad", None: ""}[marks.get(result.id)]
            sign = "" if result.relevant is None else f"{SIGNS[result.relevant]} "
            text = f"{sign}{result.rank} · {result.score:.2f}{mark}\n{_short(result.class_name)}"
            _framed(cell, paths[result.id], color, text)
            _outline_parts(cell, result.boxes)
    return cells[0, 0].figure


def pair_grid(images: ImageSet, pairs: Sequence[Pair], columns: int = 3) -> Figure:
    """Show pairs of duplicates with the search that found them."""
    cells = image_cells(max(1, -(-len(pairs) // columns)), 2 * columns, 12, 1.25)
    for pair, (left, right) in zip(pairs, cells.reshape(-1, 2), strict=False):
        _framed(left, images.paths[pair.first], NEUTRAL, _short(images.class_name(pair.first)))
        _framed(right, images.paths[pair.second], NEUTRAL, f"{_short(images.class_name(pair.second))}\nby {pair.how}")
    return cells[0, 0].figure


def face_grid(
    found: Sequence[tuple[np.ndarray, "Sequence[Face]", "Face | None", np.ndarray | None, str]],
) -> Figure:
    """Show the faces that were found in images, the chosen one with a bold frame, and below it the aligned face.

    found : tuples of (image, faces, chosen face, aligned face, title): the image is uint8 (h, w, 3), the aligned face
        uint8 (150, 150, 3).
    """
    cells = image_cells(2, len(found), 2.4 * len(found), 1.075)
    for upper, lower, (image, faces, chosen, aligned, title) in zip(*cells, found, strict=True):
        upper.imshow(image)
        for face in faces:
            left, top, right, bottom = face.box
            color, line_width = (POSITIVE, 3) if face is chosen else (NEGATIVE, 1.5)
            outline(upper, np.array([left, top, right - left, bottom - top]), color, line_width)
            upper.plot(*face.landmarks.T, "o", color="#E69F00", markersize=3)
        upper.set_title(printable_lines(title), fontsize=9, parse_math=False)
        if aligned is not None:
            lower.imshow(aligned)
    return cells[0, 0].figure


def image_cells(lines: int, columns: int, width: float, ratio: float = 1.3) -> np.ndarray:
    """Axes (lines, columns) of a new figure, without frames; ``ratio`` is a cell's height over its width."""
    figure = Figure(figsize=(width, width / columns * ratio * lines), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False)
    for cell in cells.ravel():
        cell.axis("off")
        # Matplotlib measures even ticks that are not shown, which takes half of the time of a figure.
        cell.set(xticks=[], yticks=[])
    return cells


def _framed(cell: Axes, image: np.ndarray | Path, color: str, title: str) -> None:
    cell.axis("on")
    cell.imshow(image if isinstance(image, np.ndarray) else read_image(image))
    # A file name may be "$5", which is not a formula.
    cell.set_title(printable_lines(title), fontsize=8, color=color, parse_math=False)
    for spine in cell.spines.values():
        spine.set(color=color, linewidth=2)


def outline(cell: Axes, box: np.ndarray, color: str, line_width: float = 2) -> None:
    """Outline a box of an image, given by x, y, width and height in pixels."""
    x, y, width, height = box
    # Pixel centers have whole coordinates, so that an image begins at -0.5.
    cell.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=color, linewidth=line_width))


def _outline_parts(cell: Axes, boxes: Sequence[Sequence[float] | None]) -> None:
    """Outline boxes in fractions of the size of a cell's image, each part in its color."""
    height, width = cell.images[0].get_size()
    for box, color in zip(boxes, itertools.cycle(COLORS), strict=False):
        if box is not None:
            outline(cell, np.multiply(box, [width, height, width, height]), color)


def _wrapped(parts: Sequence[str]) -> list[str]:
    """The lines of some texts, at most `_PART_LINES`."""
    lines = [line for part in parts for line in textwrap.wrap(printable_lines(part), _PART_WIDTH)]
    return lines if len(lines) <= _PART_LINES else [*lines[: _PART_LINES - 1], "…"]


def _short(text: str, limit: int = 18) -> str:
    text = printable_lines(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
