"""Schemas: what goes in and out as JSON, as it stands in the description of the interface."""

import base64
import binascii
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from helpers.search.rerank.registry import NAMES
from helpers.service.errors import ApiError
from helpers.service.gallery_search import Entry, Page
from helpers.service.settings import MAX_DEPTH, MAX_K
from helpers.service.uploads import Crop

#: SQLite and NumPy count up to here.
Id = Annotated[int, Field(ge=0, le=2**63 - 1)]
K = Annotated[int, Field(ge=1, le=MAX_K, description="how many answers")]
Offset = Annotated[int, Field(ge=0, le=MAX_DEPTH, description="how many of the best answers to pass over")]
ClassName = Annotated[str, Field(min_length=1, max_length=200, description="answers of this class only")]
RerankerName = Annotated[Literal[NAMES], Field(description="how the best results are put into another order")]
NewClassName = Annotated[
    str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", description="the image's class")
]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Part = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

#: Rounding of a fraction that was made of pixels.
_ROUNDING = 1e-4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CropIn(_Strict):
    """A part of the image, in fractions of its width and height when it stands upright."""

    left: Fraction
    top: Fraction
    width: Part
    height: Part

    @model_validator(mode="after")
    def inside(self) -> Self:
        if self.left + self.width > 1 + _ROUNDING or self.top + self.height > 1 + _ROUNDING:
            raise ValueError("the crop leads out of the image")
        return self

    def crop(self) -> Crop:
        return Crop(self.left, self.top, self.width, self.height)


class VectorQuery(_Strict):
    """Search on by what an earlier search was made with."""

    vector: str = Field(min_length=4, max_length=2**20, description="as an earlier answer gave it: base64 of float32")
    k: K = 20
    offset: Offset = 0
    class_name: ClassName | None = None
    rerank: RerankerName = "none"


class ImageOut(BaseModel):
    """An image of the gallery."""

    id: int
    key: str = Field(description="its name in the gallery; no path of this computer")
    class_name: str | None = Field(description="null: it has none")
    thumbnail: str = Field(description="where a small JPEG of it is")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        return cls(
            id=entry.id,
            key=_sayable(entry.key),
            class_name=entry.class_name,
            thumbnail=f"/api/images/{entry.id}/thumbnail",
        )


class ResultOut(ImageOut):
    """One answer to a search."""

    rank: int = Field(description="1 is best")
    score: float = Field(description="higher is better; what it measures is the index's metric")


class SearchOut(BaseModel):
    """The answers to a search, best first."""

    results: list[ResultOut]
    offset: int
    k: int
    more: bool = Field(description="whether a larger offset gives more")
    note: str = Field(description="why there are fewer answers than were asked for; else empty")
    vector: str = Field(description="what was searched by: base64 of little-endian float32")
    milliseconds: float = Field(description="from the request to the answer, within the service")

    @classmethod
    def of(cls, page: Page, vector: np.ndarray, k: int, offset: int, seconds: float) -> Self:
        results = [
            ResultOut(rank=hit.rank, score=hit.score, **ImageOut.of(hit.entry).model_dump()) for hit in page.hits
        ]
        return cls(
            results=results, offset=offset, k=k, more=page.more, note=page.note, vector=to_text(vector),
            milliseconds=round(1000 * seconds, 3),
        )  # fmt: skip


class ImagesOut(BaseModel):
    """Some images of the gallery, in its order."""

    images: list[ImageOut]
    total: int
    offset: int


class ClassOut(BaseModel):
    """A class of the gallery."""

    name: str
    count: int


class LimitsOut(BaseModel):
    """What is taken."""

    body_bytes: int
    pixels: int


class InfoOut(BaseModel):
    """What is searched, and what may be done."""

    name: str
    images: int = Field(description="how many a search can find")
    extractor: str
    index: str
    classes: list[ClassOut]
    max_k: int
    changes: Literal["open", "key", "off"] = Field(
        description="who may add and remove images: everybody, those who have the key, or nobody"
    )
    limits: LimitsOut


class HealthOut(BaseModel):
    """That it is there."""

    status: Literal["ok"] = "ok"


def to_text(vector: np.ndarray) -> str:
    """float32 (dim,) as base64 of its little-endian bytes."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


def from_text(text: str) -> np.ndarray:
    """The reverse of `to_text`.

    Raises
    ------
    Refused : 422, it is not what `to_text` writes.
    """
    try:
        content = base64.b64decode(text, validate=True)
        vector = np.frombuffer(content, "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ApiError(422, "The vector is not base64 of float32 numbers, as an answer's vector is.") from error
    if not np.isfinite(vector).all():
        raise ApiError(422, "The vector holds what is no number.")
    return vector


def _sayable(key: str) -> str:
    """File names need not be Unicode; JSON has to be."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
