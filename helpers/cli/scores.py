"""`lookalike evaluate` and `leaderboard`: retrieval scores."""

import argparse
import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import paths
from helpers.cli import common, locations
from helpers.cli.common import NEGATIVE, OK, USAGE, CommandError, log, pluralize, printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from helpers.evaluation.metrics import Scores
    from helpers.evaluation.protocol import Protocol
    from helpers.features.extractor import FeatureExtractor
    from helpers.images.imageset import ImageSet
    from helpers.images.layout import Layout

#: Metrics that the tables show; JSON and CSV contain all of them.
SHOWN = ("top-1", "top-5", "top-10", "mAP")
SCORE_COLUMNS = (
    "protocol", "extractor", "backend", "queries", "gallery", "metric", "value", "low", "high", "chance", "ceiling",
)  # fmt: skip

#: mAP needs rankings of the whole gallery. Up to this number of query-image pairs, they fit in 1.6 GB.
_PAIRS = 100_000_000
#: Results per query beyond that.
_DEPTH = 100


def register(commands: "common.Commands") -> None:
    _register_evaluate(commands)
    _register_leaderboard(commands)


def _register_evaluate(commands: "common.Commands") -> None:
    evaluate = common.add_command(
        commands,
        "evaluate",
        _evaluate,
        "Measure how well images of the same class are found.",
        """
lookalike evaluate photos
lookalike evaluate photos --extractor resnet50 --extractor hsv-histogram
lookalike evaluate sample-distractors --json
lookalike evaluate my-protocol.json --images photos
lookalike evaluate photos --save my-protocol.json
lookalike evaluate data --train data/train --test data/dev
lookalike evaluate table.csv
""",
        f"""
In a folder whose subfolders are classes, each image is a query and all other images are its gallery; images of the
same class are relevant. If the subfolders are the sides of a split and contain the classes, the images of one side are
the queries, and those of the other are the gallery. Copies of the query (see lookalike audit) are ignored, unless you
pass --keep-copies.

{locations.SIDES}

The command prints the layout that it has read. A layout that gives no valid scores is refused: no class, a single
class, or sides without a common class.

Instead of a folder, you can name a table with the columns path and label (.csv), a protocol that ships with the
project, or a file written by --save; the latter needs --images.

Each score has a 95 % interval (bootstrap over queries), the score of a random order (chance) and the highest possible
score (ceiling). Several extractors are compared on the same queries. JSON and CSV contain all metrics.
""",
        common.VECTORS_KEPT,
    )
    evaluate.add_argument("target", metavar="FOLDER|TABLE|PROTOCOL")
    text = f"the feature extractor; can be repeated; default: {common.DEFAULT_EXTRACTOR}"
    evaluate.add_argument("-x", "--extractor", metavar="NAME", action="append", help=text)
    common.add_backend(evaluate)
    locations.add_layout(evaluate)
    evaluate.add_argument("--images", metavar="FOLDER", help="the images of a saved protocol")
    evaluate.add_argument("--keep-copies", action="store_true", help="count copies of the query as results")
    evaluate.add_argument("--save", metavar="FILE", help="write the protocol, to repeat the measurement later (.json)")
    common.add_formats(evaluate)


def _register_leaderboard(commands: "common.Commands") -> None:
    board = common.add_command(
        commands,
        "leaderboard",
        _leaderboard,
        "Show the results of the notebooks: methods by data set, with intervals.",
        """
lookalike leaderboard
lookalike leaderboard --protocol 'sample-*' --extractor 'resnet50*'
lookalike leaderboard --profile full --dataset lfw --best 3
lookalike leaderboard --metric mAP --metric nDCG@10 --csv
""",
        "Filters can contain the wildcards * and ?. The results are read from figures/leaderboard.csv, in which the "
        "backend is called index, and from notebooks that you ran. helpers/evaluation/metrics.py defines the metrics.",
    )
    for name in ("dataset", "protocol", "profile", "extractor", "backend"):
        board.add_argument(f"--{name}", metavar="NAME", help=f"show only this {name}")
    text = f"can be repeated; default: {', '.join(SHOWN)}"
    board.add_argument("--metric", action="append", metavar="NAME", help=text)
    text = "show only the best N of each protocol, by the last metric"
    board.add_argument("--best", type=common.positive, metavar="N", help=text)
    common.add_formats(board)


# ---- evaluate --------------------------------------------------------------------------------------


