"""`lookalike info` and `list`: what an engine is, and its images."""

import argparse
import contextlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import common, locations
from helpers.cli.common import NEGATIVE, OK, CommandError, did_you_mean, log, pluralize, printable

if TYPE_CHECKING:
    from helpers.search.engine import Engine

COLUMNS = ("id", "key", "path", "class_name", "added")

#: The classes that `info` names.
_CLASSES = 10


def register(commands: "common.Commands") -> None:
    info = common.add_command(
        commands,
        "info",
        _info,
        "Show what an engine is: images, classes, extractor, backend, size on disk, dates and pending changes.",
        "lookalike info\nlookalike info -e photos.engine --json",
        """
Pending changes are images that were added or removed, but are not yet written into the index. Searches respect them,
and `lookalike compact` writes them. The command needs neither the images nor the weights of the network.
""",
    )
    locations.add_engine(info)
    info.add_argument("--json", action="store_true", help="print JSON")

    listing = common.add_command(
        commands,
        "list",
        _list,
        "List the images of an engine, with id, class, path and the date of their addition.",
        """
lookalike list
lookalike list -e photos.engine --class owls
lookalike list --csv > images.csv
""",
        f"""
--json prints a list of objects, --csv a table; both have the columns {", ".join(COLUMNS)}. The key is the path relative
to the indexed folder, added is a time in UTC, and null means that the image has no class or that its date is not known.
`lookalike remove` accepts ids, keys and paths.
""",
    )
    locations.add_engine(listing)
    listing.add_argument("--class", dest="class_name", metavar="NAME", help="list only the images of this class")
    common.add_formats(listing)


# ---- info ------------------------------------------------------------------------------------------


def _info(options: argparse.Namespace) -> int:
    folder = locations.engine_folder(options.engine)
    engine = locations.load_without_extractor(folder)
    locations.note_missing(engine, folder)
    facts = _facts(folder, engine)
    if options.json:
        common.print_json(facts)
    else:
        _print_facts(facts)
    return OK


def _facts(folder: Path, engine: "Engine") -> dict[str, Any]:
    from helpers.search.persist.added_dates import added_dates
    from helpers.search.persist.delta import DeltaIndex
    from helpers.search.region_index import NoRegions, stored_source
    from helpers.search.word_index import CLASSES, NoClassScores, stored_classifier

    table, ids = engine.table, engine.index.ids
    names = table.class_names
    counts = Counter(names[label] for label in table.labels[ids].tolist() if label >= 0)
    dates = [date for date in added_dates(folder, ids) if date is not None]
    class_scores = regions = None
    with contextlib.suppress(NoClassScores):
        class_scores = stored_classifier(folder).name.removesuffix(CLASSES)
    with contextlib.suppress(NoRegions):
        regions = stored_source(folder).name
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return {
        "engine": str(folder.absolute()),
        "images": len(engine),
        "classes": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "source": table.source,
        "extractor": engine.extractor.name,
        "dim": engine.index.dim,
        "backend": engine.index.spec,
        "bytes": sum(sizes.values()),
        "index_bytes": sum(size for path, size in sizes.items() if path.match("vectors-*.index")),
        "first_added": _utc(min(dates, default=None)),
        "last_added": _utc(max(dates, default=None)),
        "changed": _utc(int(max(path.stat().st_mtime for path in folder.glob("engine.sqlite*")))),
        "pending_changes": engine.index.changes if isinstance(engine.index, DeltaIndex) else 0,
        "class_scores": class_scores,
        "regions": regions,
    }


def _print_facts(facts: dict[str, Any]) -> None:
    classes = [f"{name} {count:,}" for name, count in facts["classes"].items()]
    more = f", and {len(classes) - _CLASSES:,} more" if len(classes) > _CLASSES else ""
    pending = pluralize(facts["pending_changes"], "change")
    rows = [
        ("engine", facts["engine"]),
        ("images", f"{facts['images']:,}"),
        ("classes", f"{len(classes):,}: {', '.join(classes[:_CLASSES])}{more}" if classes else "none"),
        ("made from", facts["source"] or "unknown: not made by lookalike index"),
        ("extractor", f"{facts['extractor']}, {facts['dim']:,} numbers per image"),
        ("backend", facts["backend"]),
        ("size", f"{_megabytes(facts['bytes'])}, of which the index takes {_megabytes(facts['index_bytes'])}"),
        ("first added", _local(facts["first_added"])),
        ("last added", _local(facts["last_added"])),
        ("changed", _local(facts["changed"])),
        ("pending", f"{pending}; lookalike compact writes them" if facts["pending_changes"] else "no changes"),
        ("class scores", facts["class_scores"] or "none; lookalike classify computes them"),
        ("regions", facts["regions"] or "none; lookalike index --regions finds them"),
    ]
    for name, value in rows:
        print(f"{name:<12}  {printable(value)}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"


# ---- list ------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    import numpy as np

    from helpers.search.persist.added_dates import added_dates

    folder = locations.engine_folder(options.engine)
    engine = locations.load_without_extractor(folder)
    table, ids = engine.table, engine.index.ids
    if options.class_name is not None:
        label = table.class_label(options.class_name)
        if label is None:
            suggestion = did_you_mean(options.class_name, table.class_names)
            raise CommandError(
                f"{printable(folder)} has no class {printable(options.class_name)}{suggestion} "
                "`lookalike info --json` lists the classes"
            )
        ids = ids[table.labels[ids] == label]
    ids = np.sort(ids)
    keys = table.images.keys
    rows = [
        (id, keys[id], str(table.path(id)), table.class_name(id), _utc(date))
        for id, date in zip(ids.tolist(), added_dates(folder, ids), strict=True)
    ]
    if options.json:
        common.print_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    elif options.csv:
        common.print_csv(COLUMNS, rows)
    else:
        for id, _, path, class_name, added in rows:
            print(f"{id:6}  {_local(added):<16}  {printable(class_name or '–'):<20}  {printable(path)}")
    if not rows:
        of_class = "" if options.class_name is None else f" of the class {printable(options.class_name)}"
        log(f"{printable(folder)} holds no images{of_class}: add some with `lookalike add`")
        return NEGATIVE
    return OK


def _utc(seconds: int | None) -> str | None:
    """A time as text, such as "2026-01-31T12:30:00Z"; None if it is not known."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _local(utc: str | None) -> str:
    """A time of `_utc` for people, in the time zone of this computer."""
    return "unknown" if utc is None else f"{datetime.fromisoformat(utc).astimezone():%Y-%m-%d %H:%M}"
