"""JSON bodies of the routes for single images, duplicates and explanations."""

import base64
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from helpers.features.explain import METHODS, Explanation
from helpers.images import thumbnails
from helpers.images.file_details import FileDetails
from helpers.service.schemas import ImageOut, NewClassName, Text
from helpers.visualization.heatmaps import overlay

#: Longest side in pixels of the images of an explanation.
_SIDE = 640


class ClassChange(BaseModel):
    """The new class of an image."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"class_name": "beach"}]})

    class_name: NewClassName | None = Field(description="null for no class.")


class DetailsOut(ImageOut):
    """An image of the gallery, and what its file says about it."""

    width: int = Field(description="Width of the upright image, in pixels.")
    height: int = Field(description="Height of the upright image, in pixels.")
    bytes: int = Field(description="Size of the file, in bytes.")
    format: str = Field(description="Format of the file, such as JPEG.")
    modified: str = Field(description="When the file was modified, in UTC.")
    taken: str | None = Field(description="When the image was taken, in the time of the camera; null if unknown.")
    camera: Text | None = Field(description="Maker and model; null if unknown.")
    original: str = Field(description="URL of the file itself.")


class SizesOut(BaseModel):
    """Sizes of images, by their ids."""

    sizes: dict[int, Annotated[list[int], Field(min_length=2, max_length=2)]] = Field(
        description="Width and height of the upright image in pixels. Images that cannot be read are left out."
    )


class CopyOut(ImageOut):
    """One of the copies of an image."""

    width: int | None = Field(description="Width of the upright image, in pixels; null if its file cannot be read.")
    height: int | None = Field(description="Height of the upright image, in pixels; null if its file cannot be read.")
    bytes: int | None = Field(description="Size of the file, in bytes; null if it cannot be read.")
    how: str | None = Field(
        description="What found it: bytes (equal files), hash (a similar image), mirror or crop; null for the image "
        "that represents the group."
    )
    correlation: float | None = Field(
        description="Correlation of its pixels with those of the image that it was compared with."
    )
    keep: bool = Field(
        description="Whether it is the best copy: the one with the most pixels; of these the largest file, then "
        "the oldest one, then the one with the shortest path."
    )

    @classmethod
    def of(
        cls, image: ImageOut, details: FileDetails | None, how: str | None, correlation: float | None, keep: bool
    ) -> Self:
        """From an image, the details of its file if that can be read, and the other values."""
        width, height, size = (details.width, details.height, details.bytes) if details else (None, None, None)
        return cls(**vars(image), width=width, height=height, bytes=size, how=how, correlation=correlation, keep=keep)


class CopiesOut(BaseModel):
    """The copies of one image."""

    images: list[CopyOut]


class DuplicatesOut(BaseModel):
    """The near-duplicates of the gallery."""

    state: Literal["running", "done"] = Field(description="Ask again in a second while it is running.")
    groups: list[CopiesOut] = Field(description="The copies of each image, largest groups first. Empty while running.")


class ExplanationOut(BaseModel):
    """What makes an image similar to a query: maps over both images, on one scale, each as a JPEG in a data URL."""

    similarity: float = Field(description="Similarity of the query and the whole image.")
    method: str
    shows: str = Field(description="What the maps show.")
    query: str = Field(description="The map over the query.")
    result: str = Field(description="The map over the image of the gallery.")

    @classmethod
    def of(cls, why: Explanation, images: Sequence[np.ndarray]) -> Self:
        """From an explanation, the query and the result: uint8 (height, width, 3)."""
        maps = (why.query_map, why.result_map)
        # One scale for both maps, so that they can be compared.
        highest = max(float(each.max()) for each in maps)
        overlays = [overlay(image, each, highest) for image, each in zip(images, maps, strict=True)]
        jpegs = [base64.b64encode(thumbnails.encode(each, _SIDE)).decode("ascii") for each in overlays]
        query, result = (f"data:image/jpeg;base64,{jpeg}" for jpeg in jpegs)
        return cls(similarity=why.similarity, method=why.method, shows=METHODS[why.method], query=query, result=result)