def _evaluate(options: argparse.Namespace) -> int:
    common.check_output(options.save, ".json")
    target = Path(options.target)
    has_images = target.is_dir() or (target.is_file() and target.suffix.lower() != ".json")
    layout = _read_layout(options) if has_images else None
    protocol = None if layout is not None else _open_protocol(options)
    common.open_index(options.backend)
    # Extractors are opened after all checks, because this may download weights.
    names = dict.fromkeys(options.extractor or [common.DEFAULT_EXTRACTOR])
    extractors = [common.open_extractor(name) for name in names]
    if layout is not None:
        name = locations.source_name(options.target)
        protocol, vectors = _layout_protocol(layout, name, options.keep_copies, extractors)
    else:
        assert protocol is not None
        whole = _images_of(protocol, options)
        protocol, images = protocol.bind(whole)
        if len(images) < len(whole):
            log(f"note: {protocol.name} uses {len(images)} of the {len(whole)} images; the others are left out")
        vectors = {extractor.name: extractor.extract(images) for extractor in extractors}
    if options.save:
        from helpers.evaluation import protocol_files

        protocol_files.save(protocol, options.save)
        log(f"protocol saved: {printable(options.save)}")
    scores = {name: _score(protocol, each, options.backend) for name, each in vectors.items()}
    _print_scores(protocol, scores, options)
    return OK


def _read_layout(options: argparse.Namespace) -> "Layout":
    """The layout of the target; CommandError if it cannot be evaluated."""
    from helpers.images.layout import LayoutError

    if options.images is not None:
        raise CommandError(f"--images is for protocols; {printable(options.target)} has images", USAGE)
    layout = locations.read_layout(options.target, options)
    try:
        layout = layout.for_evaluation()
    except LayoutError as error:
        raise CommandError(printable(error), USAGE) from error
    finally:
        locations.log_layout(layout)
    return layout


def _open_protocol(options: argparse.Namespace) -> "Protocol":
    """A protocol by its file or name; CommandError if there is none."""
    from helpers.evaluation import protocol_files

    target = options.target
    if options.images is None and (options.train or options.test or options.classes_from):
        raise CommandError("--train, --test and --classes-from are for folders; a protocol has its sides", USAGE)
    if Path(target).suffix.lower() == ".json":
        return protocol_files.load(target)
    if target in protocol_files.frozen_names():
        return protocol_files.frozen(target)
    raise CommandError(
        f"{printable(target)} is neither a folder nor a table (.csv) nor a protocol file (.json) nor one of the "
        f"protocols {', '.join(protocol_files.frozen_names())}"
    )


def _layout_protocol(
    layout: "Layout", name: str, keep_copies: bool, extractors: list["FeatureExtractor"]
) -> tuple["Protocol", dict[str, "np.ndarray"]]:
    """The protocol of a folder or table, and the vectors of its readable images by extractor, float32 (n, dim)."""
    from dataclasses import replace

    from helpers.evaluation import builders
    from helpers.images.duplicates import audit

    layout, vectors = builders.extract_readable(layout, {extractor.name: extractor for extractor in extractors})
    if not keep_copies:
        found = audit(layout.images, next(iter(vectors.values())), layout.sides)
        if len(found):
            duplicates = pluralize(len(found), "duplicate")
            log(f"note: {duplicates} found; copies of a query are ignored (lookalike audit lists them)")
            layout = replace(layout, images=replace(layout.images, groups=found.groups()))
    return builders.from_layout(layout, name), vectors


def _images_of(protocol: "Protocol", options: argparse.Namespace) -> "ImageSet":
    """The images that --images names, or else the data set of the protocol."""
    if options.images is not None:
        images = locations.read_layout(options.images, options).images
        # The whole folder, so that `Protocol.bind` can name the images that are missing.
        if set(protocol.keys) <= set(images.keys):
            return images
        return locations.read_gallery(options.images, follow_links=options.follow_links)
    from helpers.images import att_faces, caltech101, cifar10, concatenate, imagenet, lfw, samples, scenes

    loaders = {
        # `Protocol.bind` selects the images of a protocol.
        "sample": lambda: concatenate("sample", [samples.with_distractors(), samples.drawings()]),
        "sample-drawings": samples.drawings,
        "scenes": lambda: scenes.load().with_photos(),
        "att-faces": att_faces.load,
        "lfw": lfw.load,
        "imagenette": imagenet.imagenette,
        "caltech101": caltech101.load,
        "cifar10": cifar10.load,
    }
    if protocol.dataset not in loaders:
        raise CommandError(
            f"the protocol {protocol.name!r} needs the images {protocol.dataset!r}: pass --images", USAGE
        )
    return loaders[protocol.dataset]()


def _score(protocol: "Protocol", vectors: "np.ndarray", backend: str) -> "Scores":
    from helpers.evaluation import metrics, runner

    whole = len(protocol.queries) * len(protocol.gallery) <= _PAIRS
    if not whole:
        log(f"note: the gallery is large, so only {_DEPTH} results per query are ranked, and mAP is not computed")
    ranking = runner.run(protocol, vectors, common.open_index(backend), None if whole else _DEPTH)
    return metrics.evaluate(ranking, protocol)


