"""Optional packages: the message about a missing one, and imports that must be checked."""

import ast
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers import extras, paths
from helpers.cli import main as cli
from helpers.cli.common import UNAVAILABLE

OPTIONAL = {module: name for name, extra in extras.EXTRAS.items() for module in extra.packages}


def test_no_message_about_installed_packages():
    assert extras.missing("serve") == ""
    extras.require("serve")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    expected = (
        "The service (`lookalike serve`) needs prometheus-client, which is not installed: "
        "pip install 'lookalike[serve]'"
    )
    assert extras.missing("serve") == expected
    assert extras.missing("serve", "uvicorn") == ""
    with pytest.raises(extras.MissingExtra) as error, extras.importing("serve"):
        raise AssertionError("the block is not entered")
    assert str(error.value) == expected


def test_a_module_without_a_spec_counts_as_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "annoy", type(sys)("annoy"))
    assert extras.missing("annoy") == ""


def test_a_module_that_belongs_to_no_extra_is_an_error():
    with pytest.raises(KeyError):
        extras.missing("serve", "numpy")


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("serve", "serve"),
        ("notebook 00 --run", "notebooks"),
        ("index . --extractor dlib-face", "faces"),
        ("index . --backend annoy:cosine", "annoy"),
        ("index . --backend milvus:x.db", "milvus"),
        ("index . --backend elasticsearch://127.0.0.1:9/x", "elasticsearch"),
        ("index . --backend opensearch://127.0.0.1:9/x", "opensearch"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(arguments, extra, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("image.png")
    for module in list(sys.modules):
        # As in a new process.
        backend = module.startswith("helpers.search.backends.") and extra in module
        if backend or module.startswith("helpers.service"):
            monkeypatch.delitem(sys.modules, module)
    for module in extras.EXTRAS[extra].packages:
        monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(arguments.split()) == UNAVAILABLE
    err = capsys.readouterr().err
    assert err.startswith(f"lookalike {arguments.split()[0]}: ") and err.count("\n") == 1
    assert f"pip install 'lookalike[{extra}]'" in err


def test_ray_is_named(monkeypatch):
    from helpers.features import distributed

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(extras.MissingExtra, match=r"needs ray, .*lookalike\[ray\]"), distributed.cluster():
        pass


def unguarded(source: str) -> set[str]:
    """Optional modules that a file imports without a check for their extra."""
    tree = ast.parse(source)
    checked = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("extras.importing", "extras.require")
    }
    return {module for module in imports(tree) if module in OPTIONAL and OPTIONAL[module] not in checked}


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def test_every_optional_import_is_checked():
    # The package helpers.service checks for all of its modules.
    service = Path("helpers", "service")
    files = {
        path.relative_to(paths.ROOT): path.read_text(encoding="utf-8") for path in paths.ROOT.glob("helpers/**/*.py")
    }
    package = files[service / "__init__.py"]
    assert unguarded(package) == set() and 'extras.require("serve")' in package
    allowed = {module for module, extra in OPTIONAL.items() if extra == "serve"}
    left = {path: unguarded(source) - (allowed if service in path.parents else set()) for path, source in files.items()}
    assert {path: found for path, found in left.items() if found} == {}


def test_the_test_notices():
    assert unguarded("def f():\n    import ray.data") == {"ray"}
    assert unguarded("with extras.importing('milvus'):\n    import grpc, fastapi") == {"fastapi"}
