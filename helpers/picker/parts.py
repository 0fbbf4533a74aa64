"""The parts of a query: its image, further images, and a text, some words of which may be subtracted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from helpers.picker.history import Query
from helpers.search.combined import QueryPart, parse_text

#: The largest number of images and texts in a query.
MAX_PARTS = 20
SIGNS = {True: "+", False: "−"}


class ShownPart(NamedTuple):
    """A part of a query on the page: an image by its name, or a text; ``row`` is that of an image of the set."""

    sign: str
    name: str
    kind: str
    row: int | None = None

    @property
    def short_name(self) -> str:
        """An image's file name without its folder; a text in quotation marks."""
        return PurePosixPath(self.name).name if self.kind == "image" else f"“{self.name}”"


def images_of(query: Query) -> list[int | None]:
    """The rows of a query's images; None for an image that is not one of the set."""
    return [*([query.row] if query.image else []), *query.more]


def texts_of(query: Query) -> list[QueryPart]:
    """The texts of a query, with weights 1 and -1."""
    return parse_text(query.text)


def parts_of(query: Query, keys: Sequence[str]) -> list[ShownPart]:
    """The images of a query, then its texts. keys : of the set."""
    images = [ShownPart(SIGNS[True], query.name, "image", query.row)] if query.image else []
    images += [ShownPart(SIGNS[True], keys[row], "image", row) for row in query.more]
    return images + [ShownPart(SIGNS[part.weight > 0], part.text or "", "text") for part in texts_of(query)]


def without_part(query: Query, number: int, keys: Sequence[str]) -> Query:
    """A query without one of its parts, by its number in `parts_of`. The next image replaces the first one."""
    images, texts = len(images_of(query)), texts_of(query)
    if number >= images:
        kept = texts[: number - images] + texts[number - images + 1 :]
        return replace(query, text=" ".join(f"{'' if part.weight > 0 else '-'}{part.text}" for part in kept))
    if number >= bool(query.image):
        at = number - bool(query.image)
        return replace(query, more=query.more[:at] + query.more[at + 1 :])
    if query.more:
        first, *more = query.more
        return Query(keys[first], first, text=query.text, more=tuple(more))
    return Query(text=query.text)


def title_of(query: Query, keys: Sequence[str]) -> str:
    """A query as text, such as ``boat.jpg + "at night" − "people"``."""
    parts = [(part.sign, part.name if part.kind == "image" else f'"{part.name}"') for part in parts_of(query, keys)]
    # The positive parts first, so that the title starts with one.
    ordered = sorted(parts, key=lambda part: part[0] == SIGNS[False])
    return "".join(f" {sign} {name}" for sign, name in ordered).removeprefix(f" {SIGNS[True]} ")