def _print_scores(protocol: "Protocol", scores: dict[str, "Scores"], options: argparse.Namespace) -> None:
    tables = {name: each.table() for name, each in scores.items()}
    if options.json:
        common.print_json(
            [
                {
                    "protocol": protocol.name,
                    "queries": scores[name].n_queries,
                    "gallery": len(protocol.gallery),
                    "extractor": name,
                    "backend": options.backend,
                    "metrics": table.to_dict("records"),
                }
                for name, table in tables.items()
            ]
        )
    elif options.csv:
        rows = (
            [protocol.name, name, options.backend, scores[name].n_queries, len(protocol.gallery), *row]
            for name, table in tables.items()
            for row in table.itertuples(index=False)
        )
        common.print_csv(SCORE_COLUMNS, rows)
    else:
        _print_comparison(protocol, scores, tables, options.backend)


def _print_comparison(
    protocol: "Protocol", scores: dict[str, "Scores"], tables: dict[str, "pd.DataFrame"], backend: str
) -> None:
    from helpers.evaluation.intervals import paired_difference

    first_name, *other_names = scores
    first = scores[first_name]
    distractors = f", {pluralize(protocol.n_distractors, 'distractor')} among them" if protocol.n_distractors else ""
    print(
        f"{printable(protocol.name)}: {pluralize(first.n_queries, 'query')}, gallery of "
        f"{pluralize(len(protocol.gallery), 'image')}{distractors}; {backend}"
    )
    metrics = [metric for metric in SHOWN if metric in first.metrics]
    rows = {name: table.set_index("metric") for name, table in tables.items()}
    lines = [[name, *(_with_interval(each.loc[metric]) for metric in metrics)] for name, each in rows.items()]
    for bound in ("chance", "ceiling"):
        lines.append([bound, *(f"{rows[first_name].loc[metric, bound]:.3f}" for metric in metrics)])
    common.print_table(["", *metrics], lines)
    for name in other_names:
        differences = [
            f"{metric} {paired_difference(scores[name].values[metric], first.values[metric])}"
            for metric in (metrics[0], metrics[-1])
        ]
        print(f"{name} minus {first_name}: {'; '.join(differences)}")
    print("in brackets: 95 % intervals by bootstrap over queries")


def _with_interval(row: "pd.Series") -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


# ---- leaderboard -----------------------------------------------------------------------------------


def _leaderboard(options: argparse.Namespace) -> int:
    from helpers.evaluation import leaderboard

    board = leaderboard.load().rename(columns={"index": "backend"})
    if board.empty:
        paths.checkout("The measured results")
    for column in ("dataset", "protocol", "profile", "extractor", "backend"):
        if (pattern := getattr(options, column)) is not None:
            board = board[[fnmatchcase(value, pattern) for value in board[column]]]
    metrics = options.metric or list(SHOWN)
    known = set(board["metric"])
    board = board[board["metric"].isin(metrics)]
    if board.empty:
        if known:
            log(f"unknown metric; choose from: {', '.join(sorted(known))}")
        else:
            log("the leaderboard has no such rows; lookalike leaderboard without filters shows all")
        return NEGATIVE
    board = _sorted_board(board, metrics, options.best)
    if options.json:
        # pandas writes a missing number as null.
        common.print_json(json.loads(board.to_json(orient="records")))
    elif options.csv:
        missing_as_none = board.astype(object).where(board.notna(), None)
        common.print_csv(list(board.columns), missing_as_none.itertuples(index=False, name=None))
    else:
        _print_board(board, metrics)
    return OK


_METHOD = ["extractor", "weights", "dim", "backend"]
_TASK = ["profile", "dataset", "protocol", "n_queries", "n_gallery", "n_distractors"]


def _sorted_board(board: "pd.DataFrame", metrics: list[str], best: int | None) -> "pd.DataFrame":
    """The sample profile first, then by protocol; the methods of a protocol from best to worst by the last metric."""
    import pandas as pd

    parts = []
    tasks = sorted(board.groupby(_TASK), key=lambda group: (group[0][0] != "sample", *map(str, group[0][1:])))
    for _, rows in tasks:
        methods = [part for _, part in rows.groupby(_METHOD)]
        methods.sort(key=lambda part: -part.set_index("metric")["value"].get(metrics[-1], -1.0))
        parts += methods[:best]
    return pd.concat(parts)


def _print_board(board: "pd.DataFrame", metrics: list[str]) -> None:
    for number, ((profile, _, protocol, n_queries, n_gallery, _), rows) in enumerate(board.groupby(_TASK, sort=False)):
        print(f"{chr(10) if number else ''}{protocol} ({profile}): {n_queries:,} queries, gallery of {n_gallery:,}")
        lines = []
        for (extractor, _, dim, backend), part in rows.groupby(_METHOD, sort=False):
            table = part.set_index("metric")
            scores = [_with_interval(table.loc[metric]) if metric in table.index else "" for metric in metrics]
            lines.append([extractor, str(dim), backend, *scores])
        for bound in ("chance", "ceiling"):
            by_metric = rows.groupby("metric")[bound].first()
            lines.append([bound, "", "", *(f"{by_metric[m]:.3f}" if m in by_metric else "" for m in metrics)])
        common.print_table(["extractor", "dim", "backend", *metrics], lines)
