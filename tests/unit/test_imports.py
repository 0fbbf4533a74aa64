"""Fast start: importing a module loads no large library, unless the module is about this library."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import evaluation, paths
from helpers.evaluation.protocol import Protocol

HELPERS = paths.ROOT / "helpers"
MODULES = {
    ".".join(path.relative_to(paths.ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(HELPERS.rglob("*.py"))
}

#: Packages whose import takes a tenth of a second or more.
LARGE = {
    "IPython", "anywidget", "cv2", "dlib", "elasticsearch", "faiss", "fastapi", "ipywidgets", "joblib", "keras",
    "matplotlib", "nbformat", "opensearchpy", "openvino", "pandas", "prometheus_client", "pydantic", "pymilvus",
    "ray", "requests", "scipy", "sklearn", "starlette", "tensorflow", "usearch", "uvicorn",
}  # fmt: skip

#: Modules about such a package, which are imported where they are used. A package includes all of its modules.
ABOUT_A_LIBRARY = {
    "helpers.service",  # the web service
    "helpers.lessons",  # what only notebooks use
    "helpers.picker",  # a widget
    "helpers.visualization",  # figures and tables
    "helpers.networks.callbacks",  # Keras callbacks
    "helpers.networks.trial_actors",  # a Ray Tune trainable
    "helpers.networks.losses",  # Keras layers and losses
    "helpers.networks.word_maps",  # a Keras loss
    "helpers.images.augmentation",  # Keras layers
    "helpers.search.backends.elasticsearch_backend",
    "helpers.search.backends.faiss_backend",
    "helpers.search.backends.milvus_backend",
    "helpers.search.backends.opensearch_backend",
    "helpers.search.backends.sklearn_backend",
    "helpers.search.backends.usearch_backend",
}


def is_light(module: str) -> bool:
    parts = module.split(".")
    return not any(".".join(parts[:end]) in ABOUT_A_LIBRARY for end in range(1, len(parts) + 1))


def at_import(tree: ast.AST) -> Iterator[str]:
    """Modules that are imported together with the module: not in functions, not for type checkers."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from at_import(ast.Module(node.orelse, []))
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names):
                # `from helpers.search import exact` imports a module, `from helpers.paths import ROOT` a name.
                yield from (full if (full := f"{module}.{name.name}") in MODULES else module for name in names)
            case _:
                yield from at_import(node)


def problems(source: str) -> list[str]:
    """Large packages, and modules of the project about one, that a source imports at the top level."""
    return [
        name
        for name in at_import(ast.parse(source))
        if (not is_light(name) if name.startswith("helpers") else name.split(".")[0] in LARGE)
    ]


@pytest.mark.parametrize("module", [name for name in MODULES if is_light(name)])
def test_a_module_imports_no_large_package(module):
    assert problems(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", sorted(ABOUT_A_LIBRARY))
def test_the_exceptions_are_needed(module):
    sources = [
        path.read_text(encoding="utf-8") for name, path in MODULES.items() if f"{name}.".startswith(f"{module}.")
    ]
    assert any(problems(source) for source in sources)


def test_the_test_notices():
    for source in (
        "import pandas as pd",
        "from scipy.special import softmax",
        "import matplotlib.pyplot as plt",
        "try:\n    import cv2\nexcept ImportError:\n    cv2 = None",
        "class A:\n    import faiss",
        "from helpers.visualization import curves",
        "from helpers.visualization.grids import RIGHT",
    ):
        assert len(problems(source)) == 1, source
    for source in (
        "import numpy as np\nfrom helpers.evaluation import metrics",
        "def f():\n    import pandas as pd",
        "class A:\n    def f(self):\n        from sklearn.decomposition import PCA",
        "if TYPE_CHECKING:\n    import keras",
    ):
        assert problems(source) == [], source


def exported(path: Path) -> Iterator[tuple[Path, str]]:
    """The file and the name of each name that a package exports by `helpers.lazy.exports`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lazy.exports":
            for module, names in ast.literal_eval(node.args[1]).items():
                file = path.parent.joinpath(*module.split(".")).with_suffix(".py")
                yield from ((file if file.exists() else file.with_suffix("") / "__init__.py", name) for name in names)


def defined(path: Path) -> set[str]:
    """The names that a file defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=names):
                found |= {each.asname or each.name for each in names}
    return found


def test_packages_export_only_names_that_exist():
    names = [each for path in HELPERS.rglob("__init__.py") for each in exported(path)]
    assert len(names) > 100
    assert not [(path.name, name) for path, name in names if name not in defined(path)]


def test_an_unknown_name_of_a_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'helpers\.evaluation' has no attribute 'nothing'"):
        evaluation.nothing  # noqa: B018
    assert evaluation.Protocol is Protocol and "Protocol" in evaluation.__all__
