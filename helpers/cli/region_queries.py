"""Queries of parts of images, for `lookalike search`."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable
from helpers.cli.query import Found, Matches, Search

if TYPE_CHECKING:
    import numpy as np

    from helpers.networks.detectors import Detections, Detector
    from helpers.search.engine import Engine
    from helpers.search.region_search import GalleryRegions

#: Minimum score of the objects that --detect lists: low, because a person chooses among them.
LISTED_SCORE = 0.2


def add_region_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --box, --object, --detect, --whole, --detector and --labels."""
    text = "search by this part of the image, in pixels; can be repeated: results must show all parts"
    parser.add_argument("--box", type=_numbers, metavar="X,Y,W,H", action="append", default=[], help=text)
    text = "search by an object that --detect lists; can be repeated"
    parser.add_argument("--object", type=common.positive, metavar="N", action="append", default=[], help=text)
    parser.add_argument("--detect", action="store_true", help="list the objects of the image instead of searching")
    parser.add_argument(
        "--whole", action="store_true", help="compare with whole images, even if the engine has regions"
    )
    add_detector_options(parser)


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options --detector and --labels."""
    text = "a detector of your own, exported to ONNX in the form of YOLO or DETR; default: an SSD with 23 classes"
    parser.add_argument("--detector", metavar="FILE", help=text)
    parser.add_argument("--labels", metavar="FILE", help="the classes of --detector, one per line")


def open_detector(options: argparse.Namespace) -> "Detector | None":
    """The detector of --detector and --labels; None without them."""
    if (options.detector is None) != (options.labels is None):
        raise CommandError("give both --detector and --labels, or neither", USAGE)
    if options.detector is None:
        return None
    from helpers.networks import detectors

    return detectors.from_file(options.detector, options.labels)


def check_options(options: argparse.Namespace) -> None:
    """Raise CommandError if the options do not go together."""
    if not (options.box or options.object or options.detect):
        return
    if len(options.images) != 1 or not Path(options.images[0]).is_file():
        raise CommandError("--box, --object and --detect need one image", USAGE)
    other = options.text or options.without or options.together or options.as_class or options.rerank != "none"
    if other or options.whole:
        raise CommandError(
            "--box, --object and --detect cannot be combined with --text, --without, --together, --as, --rerank or "
            "--whole",
            USAGE,
        )


def list_objects(options: argparse.Namespace, image: str) -> int:
    """Print the objects of the query image. ``image`` : as in the command line."""
    found = _detected(options)
    columns = ("object", "class_name", "score", "box")
    rows = [
        (number, name, round(float(score), 4), _text(box))
        for number, (name, score, box) in enumerate(zip(found.names, found.scores, found.boxes, strict=True), 1)
    ]
    if options.json:
        values = ((*row, [int(side) for side in box.split(",")]) for *row, box in rows)
        common.print_json([dict(zip(columns, each, strict=True)) for each in values])
    elif options.csv:
        common.print_csv(columns, rows)
    else:
        for number, name, score, box in rows:
            print(f"{number:4}  {score:6.2f}  {printable(name):<20}  {box}")
    if not rows:
        log("no object was found; name a part of the image with --box X,Y,W,H")
        return NEGATIVE
    engine = "" if options.engine is None else f" -e {shlex.quote(options.engine)}"
    log(f"next: lookalike search {shlex.quote(image)} --object 1{engine}")
    return OK


def search(search: Search) -> list[Found] | None:
    """The results of each query that can be read.

    None if the query is of whole images, and the engine has no regions, or they are not wanted.
    """
    from helpers.search.region_search import search_regions

    engine, folder, options = search.engine, search.folder, search.options
    has_parts = bool(options.box or options.object)
    regions = None if options.whole or options.rerank != "none" else _open_regions(engine, folder)
    if regions is None and not has_parts:
        return None
    if has_parts:
        images, queries = list(search.queries.paths), [_part_vectors(engine, search.queries.paths[0], options)]
    else:
        images, vectors = search.extracted()
        queries = list(vectors[:, None])
    several = any(len(parts) > 1 for parts in queries)
    if options.good or options.bad:
        if several:
            raise CommandError("--good and --bad move a query of one part, not of several boxes or objects", USAGE)
        queries = [search.moved(parts) for parts in queries]
    if regions is None:
        if several:
            raise CommandError(
                f"a query of several parts needs regions, and {printable(folder)} has none. Add them: "
                f"lookalike index FOLDER --regions detector -o {shlex.quote(str(folder))}"
            )
        return [Found(str(images[0]), images[0], engine.query_vector(queries[0][0], search.k, search.excluded))]
    found = [search_regions(engine, regions, parts, search.k, excluded=search.excluded) for parts in queries]
    return [
        Found(str(image), image, engine.results(one.ranking), list(one.matches))
        for image, one in zip(images, found, strict=True)
    ]


def describe(matches: Matches) -> str:
    """The matched parts of a result as text, such as "Dog 34,50,120,200"."""
    texts = []
    for match in matches:
        if match is None or match.box is None:
            texts.append("no match" if match is None else "whole image")
        else:
            texts.append(f"{f'{printable(match.class_name)} ' if match.class_name else ''}{_text(match.box)}")
    return "; ".join(texts)


def records(matches: Matches) -> list[dict]:
    """The matched parts of a result for JSON; the box of a whole image is null."""
    return [
        {
            "part": number,
            "box": None if match.box is None else [int(round(float(side))) for side in match.box],
            "class_name": match.class_name,
            "score": round(match.score, 6),
        }
        for number, match in enumerate(matches, 1)
        if match is not None
    ]


def _open_regions(engine: "Engine", folder: Path) -> "GalleryRegions | None":
    from helpers.search.region_index import NoRegions, RegionIndex

    try:
        index = RegionIndex(folder)
    except NoRegions:
        return None
    if len(missing := index.missing(engine)):
        log(
            f"note: {pluralize(len(missing), 'image')} without regions: run the same `lookalike index … --regions "
            f"{index.source}` again to find them"
        )
    return index.of(engine)


def _part_vectors(engine: "Engine", path: Path, options: argparse.Namespace) -> "np.ndarray":
    """float32 (p, dim): the features of the parts of the query."""
    from helpers.features.region_vectors import crop
    from helpers.features.regions import check_box
    from helpers.images.reading import read_image

    image = read_image(path)
    height, width = image.shape[:2]
    try:
        boxes = [check_box(box, width, height) for box in options.box]
    except ValueError as error:
        raise CommandError(f"{printable(path)}: {error}", USAGE) from error
    if options.object:
        found = _detected(options)
        for number in options.object:
            if number > len(found):
                objects = f"only {pluralize(len(found), 'object')}" if len(found) else "no objects"
                raise CommandError(
                    f"--object {number}: {printable(path)} has {objects}. --detect lists the objects of an image, and "
                    "--box names another part",
                    USAGE,
                )
            boxes.append(found.boxes[number - 1])
    return engine.extractor.extract_arrays([crop(image, box) for box in boxes])


def _detected(options: argparse.Namespace) -> "Detections":
    from helpers.features.regions import detect

    (found,) = detect([options.images[0]], open_detector(options), threshold=LISTED_SCORE, strict=True)
    return found


def _numbers(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"must be four numbers, x,y,width,height, got {text!r}")
    return numbers


def _text(box: "np.ndarray") -> str:
    return ",".join(str(int(round(float(side)))) for side in box)
