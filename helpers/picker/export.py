"""What the query picker exports: its results as a table and as an image."""

import io
from pathlib import Path

from PIL import Image

from helpers.picker.state import NO_CLASS_NAME, Picker
from helpers.text import write_csv
from helpers.visualization import grids

#: The number of results per method whose classes `grid_description` names.
_DESCRIBED = 3


def ranking_csv(picker: Picker, column: int = 0) -> str:
    """The results of a column as CSV: rank, id, score, class, relevant (○, ✗ or empty), key."""
    rows, columns = [], picker.columns
    for result in columns[column].results if column < len(columns) else ():
        sign = "" if result.relevant is None else grids.SIGNS[result.relevant]
        name = "" if result.class_name == NO_CLASS_NAME else result.class_name
        rows.append([result.rank, result.id, repr(result.score), name, sign, result.key])
    text = io.StringIO(newline="")
    write_csv(text, ["rank", "id", "score", "class", "relevant", "key"], rows)
    return text.getvalue()


def grid_png(picker: Picker, dpi: int = 80) -> bytes:
    """The query and its results as an image; the page of thumbnails if there is no query."""
    if picker.step is None:
        figure = grids.image_grid(picker.images, picker.rows, columns=min(8, len(picker.rows)))
    else:
        query = picker.step.query
        name = picker.class_of(query) if query.row is not None else Path(query.name).name
        figure = grids.picker_grid(
            picker.pixels(query, whole=bool(query.boxes)) if query.image else None,
            f"{picker.parts[0].factor if query.image else ''}query\n{name}",
            [(str(column.method), column.results) for column in picker.columns],
            picker.images.paths,
            picker.step.marks,
            [part.label for part in picker.parts[bool(query.image) :]],
            [box.place for box in query.boxes],
        )
    drawn, smaller = io.BytesIO(), io.BytesIO()
    # The whole figure, with labels that are wider than their cells.
    figure.savefig(drawn, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.05)
    Image.open(drawn).convert("RGB").save(smaller, "PNG", optimize=True)
    return smaller.getvalue()


def grid_description(picker: Picker) -> str:
    """What `grid_png` shows, for readers who do not see it: the query, and the first classes of each method."""
    if picker.step is None:
        return (
            f"Query picker: {len(picker.rows)} of the {len(picker.images)} images of {picker.images.name}; no query yet"
        )
    query = picker.step.query
    own, name = query.row is None, picker.class_of(query)
    kind = "your own image" if own else "an image without a class" if name == NO_CLASS_NAME else f"one of {name}"
    parts = [f"Query picker: the query is {kind}"]
    for column in picker.columns:
        classes = ", ".join(result.class_name for result in column.results[:_DESCRIBED])
        parts.append(f"{len(column.results)} results by {column.method}, first: {classes or 'none'}")
    return "; ".join(parts)
