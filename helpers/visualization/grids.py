"""Images side by side: a set, the answers to queries, pairs that the audit found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.evaluation.protocol import Protocol
from helpers.images.duplicates import Pair
from helpers.images.imageset import ImageSet
from helpers.images.reading import read_image
from helpers.search.ranking import PAD, Ranking

#: Readable in color and in gray, for people who can't tell red from green too: the sign says the same.
RIGHT, WRONG, NEUTRAL = "#1b7837", "#b2182b", "#555555"
SIGNS = {True: "○", False: "✗"}


def image_grid(
    images: ImageSet, rows: Sequence[int], columns: int = 8, titles: Sequence[str] | None = None, width: float = 12
) -> Figure:
    """Images of a set with their classes below; ``titles`` replaces the classes."""
    rows = list(rows)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(width, width / columns * 1.22 * lines), layout="constrained")
    cells = figure.subplots(lines, columns, squeeze=False).ravel()
    for cell in cells:
        cell.axis("off")
    for i, row in enumerate(rows):
        cells[i].imshow(read_image(images.paths[row]))
        cells[i].set_title(_short(titles[i] if titles else images.class_name(row)), fontsize=9)
    return figure


def result_grid(
    images: ImageSet, protocol: Protocol, ranking: Ranking, asked: Sequence[int], k: int = 10, width: float = 14
) -> Figure:
    """One line a query: the query, then its ``k`` nearest with ○ for a right and ✗ for a wrong answer.

    Parameters
    ----------
    images : the set that `Protocol.bind` returned: row *i* is id *i*.
    ranking : row *j* answers query *j* of the protocol.
    asked : which rows of the ranking to show.
    """
    asked = list(asked)
    figure = Figure(figsize=(width, width / (k + 1) * 1.3 * len(asked)), layout="constrained")
    cells = figure.subplots(len(asked), k + 1, squeeze=False)
    for line, row in zip(cells, asked, strict=True):
        query = int(protocol.queries[row])
        _framed(line[0], images.paths[query], "black", f"query\n{_short(images.class_name(query))}")
        right = set(protocol.relevant(row).tolist())
        for place in range(k):
            result = int(ranking.ids[row, place]) if place < ranking.k else PAD
            if result == PAD:
                line[place + 1].axis("off")
                continue
            hit = result in right
            title = f"{SIGNS[hit]} {place + 1} · {ranking.scores[row, place]:.2f}\n{_short(images.class_name(result))}"
            _framed(line[place + 1], images.paths[result], RIGHT if hit else WRONG, title)
    return figure


def query_grid(query: np.ndarray, results, width: float = 14) -> Figure:
    """A query image, uint8 (h, w, 3), and the answers of `Engine.query`, best first; nobody knows who is right."""
    results = list(results)
    figure = Figure(figsize=(width, width / (len(results) + 1) * 1.3), layout="constrained")
    cells = figure.subplots(1, len(results) + 1, squeeze=False)[0]
    _framed(cells[0], query, "black", "query\n")
    for cell, result in zip(cells[1:], results, strict=True):
        name = _short(result.class_name or result.path.stem)
        _framed(cell, result.path, NEUTRAL, f"{result.rank} · {result.score:.2f}\n{name}")
    return figure


def picked_grid(
    query: np.ndarray,
    title: str,
    found: Sequence[tuple[str, Sequence]],
    paths: Sequence[Path],
    marks: Mapping[int, bool] | None = None,
    columns: int = 10,
    width: float = 14,
) -> Figure:
    """One image's answers by one method or several: the query, then lines of answers with ○, ✗ or no sign.

    Parameters
    ----------
    query : uint8 (height, width, 3). title : what stands above it.
    found : method in words and its answers, best first: anything with ``rank``, ``id``, ``score``, ``class_name`` and
        ``verdict`` (True, False, or None where nobody knows).
    paths : the gallery's files; an answer's id is its row.
    marks : id → whether a person called it good; such answers say so.
    columns : answers in a line.
    """
    lines = [(name, results[start : start + columns]) for name, results in found for start in _starts(results, columns)]
    across = max([len(results) for _, results in lines], default=0) + 1
    figure = Figure(figsize=(width, width / max(across, 5) * 1.35 * max(1, len(lines))), layout="constrained")
    cells = figure.subplots(max(1, len(lines)), max(across, 5), squeeze=False)
    for cell in cells.ravel():
        cell.axis("off")
    _framed(cells[0][0], query, "black", "\n".join(map(_short, title.split("\n"))))
    shown = None
    for place, (line, (name, results)) in enumerate(zip(cells, lines, strict=False)):
        if name != shown:
            # Above the line, or below the query that stands there.
            line[0].text(0.5, 0.5 if place else -0.08, _folded(name), ha="center", va="center" if place else "top",
                         fontsize=8, transform=line[0].transAxes)  # fmt: skip
            shown = name
        for cell, result in zip(line[1:], results, strict=False):
            color = NEUTRAL if result.verdict is None else RIGHT if result.verdict else WRONG
            mark = {True: " · good", False: " · bad", None: ""}[(marks or {}).get(result.id)]
            sign = f"{SIGNS[result.verdict]} " if result.verdict in SIGNS else ""
            text = f"{sign}{result.rank} · {result.score:.2f}{mark}\n{_short(result.class_name)}"
            _framed(cell, paths[result.id], color, text)
    return figure


def _starts(results: Sequence, columns: int) -> range:
    return range(0, max(1, len(results)), columns)


def _folded(name: str) -> str:
    return name.replace(" · ", "\n")


def query_grids(asked: Sequence[tuple[np.ndarray, Sequence]], columns: int = 10, size: float = 1.3) -> Figure:
    """Several queries and their answers, as in `query_grid`, one below the other.

    asked : tuples of (image, answers): uint8 (h, w, 3), the answers of `Engine.query`.
    columns : answers side by side; more go on in the next line.
    size : inches that each image has.
    """
    asked = [(query, list(results)) for query, results in asked]
    columns = min(columns, max([1, *(len(results) for _, results in asked)]))
    lines = [max(1, -(-len(results) // columns)) for _, results in asked]
    figure = Figure(figsize=(size * (columns + 1), 1.3 * size * sum(lines)), layout="constrained")
    cells = figure.subplots(sum(lines), columns + 1, squeeze=False)
    for cell in cells.ravel():
        cell.axis("off")
    line = 0
    for (query, results), count in zip(asked, lines, strict=True):
        _framed(cells[line, 0], query, "black", "query\n")
        for place, result in enumerate(results):
            name = _short(" ".join((result.class_name if result.label >= 0 else result.path.stem).split()))
            cell = cells[line + place // columns, 1 + place % columns]
            _framed(cell, result.path, NEUTRAL, f"{result.rank} · {result.score:.2f}\n{name}")
        line += count
    return figure


def pair_grid(images: ImageSet, pairs: Sequence[Pair], columns: int = 3, width: float = 12) -> Figure:
    """Pairs of images that the audit found to be one, with the search that found them."""
    pairs = list(pairs)
    lines = max(1, -(-len(pairs) // columns))
    figure = Figure(figsize=(width, width / columns / 1.6 * lines), layout="constrained")
    cells = figure.subplots(lines, columns * 2, squeeze=False).reshape(-1, 2)
    for pair, (left, right) in zip(pairs, cells, strict=False):
        _framed(left, images.paths[pair.first], NEUTRAL, f"{_short(images.class_name(pair.first))}")
        _framed(right, images.paths[pair.second], NEUTRAL, f"{_short(images.class_name(pair.second))}\nby {pair.how}")
    for left, right in cells[len(pairs) :]:
        left.axis("off")
        right.axis("off")
    return figure


def face_grid(found: Sequence[tuple], size: float = 2.4) -> Figure:
    """Images with the faces that were found in them, the chosen one bold; below each, that face as it was aligned.

    found : tuples of (image, faces, chosen, aligned, title): uint8 (h, w, 3), `Face`s, one of them or None, uint8
    (150, 150, 3) or None.
    """
    figure = Figure(figsize=(size * len(found), 2.15 * size), layout="constrained")
    cells = figure.subplots(2, len(found), squeeze=False)
    for upper, lower, (image, faces, chosen, aligned, title) in zip(*cells, found, strict=True):
        upper.imshow(image)
        for face in faces:
            left, top, right, bottom = face.box
            upper.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=RIGHT if face is chosen else WRONG,
                    linewidth=3 if face is chosen else 1.5,
                )
            )  # fmt: skip
            upper.plot(*face.landmarks.T, "o", color="#E69F00", markersize=3)
        upper.set_title(title, fontsize=9)
        upper.axis("off")
        lower.axis("off")
        if aligned is not None:
            lower.imshow(aligned)
    return figure


def _framed(cell, image, color: str, title: str) -> None:
    cell.axis("on")
    cell.imshow(image if isinstance(image, np.ndarray) else read_image(image))
    # A file may be called "$5", which is no formula, or by bytes that are no text.
    drawable = title.encode(errors="replace").decode()
    cell.set_title(drawable, fontsize=8, color=color, parse_math=False)
    cell.set_xticks([])
    cell.set_yticks([])
    for spine in cell.spines.values():
        spine.set_color(color)
        spine.set_linewidth(2)


def _short(text: str, limit: int = 18) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
