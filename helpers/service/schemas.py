"""Parameters and JSON bodies of the HTTP interface."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from helpers.features.regions import SOURCES, Regions
from helpers.search.region_search import RegionMatch
from helpers.search.rerank.registry import NAMES, reranker
from helpers.service.errors import ApiError, ErrorOut, error_out
from helpers.service.listing import Sort
from helpers.service.settings import MAX_DEPTH, MAX_K
from helpers.text import printable


def known_source(name: str) -> str:
    """A name of `SOURCES`. Raises ValueError: there is no such source."""
    if name not in SOURCES:
        raise ValueError(f"no source of regions is called {name!r}; known: {', '.join(SOURCES)}")
    return name


#: The largest integer of SQLite and NumPy.
Id = Annotated[int, Field(ge=0, le=2**63 - 1, examples=[3])]
K = Annotated[int, Field(ge=1, le=MAX_K, description="Number of results.", examples=[20])]
Offset = Annotated[int, Field(ge=0, le=MAX_DEPTH, description="Number of better results to skip.", examples=[20])]
Threshold = Annotated[
    float,
    Field(
        allow_inf_nan=False,
        description="Only results with at least this score; see `score` of the results.",
        examples=[0.5],
    ),
]
#: Ids of one request.
MAX_EXCLUDED = 1000
Excluded = Annotated[
    list[Id],
    Field(
        max_length=MAX_EXCLUDED,
        description="Ids of images to leave out of the results. Unknown ids are ignored.",
        examples=[[3, 8]],
    ),
]
#: A text of a response. File names and classes need not be valid Unicode, but JSON must be.
Text = Annotated[str, BeforeValidator(printable)]
#: A folder's name has up to 255 bytes, and `Text` up to four characters for each of them.
ClassName = Annotated[
    str, Field(min_length=1, max_length=4 * 255, description="Only images of this class.", examples=["beach"])
]
NoClass = Annotated[bool, Field(description="Only images without a class. Cannot be combined with class_name.")]
RerankerName = Annotated[
    str,
    AfterValidator(lambda name: reranker(name).name),
    Field(
        description="Re-ranking of the best results.", json_schema_extra={"enum": list(NAMES)}, examples=["expansion"]
    ),
]
#: Sources of regions: objects that a detector finds, fixed boxes, or proposals without classes.
RegionSourceName = Annotated[
    str,
    AfterValidator(known_source),
    Field(description="Source of regions.", json_schema_extra={"enum": list(SOURCES)}, examples=["grid"]),
]
NewClassName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+$",
        description="Class of the image.",
        examples=["beach"],
    ),
]
SortName = Annotated[
    Sort,
    Field(
        description="Order of the list; with a hyphen, the reverse order. date and size are those of the files.",
        examples=["-date"],
    ),
]
#: Marked images move the query, as in J. J. Rocchio's relevance feedback.
Marks = Annotated[list[Id], Field(max_length=100, examples=[[3, 8]])]
GOOD_MARKS = (
    "Ids of good results: the query is moved towards their mean. Send all marks with each request, and the query as it "
    "was without marks."
)
BAD_MARKS = "Ids of bad results: the query is moved away from their mean."
#: Parts of a query, and queries of a batch.
MAX_PARTS, MAX_QUERIES = 8, 100
#: Position and extent of a crop.
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, examples=[0.25])]
Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, examples=[0.5])]


BoxText = Annotated[str, Field(max_length=200, examples=["40,60,120,90"])]

#: A vector of an earlier response.
EncodedVector = Annotated[
    str,
    Field(
        min_length=4,
        max_length=2**20,
        description="The vector of an earlier response: base64 of little-endian float32.",
    ),
]


@dataclass(frozen=True)
class SearchOptions:
    """Which results of a query are returned, and in what order; the parameters of requests have the same names.

    Raises ApiError: 422, both class_name and no_class are given.
    """

    k: int
    offset: int = 0
    class_name: str | None = None
    no_class: bool = False
    rerank: str = "none"
    good: Sequence[int] = ()
    bad: Sequence[int] = ()
    threshold: float | None = None
    exclude: Sequence[int] = ()
    vectors: bool = False

    def __post_init__(self):
        if self.class_name is not None and self.no_class:
            raise ApiError(422, "class_name and no_class exclude each other. Give one of them.")


class _Query(BaseModel):
    """What the bodies of all searches contain: which results the response has."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[K, Strict()] = 20
    offset: Annotated[Offset, Strict()] = 0
    class_name: ClassName | None = None
    no_class: Annotated[NoClass, Strict()] = False
    good: Marks = Field(default=[], description=GOOD_MARKS)
    bad: Marks = Field(default=[], description=BAD_MARKS)
    threshold: Annotated[Threshold, Strict()] | None = None
    exclude: Excluded = []

    @property
    def options(self) -> SearchOptions:
        names = {field.name for field in fields(SearchOptions)}
        return SearchOptions(**{name: value for name, value in self if name in names})


