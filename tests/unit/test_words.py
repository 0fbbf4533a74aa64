"""No text of the project contains a retired word or British spelling; the lists have what to write instead."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from helpers import paths

#: Regular expression of words in lower case → what to write instead.
RETIRED = {
    r"pictur(?:e|es|ed|ing)": "image",
    r"describers?": "feature extractor",
    r"never counted": "ignored",
    r"queries apart|check apart": "disjoint",
    r"right answers": "relevant images, or relevance_mask",
    r"answer(?:s|ed|ing)?": "result, or response of a server",
    r"(?:un)?answerable": "with, or without, a relevant image",
    r"(?:asks|asked|asking) (?:for|of|again)|asks|asked|asking|may ask": "query, or request",
    r"second[ -]looks?": "re-ranking",
    r"lineage": "snapshot_id",
    r"catch(?:es)? up": "replay",
    r"journal": "write-ahead log",
    r"folded|folding|folds? into": "compact",
    r"grown|growing": "synthetic, or larger",
    r"ladders?|climb\w*": "comparison, compare",
    r"remarks?": "log, or note",
    r"referees?": "reference implementation, or baseline",
    r"seers?": "extractor",
    r"pupils?": "network",
    r"aloud": "with a message",
    r"in silence": "without a message",
    r"impatien\w+": "time-out",
    r"nobody|somebody|everybody": "no one that the reader knows: name the subject",
    r"(?:can't|cannot|could not|couldn't) be had": "is not available",
    r"that (?:is|are) none": "invalid, or NaN",
    r"the house": "the library",
    r"(?:may|does not|never) teach": "is for training",
    r"helpers[./](?:show|app|pictures|tools)": "the new package",
}

#: The same for British spelling.
BRITISH = {
    r"(?:colour|neighbour|favour|behaviour|honour|flavour)\w*": "-or",
    r"grey(?!hound| whale)\w*": "gray; the name of ImageNet's class is grey whale",
    r"(?:centre|metre|litre|fibre|theatre)[sd]?|centring": "-er",
    r"(?:learnt|spelt|burnt|dreamt)": "-ed",
    r"(?:normal|optim|general|recogn|random|quant|initial|visual|summar|organ|categor|minim|maxim|character|emphas|serial"
    r"|vector|token|special|standard|util|parallel|memor|local|synchron|custom|penal|regular|real|final|item|factor)"
    r"is(?:e|ed|es|er|ers|ing|ation|ations)": "-ize",
    r"(?:un)?(?:analys|paralys|catalys)(?:e|ed|er|ing)": "-yze",
    r"(?:un)?(?:label|model|travel|level|signal|channel)l(?:ed|ing)": "one l",
    r"(?:licence|defence|offence|pretence)s?": "-nse",
    r"(?:catalogue|artefact|programme|cheque|mould|tyre)s?": "catalog, artifact, program, check, mold, tire",
    r"(?:whilst|amongst|aluminium|judgement|ageing)": "while, among, aluminum, judgment, aging",
}

#: (path, line) as regular expressions → why the line may have such a word.
ALLOWED = {
    (r"notebooks/.*|helpers/lessons/exercise.*|tests/.*/test_course\.py", r"answer"): "of an exercise or question",
    (r".*", r"journal_mode|-journal"): "SQLite's name",
    (r"helpers/features/.*", r'"colour": "grey"|"normalise":|_IMAGES = "pictures"'): "in the keys of cached files",
}

TEXT = {".py", ".md", ".toml", ".sh", ".yml", ".yaml", ".js", ".css", ".html", ".txt"}
FOLDERS = ("helpers", "tests", "benchmarks", "notebooks", "figures", "data/protocols", ".ci")
FILES = ("README.md", "CONTRIBUTING.md", "pyproject.toml", "run_all.sh", "compose.yaml", "environment.yml")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a file; a notebook gives its sources by number of the cell, a protocol its description."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"], 1):
            yield from ((number, line) for line in "".join(cell["source"]).splitlines())
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if path.parent.name != "protocols" or line.startswith('"description"'):
                yield number, line


def text_files() -> list[Path]:
    """The files with text that people read; not from git, because unit tests start no process."""
    found = [paths.ROOT / name for name in FILES] + [
        path for pattern in ("*.py", "*.md", "sample/*.md") for path in sorted((paths.ROOT / "data").glob(pattern))
    ]
    for folder in FOLDERS:
        files = sorted(path for path in (paths.ROOT / folder).rglob("*") if path.is_file())
        suffixes = TEXT | {".ipynb", ".csv", ".json"} if folder in ("notebooks", "figures", "data/protocols") else TEXT
        found += [path for path in files if path.suffix in suffixes or path.parent.name == ".ci"]
    return [path for path in found if path != Path(__file__) and ".ipynb_checkpoints" not in path.parts]


def words_of(line: str) -> str:
    """A line in lower case, with identifiers divided into words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", line).lower()


def retired_words(path: str, lines: Iterable[tuple[int, str]], retired: dict[str, str]) -> list[str]:
    """``path:line: word, write: replacement`` of every retired word; in a notebook, the line is the cell's number."""
    allowed = [re.compile(line) for file, line in ALLOWED if re.fullmatch(file, path)]
    pattern = re.compile(rf"(?<![a-z])(?:{'|'.join(retired)})(?![a-z])")
    found = []
    for number, line in lines:
        for match in pattern.finditer(words_of(line)):
            if not any(each.search(line) for each in allowed):
                replacement = next(retired[each] for each in retired if re.fullmatch(each, match[0]))
                found.append(f"{path}:{number}: {match[0]!r}, write: {replacement}")
    return found


@pytest.mark.parametrize("retired", [RETIRED, BRITISH], ids=["retired words", "British spelling"])
def test_no_such_word(retired):
    found = []
    for path in text_files():
        name = path.relative_to(paths.ROOT).as_posix()
        found += retired_words(name, lines_of(path), retired) + retired_words(name, [(0, name)], retired)
    assert not found, "\n".join([f"{len(found)} words:", *found])


def test_the_test_finds_words():
    for line in ("class PictureSet:", "def read_pictures(path)", "a Picture", 'x = "picture"'):
        assert len(retired_words("a.py", [(7, line)], RETIRED)) == 1, line
    assert retired_words("a.py", [(7, "neverCounted")], RETIRED) == ["a.py:7: 'never counted', write: ignored"]
    for line in ("colour", "Neighbours", "normalise_l2", "analysing", "labelled", "greyscale", "centred"):
        assert len(retired_words("a.py", [(7, line)], BRITISH)) == 1, line
    for line in ("color", "greyhound", "aria-labelledby", "analysis", "noise", "otherwise", "precise", "finalist"):
        assert retired_words("a.py", [(7, line)], RETIRED | BRITISH) == [], line
    answer = [(7, "the right answer")]
    assert retired_words("notebooks/01_faces.ipynb", answer, RETIRED) == []
    assert len(retired_words("helpers/files.py", answer, RETIRED)) == 1


def messages_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings of a Python file, without docstrings; all lines of another file."""
    if path.suffix != ".py":
        yield from lines_of(path)
        return
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


def test_no_message_says_to_delete_files():
    """A file that is in the way may hold what cannot be made again. Moving it away helps as well."""
    advice = re.compile(r"\bdelete (?:it|them|the (?:files?|folders?|engine))\b|\brm -", re.I)
    files = [path for path in text_files() if path.suffix in TEXT and "tests" not in path.relative_to(paths.ROOT).parts]
    found = [f"{path}:{line}: {text}" for path in files for line, text in messages_of(path) if advice.search(text)]
    assert not found, "\n".join(found)
