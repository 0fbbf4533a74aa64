"""Public functions and methods of the library have complete type annotations."""

import ast
from collections.abc import Iterator

import pytest

from helpers import paths


def unannotated(tree: ast.AST, private: bool = False) -> Iterator[tuple[int, str]]:
    """The line of each public function, and the names that lack an annotation."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from unannotated(node, private or node.name.startswith("_"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if private or (node.name.startswith("_") and not node.name.startswith("__")):
                continue
            own = node.args
            every = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, [own.vararg, own.kwarg])]
            names = [each.arg for each in every if each.annotation is None and each.arg not in ("self", "cls")]
            if node.returns is None and node.name not in ("__init__", "__post_init__"):
                names.append("return")
            if names:
                yield node.lineno, f"{node.name}: {', '.join(names)}"


def test_public_functions_are_annotated():
    files = sorted((paths.ROOT / "helpers").rglob("*.py"))
    found = [
        f"{file.relative_to(paths.ROOT)}:{line}: {names}"
        for file in files
        for line, names in unannotated(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert len(files) > 300 and not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(a, *b, c: int) -> None: ...", ["f: a, b"]),
        ("class A:\n    def __init__(self, a): ...\n    def f(self): ...", ["__init__: a", "f: return"]),
        ("class _A:\n    def f(self): ...\ndef _f(a): ...\ndef f() -> int:\n    def g(a): ...", []),
    ],
)
def test_the_test_finds_what_is_missing(code, expected):
    assert [names for _, names in unannotated(ast.parse(code))] == expected
