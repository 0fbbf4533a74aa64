"""The report of a comparison as one HTML file: recommendation, scores, costs, and queries where methods differ."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from helpers.evaluation.comparison import METRICS, Comparison, MethodResult
from helpers.evaluation.comparison_tasks import CLASSES
from helpers.search.ranking import PAD
from helpers.visualization.report_page import definitions, page, table, text, thumbnail

#: Queries that are shown for the best method and its rival, and for each other method; methods that are shown.
SHOWN, SHOWN_OTHERS, OTHER_METHODS = 10, 4, 5
#: Results of a query that are shown.
RESULTS = 5

_STYLE = """
.card { border-left: .4rem solid var(--dot); }
.card h2 { margin-top: 0; } .card ul { margin: .5rem 0; padding-left: 1.2rem; } .word { display: inline-block; }
.plot { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr 3.5rem; gap: .4rem .8rem;
  align-items: center; font-size: .9rem; margin: .75rem 0; }
.plot > :first-child, .plot .name { overflow-wrap: anywhere; max-width: 16rem; }
.track { position: relative; height: 1.4rem; background: var(--card); border: 1px solid var(--line); }
.track i { position: absolute; display: block; }
.range { top: .35rem; height: .6rem; background: var(--bar); }
.mean { top: .1rem; height: 1.1rem; width: .25rem; margin-left: -.125rem; background: var(--dot); }
.chance { top: 0; bottom: 0; border-left: 2px dashed var(--bad); }
.plot .value { text-align: right; font-variant-numeric: tabular-nums; }
.query { display: grid; grid-template-columns: 8.5rem 1fr; gap: .75rem 1.25rem; }
.images { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .75rem; list-style: none;
  padding: 0; margin: .25rem 0 .75rem; }