class _RerankedQuery(_Query):
    rerank: RerankerName = "none"


class VectorQuery(_RerankedQuery):
    """A search with the vector of an earlier search."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"vector": "AACAPwAAAAAAAAA/", "k": 20, "offset": 20}]})

    vector: EncodedVector | Annotated[list[EncodedVector], Field(min_length=1, max_length=MAX_PARTS)]

    @property
    def vectors(self) -> np.ndarray:
        """float32 (p, dim). Raises ApiError: 422, the vectors have different lengths, or see `from_text`."""
        vectors = [from_text(text) for text in ([self.vector] if isinstance(self.vector, str) else self.vector)]
        if len({len(vector) for vector in vectors}) > 1:
            raise ApiError(422, "The vectors of a query must have the same length.")
        return np.stack(vectors)


class QueryPartIn(BaseModel):
    """One part of a combined query: exactly one of text, id and vector."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(default=None, min_length=1, max_length=1000, description="What the images show.")
    id: Annotated[Id, Strict()] | None = Field(default=None, description="Id of an image of the gallery.")
    vector: EncodedVector | None = None
    weight: Annotated[float, Strict()] = Field(
        default=1, ge=-100, le=100, allow_inf_nan=False,
        description="Share of the score; negative for what the results must not resemble. Not 0.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(value is not None for value in (self.text, self.id, self.vector)) != 1:
            raise ValueError("a part needs exactly one of text, id and vector")
        if self.weight == 0:
            raise ValueError("the weight must not be 0")
        return self


class CombinedQuery(_Query):
    """A search with several parts, such as an image and a text."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"parts": [{"id": 3}, {"id": 8, "weight": -0.5}], "k": 20}]}
    )

    parts: list[QueryPartIn] = Field(min_length=1, max_length=20)


class OneQuery(BaseModel):
    """One query of a batch: exactly one of id and vector."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[Id, Strict()] | None = Field(default=None, description="Id of an image of the gallery.")
    vector: EncodedVector | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.id is None) == (self.vector is None):
            raise ValueError("a query needs exactly one of id and vector")
        return self


class BatchQuery(_RerankedQuery):
    """Several searches with the same settings."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": [{"id": 3}, {"id": 8}], "k": 20}]})

    queries: list[OneQuery] = Field(min_length=1, max_length=MAX_QUERIES)
    vectors: bool = Field(default=False, description="Return the vectors of the queries.")


class ImageOut(BaseModel):
    """An image of the gallery."""

    id: int
    key: Text = Field(
        description="Path relative to the folder that was indexed or added. Control characters, and bytes that are not "
        "UTF-8, are escaped."
    )
    name: Text = Field(description="Name of the file; of an upload, the name that the client gave.")
    class_name: Text | None = Field(description="null if the image has no class.")
    thumbnail: str = Field(description="URL of a small JPEG.")


class BoxOut(BaseModel):
    """A part of an upright image, in pixels."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, box: np.ndarray) -> Self:
        """From x, y, width, height. The edges are rounded, so that the box stays in the image."""
        x, y, right, bottom = (round(float(edge), 1) for edge in (*box[:2], box[0] + box[2], box[1] + box[3]))
        return cls(x=x, y=y, width=round(right - x, 1), height=round(bottom - y, 1))


class RegionOut(BaseModel):
    """A part of an image."""

    box: BoxOut
    class_name: Text | None = Field(description="The class that the detector found; null if there is none.")
    score: float = Field(description="The score of the detector; 1 for other sources.")


class RegionsOut(BaseModel):
    """The parts of an image that can be searched, best first."""

    source: RegionSourceName
    stored: bool = Field(description="Whether the parts come from the index; otherwise they were computed.")
    width: int = Field(description="Width of the upright image, in pixels.")
    height: int = Field(description="Height of the upright image, in pixels.")
    regions: list[RegionOut]

    @classmethod
    def of(cls, regions: Regions, source: str, size: tuple[int, int], stored: bool) -> Self:
        found = [
            RegionOut(box=BoxOut.of(box), class_name=name, score=round(float(score), 4))
            for box, name, score in zip(regions.boxes, regions.class_names, regions.scores, strict=True)
        ]
        return cls(source=source, stored=stored, width=size[0], height=size[1], regions=found)


