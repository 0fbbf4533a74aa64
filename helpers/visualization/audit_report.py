"""What an audit found, as one HTML file: the images are in it, and it needs no network and no script."""

import base64
import html
import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images import thumbnails
from helpers.images.duplicates import Audit, Pair
from helpers.images.reading import UnreadableImage

#: How a pair was found, in words.
WAYS = {
    "bytes": "equal files",
    "hash": "the same image, saved or resized again",
    "mirror": "mirrored",
    "crop": "one is cut out of the other",
}
#: Groups of copies that are shown with images; more are listed by name.
MOST = 200

_SIDE = 180
# Text on these backgrounds has a contrast of at least 7 in both schemes.
_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #ffffff; --card: #f3f3f1; --line: #8a8a86; --leak: #8c1d18;
  --soft: #4a4a48; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ededeb; --back: #161616; --card: #232323; --line: #80807c; --leak: #ffb4ab; --soft: #c4c4c0; } }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  margin: .75rem 0; }
article.leak { border-left: .4rem solid var(--leak); }
.images { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0; margin: 0 0 .5rem; }
.images li { max-width: 12rem; overflow-wrap: anywhere; font-size: .85rem; }
.images img, .missing { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); }
.missing { padding: 2rem .5rem; color: #1b1b1b; }
.side { font-weight: 600; } .soft { color: var(--soft); } .warn { color: var(--leak); font-weight: 600; }
table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; vertical-align: top; overflow-wrap: anywhere; }
thead th, tbody tr { border-bottom: 1px solid var(--line); }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; }
"""


def audit_report(found: Audit, sides: Sequence[str] | None = None) -> str:
    """The report as HTML, readable in a light and a dark browser, on paper and by a screen reader.

    Images that are one stand together, leaks first, then copies of different classes, then all others.

    sides : the side of each image, such as "train" and "test"; pairs across them are called leaks.
    """
    sides = None if sides is None else np.asarray(sides)
    leaks = set() if sides is None else set(found.across(sides))
    groups = _groups(found, leaks)
    shown = groups[:MOST]
    parts = [_summary(found, sides, leaks)]
    leaking = [group for group in shown if any(pair in leaks for pair in group)]
    others = [group for group in shown if not any(pair in leaks for pair in group)]
    if sides is not None:
        parts.append("<h2>Leaks</h2>")
        parts += [_article(found, group, sides, leaks, number) for number, group in enumerate(leaking, start=1)]
        parts += [] if leaking else ["<p>None: no image stands on more than one side.</p>"]
    parts.append(f"<h2>{'Duplicates' if sides is None else 'Duplicates within one side'}</h2>")
    parts += [_article(found, group, sides, leaks, number) for number, group in enumerate(others, len(leaking) + 1)]
    parts += [] if others else ["<p>None.</p>"]
    if len(groups) > MOST:
        parts.append(_rest(found, groups[MOST:], leaks))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Audit of {_text(found.images.name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Audit of {_text(found.images.name)}</h1>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _groups(found: Audit, leaks: set[Pair]) -> list[list[Pair]]:
    """Pairs that hang together, those with a leak first, then those whose classes differ."""
    number, labels = found.groups(), found.images.labels
    groups: dict[int, list[Pair]] = {}
    for pair in found.pairs:
        groups.setdefault(int(number[pair.first]), []).append(pair)

    def rank(group):
        return (
            not any(pair in leaks for pair in group),
            not any(labels[pair.first] != labels[pair.second] for pair in group),
            group[0].first,
        )

    return sorted(groups.values(), key=rank)


def _summary(found: Audit, sides: np.ndarray | None, leaks: set[Pair]) -> str:
    labels = found.images.labels
    differ = sum(bool(labels[pair.first] != labels[pair.second]) for pair in found.pairs)
    rows = [("Images", f"{len(found.images):,}")]
    if sides is not None:
        rows.append(("Sides", ", ".join(f"{name}: {int((sides == name).sum()):,}" for name in dict.fromkeys(sides))))
        rows.append(("Leaks", f"{len(leaks):,} pairs with an image on each side"))
    rows.append(("Pairs that are one image", f"{len(found):,}, of these {differ:,} of different classes"))
    for how in found.searched:
        rows.append((f"Found by {how}", f"{sum(pair.how == how for pair in found.pairs):,} ({WAYS[how]})"))
    if "crop" not in found.searched:
        rows.append(("Not searched for", "crops, which need an extractor"))
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows) + "</dl>"


def _article(found: Audit, group: list[Pair], sides: np.ndarray | None, leaks: set[Pair], number: int) -> str:
    images = found.images
    rows = sorted({row for pair in group for row in (pair.first, pair.second)})
    leak = any(pair in leaks for pair in group)
    classes = {images.class_name(row) for row in rows}
    heading = f"{number}. {len(rows)} images that are one"
    notes = (["leak"] if leak else []) + (["classes differ"] if len(classes) > 1 else [])
    marked = f'{heading} <span class="warn">{" · ".join(notes)}</span>' if notes else heading
    figures = "".join(_image(found, row, sides) for row in rows)
    lines = "".join(
        f"<tr><td>{_text(images.keys[pair.first])}</td><td>{_text(images.keys[pair.second])}</td>"
        f"<td>{WAYS[pair.how]}</td><td>{pair.correlation:.3f}</td></tr>"
        for pair in group
    )
    return (
        f'<article{" class=leak" if leak else ""}><h3>{marked}</h3>\n<ul class="images">{figures}</ul>\n'
        f"<table><caption>How they were found</caption><thead><tr><th scope=col>first</th><th scope=col>second</th>"
        f"<th scope=col>how</th><th scope=col>correlation</th></tr></thead><tbody>{lines}</tbody></table></article>"
    )


def _image(found: Audit, row: int, sides: np.ndarray | None) -> str:
    images = found.images
    side = "" if sides is None else f'<span class="side">{_text(sides[row])}</span> · '
    name = "of no class" if images.labels[row] < 0 else images.class_name(row)
    return (
        f"<li>{_thumbnail(images.paths[row], images.keys[row])}{side}{_text(images.keys[row])}"
        f'<br><span class="soft">{_text(name)}</span></li>'
    )


def _thumbnail(path: Path, key: str) -> str:
    try:
        content = thumbnails.render(path, _SIDE, quality=80)
    except UnreadableImage:
        return '<span class="missing">can’t be read any more</span>'
    data = base64.b64encode(content).decode()
    width, height = Image.open(io.BytesIO(content)).size
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{_text(key)}">'


def _rest(found: Audit, groups: list[list[Pair]], leaks: set[Pair]) -> str:
    keys = found.images.keys
    lines = "".join(
        f"<tr><td>{_text(keys[pair.first])}</td><td>{_text(keys[pair.second])}</td><td>{WAYS[pair.how]}</td>"
        f"<td>{pair.correlation:.3f}</td><td>{'leak' if pair in leaks else ''}</td></tr>"
        for group in groups
        for pair in group
    )
    return (
        f"<h2>{len(groups):,} more groups</h2>\n<table><caption>Without images, to keep this file small</caption>"
        "<thead><tr><th scope=col>first</th><th scope=col>second</th><th scope=col>how</th>"
        f"<th scope=col>correlation</th><th scope=col>leak</th></tr></thead><tbody>{lines}</tbody></table>"
    )


def _text(value: object) -> str:
    """Escaped; control characters and bytes that are no text are written as escapes."""
    visible = "".join(repr(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(value))
    return html.escape(visible)
