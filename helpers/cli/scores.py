"""`lookalike evaluate` and `leaderboard`: how good the answers are."""

import argparse
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import paths
from helpers.cli import locations
from helpers.cli.common import (
    FOUND,
    OK,
    USAGE,
    CommandError,
    add_command,
    add_extractor,
    add_formats,
    log,
    open_extractor,
    open_index,
    pluralize,
    positive,
    print_csv,
    print_json,
    print_table,
    quiet_libraries,
    shown,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from helpers.evaluation.metrics import Scores
    from helpers.evaluation.protocol import Protocol
    from helpers.features.extractor import FeatureExtractor
    from helpers.images.imageset import ImageSet

#: Metrics that the tables show; JSON and CSV hold all.
SHOWN = ("top-1", "top-5", "top-10", "mAP")
SCORE_COLUMNS = (
    "protocol", "extractor", "index", "queries", "gallery", "metric", "value", "low", "high", "chance", "ceiling",
)  # fmt: skip

#: Rankings of the whole gallery, which mAP needs, are made up to so many pairs of query and image: 1.6 GB.
_PAIRS = 100_000_000
#: Answers a query beyond that.
_DEPTH = 100


def register(commands) -> None:
    """Add this family's commands to a parser's."""
    evaluate = add_command(
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
""",
        """
Of a folder whose sub-folders are classes, each image asks and all others answer; an answer is right if it is of the
same class. Where the sub-folders are called train and test (or val, query, gallery), with classes below, test asks and
train answers. Copies of an image (see lookalike audit) are not counted as answers to it; --keep-copies counts them.

Or give a protocol: the name of one that ships with the project, or a file that --save wrote, with --images.

Beside each score: its 95 % interval by bootstrap over queries, what a random order gives, and the most that can be
reached. Several extractors are compared on the same queries. JSON and CSV hold all metrics.
""",
        "stopped; the vectors that were computed are kept, and the same command goes on from there",
    )
    evaluate.add_argument("target", metavar="FOLDER|PROTOCOL")
    add_extractor(evaluate, "what to measure; may be given several times; default: resnet50", action="append")
    evaluate.add_argument(
        "-i", "--index", metavar="NAME", default="exact:cosine", help="what finds the nearest; default: %(default)s"
    )
    evaluate.add_argument("--images", metavar="FOLDER", help="where the images of a protocol's file are")
    evaluate.add_argument("--keep-copies", action="store_true", help="let copies of an image answer for each other")
    evaluate.add_argument("--save", metavar="FILE", help="write the protocol, to measure the same again later (.json)")
    add_formats(evaluate, "print JSON", "print CSV")

    board = add_command(
        commands,
        "leaderboard",
        _leaderboard,
        "Show what the notebooks measured: methods by data set, with intervals and costs.",
        """
lookalike leaderboard
lookalike leaderboard --protocol 'sample-*' --extractor 'resnet50*'
lookalike leaderboard --profile full --dataset lfw --best 3
lookalike leaderboard --metric mAP --metric nDCG@10 --csv
""",
        "Filters may hold * and ?. The table is figures/leaderboard.csv; the metrics are defined in "
        "helpers/evaluation/metrics.py.",
    )
    for name in ("dataset", "protocol", "profile", "extractor", "index"):
        board.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    board.add_argument(
        "--metric", action="append", metavar="NAME", help=f"may be given several times; default: {', '.join(SHOWN)}"
    )
    board.add_argument(
        "--best", type=positive, metavar="N", help="only the best N of each protocol, by the last metric"
    )
    add_formats(board, "print JSON", "print CSV")


# ---- evaluate --------------------------------------------------------------------------------------


def _evaluate(options: argparse.Namespace) -> int:
    quiet_libraries()
    if options.save and Path(options.save).suffix.lower() != ".json":
        raise CommandError(f"--save writes JSON: {shown(options.save)} must end in .json", USAGE)
    protocol = None if Path(options.target).is_dir() else _protocol(options.target)
    open_index(options.index)
    # Last, for it may take a download.
    extractors = [open_extractor(name) for name in dict.fromkeys(options.extractor or ["resnet50"])]
    if protocol is None:
        protocol, vectors = _folder_task(options, extractors)
    else:
        protocol, images = protocol.bind(_images_of(protocol, options.images))
        vectors = {extractor.name: extractor.extract(images) for extractor in extractors}
    if options.save:
        from helpers.evaluation import protocol_files

        protocol_files.save(protocol, options.save)
        log(f"protocol written: {shown(options.save)}")
    results = {}
    for extractor in extractors:
        results[extractor.name] = _scored(protocol, vectors[extractor.name], options.index)
    _print_scores(protocol, results, options)
    return OK


def _protocol(target: str) -> "Protocol":
    """A protocol by its file or its name.

    Raises
    ------
    CommandError : there is none.
    """
    from helpers.evaluation import protocol_files

    if Path(target).suffix.lower() == ".json":
        return protocol_files.load(target)
    if target in protocol_files.frozen_names():
        return protocol_files.frozen(target)
    raise CommandError(
        f"{shown(target)} is no folder, no protocol's file (.json) and no protocol; "
        f"there are: {', '.join(protocol_files.frozen_names())}"
    )


def _folder_task(
    options: argparse.Namespace, extractors: list["FeatureExtractor"]
) -> tuple["Protocol", dict[str, "np.ndarray"]]:
    """The protocol of a folder, and extractor → float32 (n, dim) of its images, those that can be read."""
    import numpy as np

    from helpers.evaluation import builders

    images, sides = locations.split_by_folder(locations.gallery_from(options.target))
    vectors = {extractor.name: extractor.extract(images) for extractor in extractors}
    unreadable = np.any([np.isnan(each).any(axis=1) for each in vectors.values()], axis=0)
    if unreadable.any():
        # The extractors have named them.
        images = images.subset(~unreadable)
        vectors = {name: each[~unreadable] for name, each in vectors.items()}
        sides = None if sides is None else sides[~unreadable]
    if not options.keep_copies:
        images = _with_groups(images, next(iter(vectors.values())))
    name = Path(options.target).resolve().name
    if sides is None:
        protocol = builders.leave_one_out(images, f"{name}-leave-one-out")
    else:
        results = np.isin(np.char.lower(sides), list(locations.ANSWERING))
        if results.all() or not results.any():
            raise CommandError(
                f"{shown(options.target)} is divided into {', '.join(sorted(set(sides)))}, but one of them has to be "
                "called train or gallery, and one test, val or query"
            )
        asking = "-".join(sorted(set(sides[~results])))
        protocol = builders.query_gallery(images, ~results, results, f"{name}-{asking}-asks")
    return protocol, vectors


def _with_groups(images: "ImageSet", vectors) -> "ImageSet":
    """The set with copies of one image as groups, after a remark on how many there are."""
    from dataclasses import replace

    from helpers.images.duplicates import audit
    from helpers.vectors import l2_normalize

    found = audit(images, l2_normalize(vectors))
    if not len(found):
        return images
    log(
        f"note: {pluralize(len(found), 'pair')} of copies; they are not counted as answers to each other "
        "(lookalike audit shows them)"
    )
    return replace(images, groups=found.groups())


def _images_of(protocol: "Protocol", folder: str | None) -> "ImageSet":
    """The data set that a protocol was made on, or the folder that was given in its place."""
    if folder is not None:
        images = locations.gallery_from(folder)
        return locations.split_by_folder(images)[0] if set(protocol.keys) <= set(images.keys) else images
    from helpers.images import att_faces, caltech101, cifar10, imagenet, lfw, samples

    loaders = {
        "sample": _whole_sample,
        "sample-drawings": samples.drawings,
        "att-faces": att_faces.load,
        "lfw": lfw.load,
        "imagenette": imagenet.imagenette,
        "caltech101": caltech101.load,
        "cifar10": cifar10.load,
    }
    if protocol.dataset not in loaders:
        raise CommandError(
            f"the protocol {protocol.name!r} was made on the images {protocol.dataset!r}: pass --images",
            USAGE,
        )
    return loaders[protocol.dataset]()


def _whole_sample() -> "ImageSet":
    """Photographs, distractors and drawings: the protocols take what they know."""
    import numpy as np

    from helpers.images import samples
    from helpers.images.imageset import ImageSet

    photos, drawings = samples.with_distractors(), samples.drawings()
    labels = np.concatenate([photos.labels, drawings.labels])
    return ImageSet("sample", photos.paths + drawings.paths, labels, photos.class_names, root=photos.root)


def _scored(protocol: "Protocol", vectors, index: str) -> "Scores":
    from helpers.evaluation import metrics, runner

    whole = len(protocol.queries) * len(protocol.gallery) <= _PAIRS
    if not whole:
        log(f"note: so many images are ranked to {_DEPTH} answers a query only, without mAP")
    ranking = runner.run(protocol, vectors, open_index(index), None if whole else _DEPTH)
    return metrics.evaluate(ranking, protocol)


def _print_scores(protocol: "Protocol", results: dict[str, "Scores"], options: argparse.Namespace) -> None:
    tables = {name: scores.table() for name, scores in results.items()}
    about = {"protocol": protocol.name, "queries": 0, "gallery": len(protocol.gallery)}
    if options.json:
        print_json(
            [
                about
                | {"extractor": name, "index": options.index, "queries": results[name].n_queries}
                | {"metrics": table.to_dict("records")}
                for name, table in tables.items()
            ]
        )
    elif options.csv:
        rows = (
            [protocol.name, name, options.index, results[name].n_queries, len(protocol.gallery), *row]
            for name, table in tables.items()
            for row in table.itertuples(index=False)
        )
        print_csv(SCORE_COLUMNS, rows)
    else:
        _print_comparison(protocol, results, tables, options.index)


def _print_comparison(protocol: "Protocol", results: dict[str, "Scores"], tables: dict, index: str) -> None:
    from helpers.evaluation.intervals import paired_difference

    first = next(iter(results.values()))
    distractors = f" ({protocol.n_distractors:,} of no class that is asked for)" if protocol.n_distractors else ""
    print(
        f"{shown(protocol.name)}: {pluralize(first.n_queries, 'query')}, gallery of "
        f"{pluralize(len(protocol.gallery), 'image')}{distractors}; {index}"
    )
    metrics = [metric for metric in SHOWN if metric in first.metrics]
    lines = []
    for name, table in tables.items():
        rows = table.set_index("metric")
        lines.append([name, *(_with_interval(rows.loc[metric]) for metric in metrics)])
    rows = next(iter(tables.values())).set_index("metric")
    for bound in ("chance", "ceiling"):
        lines.append([bound, *(f"{rows.loc[metric, bound]:.3f}" for metric in metrics)])
    print_table(["", *metrics], lines)
    names = list(results)
    for other in names[1:]:
        differences = [
            f"{metric} {paired_difference(results[other].values[metric], first.values[metric])}"
            for metric in (metrics[0], metrics[-1])
        ]
        print(f"{other} minus {names[0]}: {'; '.join(differences)}")
    print("in brackets: 95 % intervals by bootstrap over queries")


def _with_interval(row: "pd.Series") -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


# ---- leaderboard -----------------------------------------------------------------------------------


def _leaderboard(options: argparse.Namespace) -> int:
    from helpers.evaluation import leaderboard

    if not paths.figures_dir().joinpath("leaderboard.csv").is_file():
        paths.checkout("The measured results")
    board = leaderboard.load()
    chosen = {name: getattr(options, name) for name in ("dataset", "protocol", "profile", "extractor", "index")}
    for column, pattern in chosen.items():
        if pattern is not None:
            board = board[[fnmatchcase(value, pattern) for value in board[column]]]
    metrics = options.metric or list(SHOWN)
    known = set(board["metric"])
    board = board[board["metric"].isin(metrics)]
    if board.empty:
        if known:
            log(f"no such metric here; there are: {', '.join(sorted(known))}")
        else:
            log("the leaderboard has no such rows: see lookalike leaderboard, without filters")
        return FOUND
    board = _ordered(board, metrics, options.best)
    if options.json:
        # By way of pandas' own JSON, where a missing number is null.
        import json

        print_json(json.loads(board.to_json(orient="records")))
    elif options.csv:
        missing = board.astype(object).where(board.notna(), None)
        print_csv(list(board.columns), missing.itertuples(index=False, name=None))
    else:
        _print_board(board, metrics)
    return OK


_METHOD = ["extractor", "weights", "dim", "index"]
_ALIKE = ["profile", "dataset", "protocol", "n_queries", "n_gallery", "n_distractors"]


def _ordered(board: "pd.DataFrame", metrics: list[str], best: int | None) -> "pd.DataFrame":
    """Sample profile first, then by protocol; methods of a protocol from good to bad by the last metric."""
    import pandas as pd

    parts = []
    groups = sorted(board.groupby(_ALIKE), key=lambda group: (group[0][0] != "sample", *map(str, group[0][1:])))
    for _, rows in groups:
        methods = [part for _, part in rows.groupby(_METHOD)]
        methods.sort(key=lambda part: -part.set_index("metric")["value"].get(metrics[-1], -1.0))
        parts += methods[:best]
    return pd.concat(parts)


def _print_board(board: "pd.DataFrame", metrics: list[str]) -> None:
    for number, ((profile, _, protocol, n_queries, n_gallery, _), rows) in enumerate(board.groupby(_ALIKE, sort=False)):
        print(f"{chr(10) if number else ''}{protocol} ({profile}): {n_queries:,} ask, {n_gallery:,} answer")
        lines = []
        for (extractor, _, dim, index), part in rows.groupby(_METHOD, sort=False):
            table = part.set_index("metric")
            scores = [_with_interval(table.loc[metric]) if metric in table.index else "" for metric in metrics]
            lines.append([extractor, str(dim), index, *scores])
        for bound in ("chance", "ceiling"):
            by_metric = rows.groupby("metric")[bound].first()
            lines.append([bound, "", "", *(f"{by_metric[m]:.3f}" if m in by_metric else "" for m in metrics)])
        print_table(["extractor", "dim", "index", *metrics], lines)
