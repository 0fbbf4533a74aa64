"""A file imports only from floors below its own, no files import each other, only paths.py reads the environment."""

import ast
from pathlib import Path

import pytest

from helpers import paths

HELPERS = paths.ROOT / "helpers"
FLOORS = {
    "paths": 0, "extras": 0, "files": 0, "lazy": 0, "logs": 0, "loopback": 0, "text": 0, "vectors": 0, "images": 1,
    "networks": 2, "features": 3, "search": 4, "evaluation": 5, "visualization": 6, "picker": 7, "lessons": 8,
    "service": 9, "cli": 10,
}  # fmt: skip
FILES = sorted(HELPERS.rglob("*.py"))


def floor_of(module: str) -> int:
    part = module.split(".")[1]
    return FLOORS[part]


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


def imported_files(source: str, modules: set[str]) -> set[str]:
    """Those of ``modules`` that a file imports, also within functions; imports for type checkers do not count."""
    found, todo = set(), [ast.parse(source)]
    while todo:
        match todo.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                todo += orelse
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=module, names=names):
                # `from helpers.search import exact` imports a file, `from helpers.paths import ROOT` a name in one.
                found |= {full if (full := f"{module}.{name.name}") in modules else module for name in names}
            case node:
                todo += ast.iter_child_nodes(node)
    return found & modules


def cycles(sources: dict[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others; ``sources`` maps module to source."""
    imports = {module: imported_files(source, set(sources)) - {module} for module, source in sources.items()}
    reached = {}
    for module in imports:
        reached[module], todo = set(), [module]
        while todo:
            new = imports[todo.pop()] - reached[module]
            reached[module] |= new
            todo += new
    groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in imports}
    return sorted(sorted(group) for group in groups if group)


def upward(module: str, source: str) -> list[str]:
    own = floor_of(module)
    same = module.split(".")[1]
    return [name for name in imported(source) if floor_of(name) >= own and name.split(".")[1] != same]


def reads_environment(source: str) -> bool:
    """Whether it reads a variable. Passing the whole environment to a child process is allowed."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(value=target) | ast.Compare(comparators=[target]) if ast.unparse(target) == "os.environ":
                return True
            case ast.Call(func=target) if ast.unparse(target).startswith(("os.environ.", "os.getenv")):
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


def test_no_files_import_each_other():
    assert cycles({module_of(path): path.read_text(encoding="utf-8") for path in FILES}) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HELPERS).as_posix())
def test_only_paths_reads_the_environment(path):
    assert not reads_environment(path.read_text(encoding="utf-8")) or path == HELPERS / "paths.py"


def test_the_test_notices():
    assert upward("helpers.images.reading", "def f():\n    from helpers.search import index") == ["helpers.search"]
    assert upward("helpers.images.reading", "from helpers import evaluation") == ["helpers.evaluation"]
    assert upward("helpers.search.backends.exact", "from helpers.search import index\nfrom helpers import paths") == []
    assert upward("helpers.networks.zoo", "import helpers.features.store") == ["helpers.features.store"]
    assert upward("helpers.features.deep", "from helpers.networks import zoo\nimport numpy") == []
    for reading in ("os.environ['HOME']", "os.environ.pop('HOME')", "os.getenv('HOME')", "'HOME' in os.environ"):
        assert reads_environment(f"import os\nx = {reading}"), reading
    assert reads_environment("from os import environ")
    assert not reads_environment("import os\nx = os.environ | {'A': 'b'}")


def test_the_test_notices_cycles():
    lazy = {
        "h.a": "import h.b",
        "h.b": "def f():\n    from h import c",
        "h.c": "from h.a import x",
        "h.d": "import h.a",
    }
    assert cycles(lazy) == [["h.a", "h.b", "h.c"]]
    assert cycles(lazy | {"h.c": "if TYPE_CHECKING:\n    from h.a import x\nelse:\n    import os"}) == []
    assert cycles(lazy | {"h.c": "if TYPE_CHECKING:\n    pass\nelse:\n    import h.b"}) == [["h.b", "h.c"]]
    # A package's own file counts where names are taken from it, not where modules are.
    assert cycles({"h": "from h import a", "h.a": "from h import b", "h.b": ""}) == []
    assert cycles({"h": "from h.a import x", "h.a": "from h import y"}) == [["h", "h.a"]]


def test_every_folder_has_a_floor():
    folders = {path.name for path in HELPERS.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders <= set(FLOORS)
