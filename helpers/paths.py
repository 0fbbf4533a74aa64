"""Where everything lives, and the environment variables that move it.

No other module reads the environment.

==================  ==============================  ==========================================
variable            default                         meaning
==================  ==============================  ==========================================
LOOKALIKE_CACHE     see `cache_dir`                 downloads, data sets, weights, vectors
LOOKALIKE_MIRROR    none                            a folder of archives with a manifest.json
LOOKALIKE_FIGURES   see `figures_dir`               where notebooks write images and tables
ELASTICSEARCH_URL   none                            where a server is, for notebook 13 and tests
LOOKALIKE_API_KEY   none                            what changes over HTTP ask for, ``lookalike serve``
==================  ==============================  ==========================================

A service with several workers leaves them ``LOOKALIKE_SERVE`` and ``PROMETHEUS_MULTIPROC_DIR`` by itself.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

#: The checkout; of an installed package, the folder that it is installed in.
ROOT = Path(__file__).resolve().parent.parent

#: Whether the library runs from a checkout of the project, which has the notebooks, their figures and the sample.
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file() and (ROOT / "data" / "protocols").is_dir()


class NotInCheckout(FileNotFoundError):
    """Something comes with a checkout of the project only, and the library is installed without one."""


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser().resolve() if value else default


def checkout(what: str) -> Path:
    """The root folder of the checkout.

    what : what is needed from it; the subject of the error message, in the plural.

    Raises
    ------
    NotInCheckout : the library is installed without a checkout.
    """
    if not IN_CHECKOUT:
        raise NotInCheckout(
            f"{what} come with a checkout of the project and are not part of the installed package: clone the "
            "repository and run the command there, as its README.md describes"
        )
    return ROOT


def data_dir() -> Path:
    """Files that ship with the library: projections, vocabularies, protocols, the table of ImageNet's classes.

    In a checkout this is ``data``, which has the sample too. An installed package has a copy without the sample.
    """
    return ROOT / "data" if IN_CHECKOUT else Path(__file__).resolve().parent / "_data"


def cache_dir() -> Path:
    """Files that can be made again: downloads, unpacked data sets, weights, vectors.

    In a checkout this is ``data/cache``. For an installed package it is the user's cache folder, which is
    ``~/.cache/lookalike`` on Linux.
    """
    return _folder("LOOKALIKE_CACHE", ROOT / "data" / "cache" if IN_CHECKOUT else _user_cache())


def _user_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("lookalike", appauthor=False)


def mirror_dir() -> Path | None:
    """A folder of archives to use instead of the internet, or None (unset, empty or ``none``)."""
    value = os.environ.get("LOOKALIKE_MIRROR", "").strip()
    if value.lower() in ("", "none"):
        return None
    return Path(value).expanduser().resolve()


def protocols_dir() -> Path:
    """The frozen protocols, one JSON file each."""
    return data_dir() / "protocols"


def figures_dir() -> Path:
    """Images and tables that the notebooks write.

    In a checkout this is ``figures``; for an installed package, ``figures`` in the current folder.
    """
    return _folder("LOOKALIKE_FIGURES", ROOT / "figures" if IN_CHECKOUT else Path.cwd() / "figures")


def results_dir() -> Path:
    """One JSON file a notebook: what it ran on and what it measured."""
    return figures_dir() / "results"


def elasticsearch_address() -> str | None:
    """``host:port`` of the Elasticsearch server to use, or None (unset or empty).

    Raises
    ------
    ValueError : the variable holds anything but ``http://host:port``.
    """
    url = os.environ.get("ELASTICSEARCH_URL", "").strip().rstrip("/")
    if not url:
        return None
    scheme, _, address = url.partition("://")
    if scheme != "http" or not address or "@" in address or "/" in address:
        raise ValueError(
            f"ELASTICSEARCH_URL must be like http://127.0.0.1:9200, got {url.rpartition('@')[-1]!r}; for encryption "
            "and keys open elasticsearch://host:port/name?tls=1 after sign_in"
        )
    return address


def api_key() -> str | None:
    """What changes of a served index ask for, or None (unset or empty).

    Raises
    ------
    ValueError : it can't be sent in a header.
    """
    key = os.environ.get("LOOKALIKE_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("LOOKALIKE_API_KEY must be of plain ASCII letters, digits and signs: a header takes no others")
    return key or None


def serve_settings() -> str | None:
    """What `told_to_workers` left for this process, or None."""
    return os.environ.get("LOOKALIKE_SERVE") or None


def metrics_dir() -> Path | None:
    """Where the workers of a service keep what they count, or None where there is one process only."""
    value = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    return Path(value) if value else None


@contextlib.contextmanager
def told_to_workers(settings: str, metrics: Path) -> Iterator[None]:
    """Processes that are started meanwhile find the settings of a service, and a folder for what they count."""
    told = {"LOOKALIKE_SERVE": settings, "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def child_environment() -> dict[str, str]:
    """The environment for a Python process that has to import this library.

    An installed package is found without help, a checkout that is not installed is not.
    """
    environment = dict(os.environ)
    if IN_CHECKOUT:
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), others] if others else [str(ROOT)])
    return environment


def quiet_tensorflow() -> None:
    """TensorFlow's remarks on the processor are no news to anybody; errors still show. Before its first import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
