"""Parameters and JSON bodies of the HTTP interface."""

import base64
import binascii
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from helpers.search.rerank.registry import NAMES, reranker
from helpers.service.errors import ApiError
from helpers.service.gallery_search import Entry, Page, PartOptions, SearchOptions
from helpers.service.settings import MAX_DEPTH, MAX_K
from helpers.text import printable

#: The largest integer of SQLite and NumPy.
Id = Annotated[int, Field(ge=0, le=2**63 - 1)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="Number of results.")]
Offset = Annotated[int, Field(ge=0, le=MAX_DEPTH, description="Number of better results to skip.")]
#: A text of a response. File names and classes need not be valid Unicode, but JSON must be.
Text = Annotated[str, BeforeValidator(printable)]
#: A folder's name has up to 255 bytes, and `Text` up to four characters for each of them.
ClassName = Annotated[str, Field(min_length=1, max_length=4 * 255, description="Only images of this class.")]
RerankerName = Annotated[
    str,
    AfterValidator(lambda name: reranker(name).name),
    Field(description="Re-ranking of the best results.", json_schema_extra={"enum": list(NAMES)}),
]
NewClassName = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", description="Class of the image.")
]
#: Position and extent of a crop.
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


#: A vector of an earlier response.
EncodedVector = Annotated[
    str,
    Field(
        min_length=4,
        max_length=2**20,
        description="The vector of an earlier response: base64 of little-endian float32.",
    ),
]


class VectorQuery(BaseModel):
    """A search with the vector of an earlier search."""

    model_config = ConfigDict(extra="forbid")

    vector: EncodedVector
    k: K = 20
    offset: Offset = 0
    class_name: ClassName | None = None
    rerank: RerankerName = "none"

    @property
    def options(self) -> SearchOptions:
        return SearchOptions(self.k, self.offset, self.class_name, self.rerank)


class QueryPartIn(BaseModel):
    """One part of a combined query: exactly one of text, id and vector."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(default=None, min_length=1, max_length=1000, description="What the images show.")
    id: Id | None = Field(default=None, description="Id of an image of the gallery.")
    vector: EncodedVector | None = None
    weight: float = Field(
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

    @property
    def options(self) -> PartOptions:
        vector = None if self.vector is None else from_text(self.vector)
        return PartOptions(self.weight, self.text, self.id, vector)


class CombinedQuery(BaseModel):
    """A search with several parts, such as an image and a text."""

    model_config = ConfigDict(extra="forbid")

    parts: list[QueryPartIn] = Field(min_length=1, max_length=20)
    k: K = 20
    offset: Offset = 0
    class_name: ClassName | None = None

    @property
    def options(self) -> SearchOptions:
        return SearchOptions(self.k, self.offset, self.class_name)


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

    @classmethod
    def of(cls, entry: Entry, root_path: str) -> Self:
        thumbnail = f"{root_path}/api/images/{entry.id}/thumbnail"
        return cls(id=entry.id, key=entry.key, name=entry.name, class_name=entry.class_name, thumbnail=thumbnail)


class ResultOut(ImageOut):
    """One result of a search."""

    rank: int = Field(description="1 is the best.")
    score: float = Field(description="Higher is better. The index's metric determines the scale.")


class SearchOut(BaseModel):
    """The results of a search, best first."""

    results: list[ResultOut]
    offset: int
    k: int
    more: bool = Field(description="Whether a larger offset gives more results.")
    note: Text = Field(description="Why there are fewer results than requested; otherwise empty.")
    vector: str | None = Field(
        description="Feature vector of the query: base64 of little-endian float32. null for a combined query."
    )
    milliseconds: float = Field(description="Time within the service.")

    @classmethod
    def of(cls, page: Page, vector: np.ndarray | None, options: SearchOptions, seconds: float, root_path: str) -> Self:
        results = [
            ResultOut(rank=hit.rank, score=hit.score, **ImageOut.of(hit.entry, root_path).model_dump())
            for hit in page.hits
        ]
        return cls(
            results=results, offset=options.offset, k=options.k, more=page.more, note=page.note,
            vector=None if vector is None else to_text(vector), milliseconds=round(1000 * seconds, 3),
        )  # fmt: skip


class ImagesOut(BaseModel):
    """Some images of the gallery, in its order."""

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


class InfoOut(BaseModel):
    """The gallery, its engine and the limits of the service."""

    name: Text
    images: int = Field(description="Number of images in the index.")
    extractor: Text
    index: Text
    classes: list[ClassOut]
    text: bool = Field(description="Whether parts of a combined query may be texts.")
    max_k: int
    changes: Literal["open", "key", "off"] = Field(
        description="Who may add and remove images: every client (open), clients with the key, or no one (off)."
    )
    limits: LimitsOut


class HealthOut(BaseModel):
    """The service works."""

    status: Literal["ok"] = "ok"


def to_text(vector: np.ndarray) -> str:
    """float32 (dim,) as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


def from_text(text: str) -> np.ndarray:
    """The reverse of `to_text`.

    Raises
    ------
    ApiError : 422, the text is not base64 of finite float32 numbers.
    """
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ApiError(422, "The vector must be base64 of float32 numbers, as in the response to a search.") from error
    if not np.isfinite(vector).all():
        raise ApiError(422, "The vector contains NaN or infinity.")
    return vector
