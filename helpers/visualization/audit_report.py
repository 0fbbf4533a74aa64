"""The report of an audit as one HTML file with all images in it; it needs no network and no scripts."""

import html
from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path

from helpers.images.copies import RULE, best_copy, describe, details_of
from helpers.images.duplicates import Audit, Pair, recall
from helpers.visualization.report_page import definitions, page, text, thumbnail

#: `Pair.how` → its description.
METHODS = {
    "bytes": "identical files",
    "hash": "the same image, saved or resized again",
    "mirror": "mirrored",
    "crop": "one is a crop of the other",
}
#: Groups of copies that are shown with images, and images of each group; the others are listed by name.
MAX_GROUPS, MAX_IMAGES = 200, 8

_SIDE = 180
_STYLE = """
article.leak { border-left: .4rem solid var(--bad); }
.images { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0; margin: 0 0 .5rem; }
.images li { width: 12rem; overflow-wrap: anywhere; font-size: .85rem; } .images a, td a { color: inherit; }
.images .soft { font-size: inherit; } .side, .bad { font-weight: 600; }
.keep { display: inline-block; color: var(--back); background: var(--good); border-radius: .25rem; padding: 0 .4rem;
  font-weight: 600; }
table { width: 100%; } th, td { padding: .2rem .6rem .2rem 0; overflow-wrap: anywhere; }
@media (min-width: 30rem) { th { overflow-wrap: normal; } }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
"""


class _Report:
    """The parts of a report: the duplicates in groups, leaks first, then duplicates of different classes."""

    def __init__(self, found: Audit, names: Sequence[str]):
        self.found, self.images, self.names = found, found.images, names
        self.leaks = set(found.leaks)
        # Leaks first, so that they are shown even if the group has many images.
        pairs = sorted(found.pairs, key=lambda pair: (pair.first, pair not in self.leaks))
        self.groups = sorted(
            (list(group) for _, group in groupby(pairs, key=attrgetter("first"))),
            key=lambda group: (not self.leaking(group), not any(map(self.differs, group))),
        )

    def leaking(self, group: Iterable[Pair]) -> bool:
        return any(pair in self.leaks for pair in group)

    def differs(self, pair: Pair) -> bool:
        """Whether the two images have different classes."""
        return bool(self.images.labels[pair.first] != self.images.labels[pair.second])

    def summary(self) -> str:
        found = self.found
        rows = [("Images", f"{len(self.images):,}")]
        if found.sides is not None:
            counts = (f"{name}: {int((found.sides == side).sum()):,}" for side, name in enumerate(self.names))
            rows.append(("Sides", ", ".join(counts)))
            rows.append(("Leaks", f"{len(self.leaks):,} (duplicates of an image on another side)"))
        differ = sum(map(self.differs, found.pairs))
        rows.append(
            (
                "Duplicates",
                f"{len(found):,} in {len(self.groups):,} groups; {differ:,} duplicates have another class than the "
                "first image of their group",
            )
        )
        for how in found.searched:
            count = sum(pair.how == how for pair in found.pairs)
            rows.append((f"Found by {how}", f"{count:,} ({METHODS[how]})"))
        if len(found):
            rows.append(
                ("Keep", f"{RULE}. Look before you delete: an enlarged copy has more pixels, but no more detail")
            )
        if "crop" not in found.searched:
            rows.append(("Not searched", "crops, which need an extractor"))
        return definitions((text(name), text(value)) for name, value in rows)

    def article(self, number: int, group: list[Pair]) -> str:
        rows = [group[0].first, *(pair.second for pair in group)]
        keep = best_copy(self.images, rows)
        # The copy to keep is shown, even if the group has many images.
        shown = list(dict.fromkeys([*rows[: MAX_IMAGES - 1], keep, *rows[MAX_IMAGES - 1 :]]))[:MAX_IMAGES]
        leak = self.leaking(group)
        notes = ["leak"] * leak + ["classes differ"] * any(map(self.differs, group))
        heading = f"{number}. {len(rows):,} copies of one image"
        if notes:
            heading += f' <span class="bad">{" · ".join(notes)}</span>'
        hidden = f"<p>{len(rows) - MAX_IMAGES:,} more images are not shown.</p>" if len(rows) > MAX_IMAGES else ""
        return (
            f"<article{' class=leak' if leak else ''}><h3>{heading}</h3>\n"
            f'<ul class="images">{"".join(self.image(row, row == keep) for row in shown)}</ul>\n'
            f"{hidden}{self.table('How they were found', group)}</article>"
        )

    def image(self, row: int, keep: bool) -> str:
        """An image with its whole name, which is a link to the file, its class and its size."""
        sides = self.found.sides
        side = "" if sides is None else f'<span class="side">{text(self.names[sides[row]])}</span> · '
        name = "no class" if self.images.labels[row] < 0 else self.images.class_name(row)
        path, key = self.images.paths[row], self.images.keys[row]
        mark = '<span class="keep">keep</span> ' if keep else ""
        facts = describe(details_of(path))
        return (
            f'<li><a href="{_link(path)}">{thumbnail(path, key, _SIDE, quality=80)}</a>{mark}{side}{self.name(row)}'
            f'<br><span class="soft">{text(name)}<br>{facts}</span></li>'
        )

    def name(self, row: int) -> str:
        """The whole name of an image, as a link to its file."""
        return f'<a href="{_link(self.images.paths[row])}">{text(self.images.keys[row])}</a>'

    def table(self, caption: str, pairs: Iterable[Pair]) -> str:
        """One line for each duplicate, with the image of its group that it was compared with."""
        columns = ["duplicate", "size", "compared with", "how", "correlation", *(["leak"] if self.leaks else [])]
        lines = []
        for pair in pairs:
            facts, leak = describe(details_of(self.images.paths[pair.second])), "leak" if pair in self.leaks else ""
            names = self.name(pair.second), facts, self.name(pair.compared)
            lines.append([*names, METHODS[pair.how], f"{pair.correlation:.3f}", leak][: len(columns)])
        return _table(caption, columns, lines)


