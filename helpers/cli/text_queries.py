"""Queries of texts and of several images, for `lookalike search`."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import common, locations
from helpers.cli.common import USAGE, CommandError, log, pluralize, printable
from helpers.cli.query import Found, Search

if TYPE_CHECKING:
    import numpy as np

    from helpers.features.text import WordVectors
    from helpers.search.combined import QueryPart
    from helpers.search.engine import Engine
    from helpers.search.gallery import GalleryTable
    from helpers.search.word_index import GalleryWords

#: Ways from texts to images, with what each compares with the text.
WAYS = {
    "conse": "the class scores of `lookalike classify`",
    "ridge": "a ridge regression from features to the words of the engine's classes",
    "devise": "a network from features to the words of the engine's classes",
    "captions": "a caption of each image",
}


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of queries by texts or several images, from --text to --vectors."""
    parser.add_argument(
        "--text", metavar="TEXT", action="append", default=[], help="what results show; can be repeated"
    )
    parser.add_argument(
        "--without", metavar="TEXT", action="append", default=[], help="what results do not show; can be repeated"
    )
    parser.add_argument("--together", action="store_true", help="search by all images as one query, instead of by each")
    text = "with --together, the weights of the images in their order, such as 1,0.5,-1; default: 1 each"
    parser.add_argument("--weights", type=_weights, metavar="W,W,…", help=text)
    text = "weight of each text; an image has weight 1; default: %(default)s"
    parser.add_argument("--text-weight", type=common.number(float, 0.001, 1000), metavar="W", default=1.0, help=text)
    ways = "; ".join(f"{name}: {text}" for name, text in WAYS.items())
    parser.add_argument("--way", choices=tuple(WAYS), default="conse", help=f"how texts find images; {ways}")
    text = "for --way captions: a table with the columns path and caption"
    parser.add_argument("--captions", metavar="FILE", help=text)
    text = "re-weight the features of the query image by a class, such as --as boat"
    parser.add_argument("--as", dest="as_class", metavar="CLASS", help=text)
    text = "a text file of word vectors (GloVe, word2vec or fastText); default: GloVe 6B with 50 numbers"
    parser.add_argument("--vectors", metavar="FILE", help=text)


def _weights(text: str) -> list[float]:
    """An argparse type: weights separated by commas."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < abs(number) < 1000 for number in numbers):
        raise argparse.ArgumentTypeError(
            f"must be numbers between -1000 and 1000, other than 0, separated by commas, got {text!r}"
        )
    return numbers


def is_combined(options: argparse.Namespace) -> bool:
    """Whether the options ask for a query of texts or of several images."""
    return bool(options.text or options.without or options.together)


def check_options(options: argparse.Namespace) -> None:
    """Raise CommandError if the options do not go together."""
    if not options.images and not options.text:
        raise CommandError("name an image or a folder, or describe what to find with --text", USAGE)
    if is_combined(options) and options.rerank != "none":
        raise CommandError(
            "--rerank is for queries of one image: leave it out, or leave out --text, --without and --together", USAGE
        )
    if options.weights is not None and not options.together:
        raise CommandError("--weights needs --together", USAGE)
    if options.as_class and not options.images:
        raise CommandError("--as re-weights the features of a query image: name an image", USAGE)
    if options.grid and not options.images:
        raise CommandError(
            "--grid shows the query image, and a query of texts alone has none: leave out --grid, or name an image",
            USAGE,
        )


def search_combined(search: Search) -> list[Found]:
    """The results of each query of texts and images that can be read."""
    from helpers.search.combined import QueryPart, marked_parts, search_parts

    engine, options = search.engine, search.options
    words = _open_words(engine, search.folder, options)
    texts = [QueryPart(options.text_weight, text=text) for text in options.text]
    texts += [QueryPart(-options.text_weight, text=text) for text in options.without]
    images = _image_parts(search) if options.images else []
    one_query = not options.images or (options.together and images)
    found = []
    for group in [images] if one_query else [[one] for one in images]:
        parts = [*(part for _, part in group), *texts, *marked_parts(*search.marked)]
        results = engine.results(search_parts(engine, parts, search.k, words, excluded=search.excluded))
        paths = [path for path, _ in group]
        found.append(Found(_name(paths, options.text, options.without), next(iter(paths), None), results))
    return found


def _image_parts(search: Search) -> list[tuple[Path, "QueryPart"]]:
    """Path and part of the images that can be read."""
    from helpers.search.combined import QueryPart

    options = search.options
    images, vectors = search.extracted()
    weights = options.weights or [1.0] * len(images)
    if len(weights) != len(images):
        raise CommandError(f"--weights has {len(weights)} numbers for {pluralize(len(images), 'image')}", USAGE)
    parts = map(QueryPart, weights, reweighted(search.engine, vectors, options))
    return list(zip(images, parts, strict=True))


def reweighted(engine: "Engine", vectors: "np.ndarray", options: argparse.Namespace) -> "np.ndarray":
    """The vectors of query images (n, dim), multiplied by the classifier's weights of the class of --as, if given."""
    if options.as_class is None:
        return vectors
    from helpers.features import class_weights
    from helpers.networks import specs

    name = engine.extractor.name
    if name not in specs.ZOO or specs.network(name).embedding != "avg_pool":
        raise CommandError(
            f"--as needs the average-pooled features of a network, and the engine has those of {name}: index the "
            f"images with an extractor such as {common.DEFAULT_EXTRACTOR}",
            USAGE,
        )
    weights = class_weights.ClassWeights(name)
    try:
        known = weights.classes(options.as_class)
    except ValueError:
        weights = class_weights.ClassWeights(name, open_vectors(options.vectors))
        known = weights.classes(options.as_class)
        log(f"note: ImageNet has no class {printable(options.as_class)}; the nearest one is {', '.join(known)}")
    return class_weights.reweighted(vectors, weights.weights(options.as_class))


