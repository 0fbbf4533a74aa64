"""Parts of reports as one HTML file: the page, tables and embedded images. It needs no network and no scripts."""

import base64
import html
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images import thumbnails
from helpers.images.reading import UnreadableImage
from helpers.text import printable

# The contrast of text is at least 7 : 1 in both color schemes.
STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #ffffff; --card: #f3f3f1; --line: #8a8a86; --soft: #4a4a48;
  --good: #0b5a2b; --bad: #8c1d18; --bar: #7aa7d8; --dot: #12467f; }
@media (prefers-color-scheme: dark) { :root { --text: #ededeb; --back: #161616; --card: #232323; --line: #80807c;
  --soft: #c4c4c0; --good: #8fdca8; --bad: #ffb4ab; --bar: #3d6a9c; --dot: #b9d7f7; } }
@media print { :root { color-scheme: light; --text: #000000; --back: #ffffff; --card: #ffffff; --soft: #333333;
  --good: #0b5a2b; --bad: #8c1d18; --bar: #7aa7d8; --dot: #12467f; } article, figure, tr { break-inside: avoid; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 0 auto; padding: 1rem; print-color-adjust: exact; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; } p { margin: .5rem 0; }
code { font-size: .85rem; overflow-wrap: anywhere; }
.card, article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  margin: .75rem 0; }
.soft { color: var(--soft); font-size: .9rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; min-width: 60%; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th.number { white-space: normal; } thead th { border-bottom: 1px solid var(--text); vertical-align: bottom; }
tbody tr { border-bottom: 1px solid var(--line); } tbody th { font-weight: 600; min-width: 6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); }
.missing { display: block; padding: 1rem .5rem; border: 1px solid var(--line); }
summary { cursor: pointer; font-weight: 600; padding: .5rem 0; }
"""


def page(title: str, parts: Iterable[str], style: str) -> str:
    """A whole page. title : text. parts : HTML. style : CSS that follows `STYLE`."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Text for HTML."""
    return html.escape(printable(value))


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names and their values, both HTML."""
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def table(caption: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of HTML: the first cell of a row is its name, the others are numbers. Narrow screens scroll it."""
    header = "".join(
        f"<th scope=col{' class=number' if position else ''}>{column}</th>" for position, column in enumerate(columns)
    )
    body = "".join(
        f"<tr><th scope=row>{name}</th>" + "".join(f"<td class=number>{cell}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    label = html.escape(caption, quote=True)
    # The caption is outside of the part that scrolls.
    return (
        f'<p class="soft">{caption}</p>\n<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def thumbnail(image: Path | Callable[[], np.ndarray], alternative: str, longest: int = 128, quality: int = 75) -> str:
    """An image that is embedded in the page, or a note if it is not readable.

    image : a file, or a function that returns uint8 (height, width, 3). alternative : text for those who do not see it.
    """
    try:
        if callable(image):
            content = thumbnails.encode(image(), longest, quality)
        else:
            content = thumbnails.render(image, longest, quality)
    except UnreadableImage:
        return '<span class="missing">no longer readable</span>'
    data = base64.b64encode(content).decode()
    width, height = Image.open(io.BytesIO(content)).size
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{text(alternative)}">'