class MatchOut(BaseModel):
    """The part of a result that matches a part of the query."""

    part: int = Field(description="Number of the query's part; 1 is the first.")
    box: BoxOut | None = Field(description="null if the whole image matches best.")
    class_name: Text | None = Field(description="The class that the detector found; null if there is none.")
    score: float = Field(description="The cosine of the two parts.")

    @classmethod
    def of(cls, part: int, match: RegionMatch) -> Self:
        box = None if match.box is None else BoxOut.of(match.box)
        return cls(part=part, box=box, class_name=match.class_name, score=match.score)


class ResultOut(ImageOut):
    """One result of a search."""

    rank: int = Field(description="1 is the best.")
    score: float = Field(description="Higher is better. The index's metric determines the scale.")
    regions: list[MatchOut] = Field(
        description="The matched part for each part of the query. Empty if whole images were searched."
    )
    width: int | None = Field(
        description="Width of the upright image, in pixels, if a matched part has a box; otherwise null."
    )
    height: int | None = Field(
        description="Height of the upright image, in pixels, if a matched part has a box; otherwise null."
    )


class SearchOut(BaseModel):
    """The results of a search, best first."""

    results: list[ResultOut]
    offset: int
    k: int
    more: bool = Field(description="Whether a larger offset gives more results.")
    note: Text = Field(description="Why there are fewer results than requested; otherwise empty.")
    regions: RegionSourceName | None = Field(
        description="Source of the regions that were searched; null if only whole images were searched."
    )
    vector: str | list[str] | None = Field(
        description="Feature vector of the query, if the request has `vectors=true`: base64 of little-endian "
        "float32. If the query has several parts, a list with the vector of each. Otherwise null."
    )
    milliseconds: float = Field(description="Time within the service.")


class ItemOut(BaseModel):
    """The results of one query of a batch, or its error."""

    search: SearchOut | None = Field(description="null if the query failed.")
    error: ErrorOut | None = Field(description="null if the query succeeded.")


class BatchOut(BaseModel):
    """One item for each query of a batch, in the same order."""

    items: list[ItemOut]
    milliseconds: float = Field(description="Time within the service.")

    @classmethod
    def of(cls, outcomes: Sequence[SearchOut | ApiError]) -> Self:
        """One item for each outcome, and no time yet. Raises ApiError: all searches failed with this code."""
        errors = [each for each in outcomes if isinstance(each, ApiError)]
        if len(errors) == len(outcomes) and len({error.code for error in errors}) == 1:
            raise errors[0]
        items = [
            ItemOut(search=None, error=error_out(each))
            if isinstance(each, ApiError)
            else ItemOut(search=each, error=None)
            for each in outcomes
        ]
        return cls(items=items, milliseconds=0)


class ImagesOut(BaseModel):
    """Some images of the gallery, in the requested order."""

    images: list[ImageOut]
    total: int
    offset: int


class ClassOut(BaseModel):
    """A class of the gallery."""

    name: Text
    count: int


class LimitsOut(BaseModel):
    """Limits of uploads."""

    body_bytes: int
    pixels: int


class GalleryOut(BaseModel):
    """The gallery and its engine."""

    name: Text
    images: int = Field(description="Number of images in the index.")
    extractor: Text
    index: Text
    classes: list[ClassOut]
    no_class: int = Field(description="Number of images without a class.")
    text: bool = Field(description="Whether parts of a combined query may be texts.")
    regions: RegionSourceName | None = Field(
        description="Source of the regions that searches compare; null if they compare whole images only."
    )
    rerankers: list[str] = Field(description="Names of the re-rankers that work with the index.")


class InfoOut(GalleryOut):
    """The gallery, its engine and the limits of the service."""

    max_k: int
    changes: Literal["open", "key", "off"] = Field(
        description="Who may add and remove images: every client on this computer (open), clients with the key (key), "
        "or no one (off)."
    )
    limits: LimitsOut


class HealthOut(BaseModel):
    """The service works."""

    status: Literal["ok"] = "ok"


class VersionOut(BaseModel):
    """The version of the program, and of the interface."""

    version: str = Field(description="Version of lookalike, as `lookalike --version` prints it.")
    api: Literal["v1"] = Field(default="v1", description="The beginning of the paths of the interface.")


def box_numbers(text: str) -> tuple[float, ...]:
    """The numbers of a text such as ``10,20,30,40``, of any count. Raises ApiError: 422, a part is not a number."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise ApiError(422, f"The box {text!r} must be four numbers: x,y,width,height in pixels.") from error


def to_text(vector: np.ndarray) -> str:
    """float32 (dim,) as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


def from_text(text: str) -> np.ndarray:
    """The reverse of `to_text`. Raises ApiError: 422, the text is not base64 of finite float32 numbers."""
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ApiError(422, "The vector must be base64 of float32 numbers, as in the response to a search.") from error
    if not np.isfinite(vector).all():
        raise ApiError(422, "The vector contains NaN or infinity.")
    return vector
