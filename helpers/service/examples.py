"""Examples of the responses in the OpenAPI description. They are made from the models, so they have all fields."""

from pydantic import BaseModel

from helpers.features.explain import METHODS
from helpers.search.rerank.registry import names_for
from helpers.service.errors import ErrorOut
from helpers.service.image_schemas import CopiesOut, CopyOut, DetailsOut, DuplicatesOut, ExplanationOut, SizesOut
from helpers.service.schemas import (
    BatchOut,
    BoxOut,
    ClassOut,
    HealthOut,
    ImageOut,
    ImagesOut,
    InfoOut,
    ItemOut,
    LimitsOut,
    MatchOut,
    RegionOut,
    RegionsOut,
    ResultOut,
    SearchOut,
    VersionOut,
)
from helpers.service.settings import MAX_K

_JPEG = "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ=="


def _image(id: int, key: str, class_name: str | None) -> ImageOut:
    name, thumbnail = key.rpartition("/")[2], f"/v1/images/{id}/thumbnail"
    return ImageOut(id=id, key=key, name=name, class_name=class_name, thumbnail=thumbnail)


_DUNES = _image(3, "beach/dunes.jpg", "beach")
_DUNES_COPY = _image(17, "beach/dunes small.jpg", "beach")
_HARBOR = _image(8, "harbor.jpg", None)
_BOX = BoxOut(x=40, y=60, width=120, height=90)
_MATCH = MatchOut(part=1, box=_BOX, class_name="Boat", score=0.87)

_SEARCH = SearchOut(
    results=[
        ResultOut(**vars(_HARBOR), rank=1, score=0.87, regions=[_MATCH], width=640, height=480),
        ResultOut(
            **vars(_DUNES), rank=2, score=0.62, regions=[MatchOut(part=1, box=None, class_name=None, score=0.62)],
            width=None, height=None,
        ),
    ],
    offset=0, k=2, more=True, note="", regions="detector", vector=None, milliseconds=4.2,
)  # fmt: skip

_COPY = CopyOut(**vars(_DUNES), width=1600, height=1200, bytes=412_345, how=None, correlation=None, keep=True)
_SMALLER_COPY = CopyOut(
    **vars(_DUNES_COPY), width=800, height=600, bytes=98_765, how="hash", correlation=0.998, keep=False
)

#: One for each model of a response.
RESPONSES: tuple[BaseModel, ...] = (
    _SEARCH,
    *_SEARCH.results[:1],
    BatchOut(
        items=[
            ItemOut(search=_SEARCH, error=None),
            ItemOut(
                search=None,
                error=ErrorOut(code="image_not_found", message="There is no image 999 in the index.", details=[]),
            ),
        ],
        milliseconds=8.5,
    ),
    RegionsOut(
        source="detector", stored=True, width=640, height=480,
        regions=[RegionOut(box=_BOX, class_name="Boat", score=0.91)],
    ),
    _DUNES,
    ImagesOut(images=[_DUNES, _HARBOR], total=2, offset=0),
    DetailsOut(
        **vars(_DUNES), width=1600, height=1200, bytes=412_345, format="JPEG", modified="2024-06-02T08:15:00Z",
        taken="2024-05-31T18:04:09", camera="Canon EOS 80D", original="/v1/images/3/original",
    ),
    SizesOut(sizes={3: [1600, 1200], 8: [640, 480]}),
    DuplicatesOut(state="done", groups=[CopiesOut(images=[_COPY, _SMALLER_COPY])]),
    ExplanationOut(similarity=0.87, method="shares", shows=METHODS["shares"], query=_JPEG, result=_JPEG),
    InfoOut(
        name="holidays", images=120, extractor="efficientnet-lite0", index="exact:cosine",
        classes=[ClassOut(name="beach", count=70), ClassOut(name="city", count=40)], no_class=10, text=True,
        regions="detector",
        rerankers=list(names_for("cosine")), max_k=MAX_K, changes="open",
        limits=LimitsOut(body_bytes=20 * 2**20, pixels=50_000_000),
    ),
    HealthOut(),
    VersionOut(version="0.1.0"),
)  # fmt: skip
