"""The wheel: build it, install it into a new environment, and use it outside the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

from helpers import extras, paths
from helpers.cli.common import OK, UNAVAILABLE
from helpers.images import synthetic

#: The inputs of the build, which runs in a copy because it creates files.
SOURCES = ("helpers", "data", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the setuptools of this environment without a network."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source = paths.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("cache", "__pycache__"))
        else:
            shutil.copy(source, folder)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Run a program of an environment with the wheel, outside the checkout and with an empty HOME.

    The environment uses the packages of this one, except those of the extras, so that nothing is downloaded. It does
    not see the checkout, because Python ignores .pth files in a folder that a .pth file adds.
    """
    folder = tmp_path_factory.mktemp("outside")
    # This takes seconds, mostly to install pip, which environments made by uv lack.
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    site = sysconfig.get_path("purelib", vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    optional = sorted(module for extra in extras.EXTRAS.values() for module in extra.packages)
    base = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    hide = f"import sys; sys.modules.update(dict.fromkeys({optional}))"
    Path(site, "base.pth").write_text("\n".join([*base, hide]) + "\n")
    (folder / "home").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOOKALIKE_", "PYTHON", "XDG_"))}
    environment = kept | {"HOME": str(folder / "home")}

    def start(program, *arguments):
        command = [folder / "venv" / "bin" / program, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    start.folder = folder
    return start


def test_files_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(info).decode())
    assert {name.partition("/")[0] for name in names} == {"helpers", info.partition("/")[0]}
    modules = {path.relative_to(paths.ROOT).as_posix() for path in (paths.ROOT / "helpers").rglob("*.py")}
    pages = {
        path.relative_to(paths.ROOT).as_posix()
        for folder in ("service/page", "picker/static", "visualization/web")
        for path in (paths.ROOT / "helpers" / folder).iterdir()
    }
    assert len(pages) > 10 and modules | pages <= names
    data = {name.removeprefix("helpers/_data/") for name in names if name.startswith("helpers/_data/")}
    expected = {"imagenet_classes.csv", "audit_recall.csv"} | {
        path.relative_to(paths.data_dir()).as_posix()
        for folder in ("projections", "vocabularies", "protocols")
        for path in (paths.data_dir() / folder).iterdir()
    }
    assert data == expected
    # The images of the sample are GPL-2 and must not ship in the wheel.
    assert not [name for name in names if name.endswith((".jpg", ".png"))]
    assert metadata["License-Expression"] == "MIT" and info.replace("METADATA", "licenses/LICENSE") in names
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])


def test_index_and_search_outside_the_checkout(run):
    photos = run.folder / "photos"
    photos.mkdir()
    for number, pixels in enumerate(synthetic.photograph_like(10, 64)):
        Image.fromarray(pixels).save(photos / f"{number}.png")
    where = run("python", "-c", "from helpers import paths; print(paths.__file__, paths.cache_dir(), sep='\\n')")
    library, cache = map(Path, where.stdout.splitlines())
    assert run.folder / "venv" in library.parents and run.folder / "home" in cache.parents
    indexed = run("lookalike", "index", "photos", "--extractor", "hsv-histogram")
    assert (indexed.returncode, indexed.stdout.splitlines()[0]) == (
        OK, "my.engine: 10 images; hsv-histogram, exact:cosine; 10 extracted, 0 from the cache"
    ), indexed.stderr  # fmt: skip
    found = run("lookalike", "search", "photos/3.png", "-k", "10", "--json")
    assert found.returncode == OK, found.stderr
    results = json.loads(found.stdout)[0]["results"]
    assert Path(results[0]["path"]).name == "3.png" and results[0]["score"] == pytest.approx(1, abs=1e-6)
    assert len({result["path"] for result in results}) == 10
    assert any((run.folder / "home").rglob("*.sqlite")), "the vectors are in the user's cache"


def test_a_missing_extra_is_named(run):
    served = run("lookalike", "serve")
    assert served.returncode == UNAVAILABLE and served.stderr.count("\n") == 1
    assert "pip install 'lookalike[serve]'" in served.stderr


def test_the_data_files_are_found(run):
    """The library reads a projection, a vocabulary, a protocol and the classes of ImageNet."""
    code = (
        "from helpers.features.projection import Projection\n"
        "from helpers.features import vocabulary\n"
        "from helpers.evaluation import protocol_files\n"
        "from helpers import paths\n"
        "from helpers.images import imagenet\n"
        "Projection.load(paths.data_dir() / 'projections' / 'resnet50-gem.npz')\n"
        "vocabulary.shipped(64)\n"
        "protocol_files.frozen('lfw-leave-one-out')\n"
        "print(len(imagenet.classes()))\n"
    )
    done = run("python", "-c", code)
    assert (done.returncode, done.stdout) == (OK, "1000\n"), done.stderr


def test_a_compiled_network_is_trusted_without_the_sample(run):
    # Takes 4 seconds, mostly to import TensorFlow.
    code = (
        "import keras\n"
        "from helpers.networks.compiled import KerasNetwork, fastest\n"
        "layers = [keras.Input((24, 24, 3)), keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]\n"
        "reference = KerasNetwork(keras.Sequential(layers), lambda pixels: pixels, 24)\n"
        "print(type(fastest(lambda: reference, 'small')).__name__)\n"
    )
    done = run("python", "-c", code)
    assert done.stdout.split()[-1:] == ["CompiledNetwork"], done.stderr
