"""The house of floors: a file imports only from floors below its own, and only paths.py reads the environment."""

import ast
from pathlib import Path

import pytest

from helpers import paths

HELPERS = paths.ROOT / "helpers"
FLOORS = {
    "paths": 0, "extras": 0, "pictures": 1, "networks": 2, "features": 3, "search": 4, "evaluation": 5, "show": 6,
    "app": 7, "commands": 8,
}  # fmt: skip
#: Modules that lie beside the floors: they start everything else.
TOP = {"course": 7, "cli": 9}
FILES = sorted(HELPERS.rglob("*.py"))


def floor_of(module: str) -> int:
    part = module.split(".")[1]
    return (FLOORS | TOP)[part]


def module_of(path: Path) -> str:
    parts = path.relative_to(HELPERS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> set[str]:
    """Modules of the project that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            found |= (
                {f"{node.module}.{name.name}" for name in node.names} if node.module == "helpers" else {node.module}
            )
    return {name for name in found if name.startswith("helpers.")}


def upward(module: str, source: str) -> list[str]:
    own = floor_of(module)
    same = module.split(".")[1]
    return [name for name in imported(source) if floor_of(name) >= own and name.split(".")[1] != same]


def reads_environment(source: str) -> bool:
    """Whether it asks for a variable; handing the whole environment on to a child process is no reading."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=asked) | ast.Compare(comparators=[asked]) if ast.unparse(asked) == "os.environ":
                return True
            case ast.Call(func=asked) if ast.unparse(asked).startswith(("os.environ.", "os.getenv")):
                return True
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {name.name for name in names}:
                return True
    return False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HELPERS).as_posix())
def test_imports_run_downwards(path):
    module = module_of(path)
    if module == "helpers":
        assert imported(path.read_text(encoding="utf-8")) == set()
    else:
        assert upward(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HELPERS).as_posix())
def test_only_paths_reads_the_environment(path):
    assert not reads_environment(path.read_text(encoding="utf-8")) or path == HELPERS / "paths.py"


def test_the_test_notices():
    assert upward("helpers.pictures.reading", "def f():\n    from helpers.search import index") == ["helpers.search"]
    assert upward("helpers.pictures.reading", "from helpers import evaluation") == ["helpers.evaluation"]
    assert upward("helpers.search.backends.exact", "from helpers.search import index\nfrom helpers import paths") == []
    assert upward("helpers.networks.zoo", "import helpers.features.store") == ["helpers.features.store"]
    assert upward("helpers.features.deep", "from helpers.networks import zoo\nimport numpy") == []
    for reading in ("os.environ['HOME']", "os.environ.pop('HOME')", "os.getenv('HOME')", "'HOME' in os.environ"):
        assert reads_environment(f"import os\nx = {reading}"), reading
    assert reads_environment("from os import environ")
    assert not reads_environment("import os\nx = os.environ | {'A': 'b'}")


def test_every_folder_has_a_floor():
    folders = {path.name for path in HELPERS.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(FLOORS)
