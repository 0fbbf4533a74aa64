"""The parts of a query: its image, further images, and a text, some words of which may be subtracted; their weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from helpers.picker.history import Query
from helpers.search.combined import QueryPart, parse_text

#: The largest number of images and texts in a query.
MAX_PARTS = 20
#: The largest weight of a part; the smallest is its negative.
MAX_WEIGHT = 2.0
SIGNS = {True: "+", False: "−"}


class ShownPart(NamedTuple):
    """A part of a query on the page: an image by its name, or a text; ``row`` is that of an image of the set."""

    name: str
    kind: str
    row: int | None = None
    weight: float = 1.0

    @property
    def sign(self) -> str:
        """A minus sign for a negative weight, otherwise a plus sign."""
        return SIGNS[self.weight >= 0]

    @property
    def factor(self) -> str:
        """The absolute value of the weight as a factor, such as ``0.5 × ``; empty for 1."""
        return "" if abs(self.weight) == 1 else f"{abs(self.weight):g} × "

    @property
    def short_name(self) -> str:
        """An image's file name without its folder; a text in quotation marks."""
        return PurePosixPath(self.name).name if self.kind == "image" else f"“{self.name}”"

    @property
    def label(self) -> str:
        """Sign, weight and short name, such as ``− 0.5 × “people”``."""
        return f"{self.sign} {self.factor}{self.short_name}"


def images_of(query: Query) -> list[int | None]:
    """The rows of a query's images; None for an image that is not one of the set."""
    return [*([query.row] if query.image else []), *query.more]


def weights_of(query: Query) -> tuple[float, ...]:
    """The weights of a query's images, then of its texts."""
    typed = (part.weight for part in parse_text(query.text))
    return query.weights or (*(1.0 for _ in images_of(query)), *typed)


def texts_of(query: Query) -> list[QueryPart]:
    """The texts of a query with their weights, without those of weight 0."""
    weights = weights_of(query)[len(images_of(query)) :]
    texts = zip(weights, parse_text(query.text), strict=True)
    return [QueryPart(weight, text=part.text) for weight, part in texts if weight]


def parts_of(query: Query, keys: Sequence[str]) -> list[ShownPart]:
    """The images of a query, then its texts. keys : of the set."""
    parts = [ShownPart(query.name, "image", query.row)] if query.image else []
    parts += [ShownPart(keys[row], "image", row) for row in query.more]
    parts += [ShownPart(part.text or "", "text") for part in parse_text(query.text)]
    return [part._replace(weight=weight) for part, weight in zip(parts, weights_of(query), strict=True)]


def with_weights(query: Query, weights: Sequence[float]) -> Query:
    """A query with other weights. A single positive part has weight 1, because its weight changes no order."""
    if len(weights) == 1 and weights[0] > 0:
        weights = ()
    # The same weights always have the same form, so that equal queries are equal.
    default = weights_of(replace(query, weights=()))
    return replace(query, weights=() if tuple(weights) == default else tuple(weights))


def with_image(query: Query, row: int, keys: Sequence[str]) -> Query:
    """A query with an image of the set as its last image, with weight 1. keys : of the set."""
    images, weights = len(images_of(query)), weights_of(query)
    if query.image:
        changed = replace(query, more=(*query.more, row), weights=())
    else:
        changed = replace(query, name=keys[row], row=row, weights=())
    return with_weights(changed, [*weights[:images], 1.0, *weights[images:]])


def with_text(query: Query, text: str) -> Query:
    """A query with another text. Images and the texts that it had before keep their weights."""
    images, weights = len(images_of(query)), weights_of(query)
    former: dict[tuple[float, str | None], list[float]] = {}
    for part, weight in zip(parse_text(query.text), weights[images:], strict=True):
        former.setdefault((part.weight, part.text), []).append(weight)
    kept = []
    for part in parse_text(text):
        same = former.get((part.weight, part.text))
        kept.append(same.pop(0) if same else part.weight)
    return with_weights(replace(query, text=text, weights=()), [*weights[:images], *kept])


def without_part(query: Query, number: int, keys: Sequence[str]) -> Query:
    """A query without one of its parts, by its number in `parts_of`. The next image replaces the first one."""
    weights, images = weights_of(query), images_of(query)
    if number >= len(images):
        texts = parse_text(query.text)
        del texts[number - len(images)]
        text = " ".join(f"{'' if part.weight > 0 else '-'}{part.text}" for part in texts)
        changed = replace(query, text=text, weights=())
    elif number:
        changed = replace(query, more=query.more[: number - 1] + query.more[number:], weights=())
    elif query.more:
        changed = Query(keys[query.more[0]], query.more[0], text=query.text, more=query.more[1:])
    else:
        changed = Query(text=query.text)
    return with_weights(changed, weights[:number] + weights[number + 1 :])


def title_of(query: Query, keys: Sequence[str]) -> str:
    """A query as text, such as ``boat.jpg + "at night" − 0.5 × "people"``."""
    parts = [
        (part.sign, part.factor + (part.name if part.kind == "image" else f'"{part.name}"'))
        for part in parts_of(query, keys)
    ]
    # The positive parts first, so that the title starts with one.
    ordered = sorted(parts, key=lambda part: part[0] == SIGNS[False])
    return "".join(f" {sign} {name}" for sign, name in ordered).removeprefix(f" {SIGNS[True]} ")