def audit_report(found: Audit, names: Sequence[str] = ()) -> str:
    """The report as HTML, readable in light and dark mode, in print and by screen readers.

    Copies of one image form a group: leaks first, then copies of different classes, then all others. Its size grows
    with the number of duplicates, not with the number of pairs.

    names : the names of the sides, such as "train" and "test"; none if the audit has no sides.
    """
    report = _Report(found, names)
    shown = report.groups[:MAX_GROUPS]
    articles = [report.article(number, group) for number, group in enumerate(shown, start=1)]
    leaks = sum(map(report.leaking, shown))
    parts = [report.summary()]
    if found.sides is not None:
        parts += ["<h2>Leaks</h2>", *(articles[:leaks] or ["<p>None: no image is on more than one side.</p>"])]
    parts.append(f"<h2>{'Duplicates' if found.sides is None else 'Duplicates within one side'}</h2>")
    rest = report.groups[MAX_GROUPS:]
    others = "None." if all(map(report.leaking, rest)) else "They are in the table of the other groups below."
    parts += articles[leaks:] or [f"<p>{others}</p>"]
    if rest:
        table = report.table("Without images, to keep this file small", chain(*rest))
        parts.append(f"<h2>{len(rest):,} more groups</h2>\n{table}")
    parts.append(_limits(found))
    return page(f"Audit of {found.images.name}", parts, _STYLE)


def _limits(found: Audit) -> str:
    """Which changed copies an audit finds, as it was measured."""
    table = recall(found.searched)
    lines = [
        [text(row.change), row.level, f"{row.recall:.2f}", str(row.false_alarms)]
        for row in table.sort_values("recall", ascending=False, kind="stable").itertuples()
    ]
    sentences = (
        f"In a test, {table['images'].iloc[0]} photographs were audited together with one changed copy of each. The "
        "recall is the share of the copies that were found in the group of their original. False alarms are copies "
        "in a group with another photograph or its copy."
    )
    if "crop" in found.searched:
        sentences += " The search for crops used ResNet50."
    columns = ("change", "result", "recall", "false alarms")
    return f"<h2>What this audit can find</h2>\n<p>{sentences}</p>\n{_table('Recall by change', columns, lines)}"


def _table(caption: str, columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML."""
    header = "".join(f"<th scope=col>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><caption>{caption}</caption><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _link(path: Path) -> str:
    """The address of a file on this computer."""
    return html.escape(path.absolute().as_uri())