def _name(images: list[Path], texts: list[str], without: list[str]) -> str:
    """A query as text: its images and texts, joined by + and −."""
    added = " + ".join([*map(str, images), *(f'"{text}"' for text in texts)])
    return added + "".join(f' − "{text}"' for text in without)


def _open_words(engine: "Engine", folder: Path, options: argparse.Namespace) -> "GalleryWords | None":
    """What texts are compared with, by --way; None if no text needs it."""
    from helpers.features.text_encoder import embeds_text

    texts = [*options.text, *options.without]
    if not texts or embeds_text(engine.extractor):
        if options.vectors is not None and not options.as_class:
            raise CommandError(
                "--vectors is for texts, and only if the extractor of the engine does not embed texts: leave it out",
                USAGE,
            )
        return None
    if (options.way == "captions") != (options.captions is not None):
        raise CommandError("give both --way captions and --captions FILE, or neither", USAGE)
    if options.way == "conse":
        from helpers.search.word_index import stored_classifier

        # Before the word vectors, which need an extra.
        stored_classifier(folder)
    vectors = open_vectors(options.vectors)
    for text in texts:
        if ignored := vectors.phrase(text).ignored:
            verbs = "has no vector and is ignored" if len(ignored) == 1 else "have no vectors and are ignored"
            log(f"note: {printable(text)}: {', '.join(map(printable, ignored))} {verbs}")
    return _word_index(engine, folder, vectors, options)


def _word_index(engine: "Engine", folder: Path, vectors: "WordVectors", options: argparse.Namespace) -> "GalleryWords":
    import numpy as np

    from helpers.features.word_space import Captions, Conse, DeviseNetwork, RidgeDevise
    from helpers.search.word_index import GalleryWords, WordIndex

    if options.way == "conse":
        index = WordIndex(folder, Conse(vectors))
        if len(missing := index.missing(engine)):
            log(
                f"note: {pluralize(len(missing), 'image')} without class scores cannot be found by words: "
                f"lookalike classify -e {shlex.quote(str(folder))} computes them"
            )
        return index
    ids, table = engine.index.ids, engine.table
    if options.way == "captions":
        captions = _read_captions(Path(options.captions), table)
        space = Captions(vectors)
        found = space.embed_images([captions.get(id, "") for id in ids.tolist()])
        return GalleryWords.of_vectors(space, found, ids)
    labels = table.labels[ids]
    if not (labels >= 0).any():
        raise CommandError(
            f"--way {options.way} learns from the names of the classes, and the images have no classes: use --way "
            "conse, or index a folder whose subfolders are classes",
            USAGE,
        )
    features = np.asarray(engine.index.vectors(ids))
    learned = (RidgeDevise if options.way == "ridge" else DeviseNetwork)(vectors)
    return GalleryWords(learned.fit(features, labels, table.class_names), features, ids)


def _read_captions(file: Path, table: "GalleryTable") -> dict[int, str]:
    """Id → caption, of a table with the columns path and caption; CommandError if no path is in the engine."""
    from helpers.images.table_files import TableError, read_rows

    columns, rows = read_rows(file, ("path", "caption"))
    captions, unknown = {}, 0
    width = max(columns.positions) + 1
    bad = [(row.line, row.error or "too few columns") for row in rows if row.error or len(row.cells) < width]
    if bad:
        raise TableError.of_rows(file, bad)
    for row in rows:
        path, caption = (row.cells[position].strip() for position in columns.positions)
        id = table.id_of(path)
        if id is None:
            id = table.id_of(str(locations.absolute(file.parent / path)))
        if id is None:
            unknown += 1
        else:
            captions[id] = caption
    if not captions:
        raise CommandError(
            f"{printable(file)}: none of its {pluralize(len(rows), 'path')} is in the engine; `lookalike list` prints "
            "the paths of the engine"
        )
    if unknown:
        log(
            f"note: {printable(file)}: {pluralize(unknown, 'path')} {'is' if unknown == 1 else 'are'} not in the engine"
        )
    return captions


def open_vectors(file: str | None) -> "WordVectors":
    """The word vectors of a file, or GloVe's."""
    from helpers.features.text import WordVectors

    return WordVectors.glove() if file is None else WordVectors.from_file(file)