.images li, figcaption { font-size: .75rem; line-height: 1.3; overflow-wrap: anywhere; }
.images img { height: 6.5rem; width: 100%; object-fit: contain; } .images li { border-top: .3rem solid var(--bad); }
.images li.relevant { border-top-color: var(--good); } figure { margin: 0; }
@media (max-width: 40rem) { .images { grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)); }
  .images img { height: 5rem; } .query { grid-template-columns: 1fr; } figure img { max-height: 8rem; width: auto; }
  .plot { grid-template-columns: 1fr 3.5rem; } .plot .name { grid-column: 1 / -1; margin-bottom: -.3rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""


def comparison_report(comparison: Comparison, content: Mapping[str, Any]) -> str:
    """The report as HTML, readable in light and dark mode, on phones, in print and by screen readers.

    content : what `helpers.evaluation.comparison_record.record` returns.
    """
    report = _Report(comparison, content)
    parts = [report.recommendation(), report.summary(), report.scores(), report.differences()]
    if comparison.task.changes:
        parts.append(report.changes())
    return page(report.title, [*parts, report.queries(), report.method()], _STYLE)


class _Report:
    """The parts of a report."""

    def __init__(self, comparison: Comparison, content: Mapping[str, Any]):
        self.comparison, self.content, self.task = comparison, content, comparison.task
        self.names = list(comparison.results)
        self.title = f"Comparison of {len(self.names)} methods on {self.task.images.name}"
        # An image is often a result of several queries. The file is read once.
        self.image = cache(lambda id: thumbnail(self.task.images.paths[id], self.task.images.keys[id]))

    def recommendation(self) -> str:
        found = self.comparison.recommendation
        heading = "No method is recommended" if found.method is None else f"Recommended: {text(found.method)}"
        sentences = "".join(f"<li>{text(sentence)}</li>" for sentence in found.sentences)
        return f'<section class="card"><h2>{heading}</h2><ul>{sentences}</ul></section>'

    def summary(self) -> str:
        task, images, duplicates = self.task, self.content["images"], self.content["duplicates"]
        drawn = images["compared"] + images["unreadable"]
        compared = f"{images['compared']:,}"
        if drawn < images["found"]:
            compared += f" of {images['found']:,}, drawn at random; the scores of all images may differ"
        if images["unreadable"]:
            compared += f"; {images['unreadable']:,} more cannot be read"
        rows = [("Images", compared), ("Queries", self._queries_text())]
        if task.kind == CLASSES:
            meaning = "an image is relevant if it has the class of the query (the name of its folder)"
        else:
            meaning = (
                "a query is a changed copy of an image, and only this image is relevant. This measures how well an "
                "image is found again, not whether results show similar things"
            )
        rows.append(("Measured", meaning))
        copies = f"{duplicates['count']:,} among the images (searched by {', '.join(duplicates['searched'])})"
        rows.append(("Duplicates", f"{copies}; copies of a query are ignored"))
        return definitions(rows)

    def _queries_text(self) -> str:
        task = self.task
        found = f"{len(task.protocol.queries):,}"
        if task.changes:
            found += f", made of {task.n_units:,} images"
        elif task.eligible > task.n_units:
            found += f", drawn from {task.eligible:,} possible ones"
        if task.alone:
            found += f"; {task.alone:,} images are not queries, because no other image has their class"
        return f"{found}; each searches {int(task.protocol.n_candidates.min()):,} or more images"

    def scores(self) -> str:
        results = self.comparison.results
        first = results[self.names[0]]
        rows = [self._row(name, one) for name, one in results.items()]
        for bound, mean in (("chance", first.scores.mean_chance), ("ceiling", first.scores.mean_ceiling)):
            rows.append((bound, *(f"{mean(metric):.3f}" for metric in METRICS), "", "", "", ""))
        counts = {one.images_per_second.timed for one in results.values()}
        timed = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        searches = max(one.query_milliseconds.timed for one in results.values())
        caption = (
            f"In brackets: 95 % intervals over queries. Images per second: from file to vector, with {timed} images. "
            f"Milliseconds: median of up to {searches} searches. Both on this computer."
        )
        columns = ("method", *METRICS, "images/s", "ms per query", "bytes per image", "numbers per vector")
        return f"<h2>Scores and costs</h2>{self._plot()}{table(caption, columns, rows)}"

    def _row(self, name: str, one: MethodResult) -> tuple[str, ...]:
        scores = (
            f"{one.scores.mean(m):.3f}<br><span class=soft>[{one.intervals[m].low:.3f}, {one.intervals[m].high:.3f}]"
            "</span>"
            for m in METRICS
        )
        speed, milliseconds = f"{one.images_per_second.value:.1f}", f"{one.query_milliseconds.value:.2f}"
        return text(name), *scores, speed, milliseconds, f"{one.bytes_per_image:,.0f}", f"{one.dim:,}"

    def _plot(self) -> str:
        """The mean and the interval of each method between 0 and 1."""
        metric, rows = METRICS[-1], []
        for name, one in self.comparison.results.items():
            (low, high), mean = one.intervals[metric], one.scores.mean(metric)
            chance = one.scores.mean_chance(metric)
            rows.append(
                f'<span class="name">{text(name)}</span><span class="track" role="img" aria-label="{metric} {mean:.3f}'
                f', interval {low:.3f} to {high:.3f}"><i class="range" style="left:{100 * low:.2f}%;width:'
                f'{100 * (high - low):.2f}%"></i><i class="mean" style="left:{100 * mean:.2f}%"></i>'
                f'<i class="chance" style="left:{100 * chance:.2f}%"></i></span><span class="value">{mean:.3f}</span>'
            )
        note = (
            f'<p class="soft">{metric} from 0 to 1: the mean, its 95 % interval, and the score of a random order '
            "(dashed).</p>"
        )
        return f'<div class="plot">{"".join(rows)}</div>{note}'

    def differences(self) -> str:
        best, rows = self.names[0], []
        for name in self.names[1:]:
            gap = self.comparison.differences[name, best]
            verdict = "cannot be told apart" if gap.includes_zero else "worse"
            rows.append((text(name), f"{gap.difference:+.3f}", f"[{gap.low:+.3f}, {gap.high:+.3f}]", verdict))
        caption = (
            "On the same queries. The intervals hold for all pairs of methods together (95 %), so they also hold for "
            "the method that is best on these queries."
        )
        columns = ("method", f"{METRICS[-1]} minus that of {text(best)}", "interval", "these queries show")
        return f"<h2>Differences from the best method</h2>{table(caption, columns, rows)}"

    def changes(self) -> str:
        found = self.comparison.recall_by_change()
        rows = [(text(change), *(f"{values[name]:.2f}" for name in self.names)) for change, values in found.items()]
        caption = "Share of the changed copies whose first result is the original"
        return f"<h2>Changes</h2>{table(caption, ('change', *map(text, self.names)), rows)}"

    def queries(self) -> str:
        best, rival = self.names[0], self.comparison.rival
        parts = [f"<h2>Queries where {text(best)} and {text(rival)} differ most</h2>", self._pair(best, rival, SHOWN)]
        others = [name for name in self.names[1:] if name != rival][:OTHER_METHODS]
        for name in others:
            shown = self._pair(best, name, SHOWN_OTHERS)
            parts.append(f"<details><summary>{text(best)} and {text(name)}</summary>{shown}</details>")
        return "\n".join(parts)

    def _pair(self, first: str, second: str, most: int) -> str:
        rows = self.comparison.disagreements(first, second, most).tolist()
        articles = [self._article(row, (first, second)) for row in rows]
        return "\n".join(articles) or "<p>None: their average precision is equal for each query.</p>"

    def _article(self, row: int, pair: tuple[str, str]) -> str:
        key = self.task.protocol.keys[self.task.protocol.queries[row]]
        lists = "".join(self._results(row, name) for name in pair)
        return (
            f'<article><h3>{text(key)}</h3><div class="query"><figure>{self._query(row, key)}<figcaption>the query'
            f"</figcaption></figure><div>{lists}</div></div></article>"
        )

    def _query(self, row: int, key: str) -> str:
        if self.task.changes:
            return thumbnail(lambda: self.task.pixels(row), key)
        return self.image(int(self.task.originals[row]))

    def _results(self, row: int, name: str) -> str:
        one, items = self.comparison.results[name], []
        for id, right in list(zip(one.first[row].tolist(), one.right[row].tolist(), strict=True))[:RESULTS]:
            if id != PAD:
                mark = "<span class=good>✓ relevant</span>" if right else "<span class=bad>✗ not relevant</span>"
                kind = ' class="relevant"' if right else ""
                items.append(f"<li{kind}>{self.image(id)}{mark}<br>{text(self.task.images.keys[id])}</li>")
        precision = one.scores.values[METRICS[-1]][row]
        return (
            f"<div><b>{text(name)}</b>: average precision {precision:.3f}</div><ul class=images>{''.join(items)}</ul>"
        )

    def method(self) -> str:
        """How the numbers were measured, and how to repeat it."""
        versions = ", ".join(f"{name} {number}" for name, number in self.content["versions"].items())
        computer = self.content["computer"]
        # An option must not be broken at its hyphens.
        words = " ".join(f'<span class="word">{text(word)}</span>' for word in self.content["command"].split(" "))
        if self.task.changes:
            units = "original images; they hold for changed copies of other such images"
        else:
            units = "queries; they hold for other queries of the same classes"
        rows = [
            ("Command", f"<code>{words}</code>"),
            ("Folder", text(self.content["folder"])),
            ("Seed", str(self.task.seed)),
            ("top-1, top-5", "share of the queries with a relevant image among the first 1 or 5 results"),
            ("mAP", "mean average precision: 1 if all relevant images come first, in each search"),
            ("Intervals", f"bootstrap with {self.content['resamples']:,} draws of {units}"),
            ("Cheaper", "less time per query from its file to the results; if that is similar, fewer bytes per image"),
            ("Versions", text(versions)),
            ("Computer", f"{text(computer['system'])}, {text(computer['processor'])}, {computer['cores']} cores"),
        ]  # fmt: skip
        return (
            f"<h2>How this was measured</h2>{definitions(rows)}<p class=soft>Scores repeat exactly, times do not.</p>"
        )
