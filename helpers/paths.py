"""File locations and environment variables; no other module reads the environment.

==================  =================  ====================================================
variable            default            meaning
==================  =================  ====================================================
LOOKALIKE_CACHE     see `cache_dir`    downloads, data sets, weights, vectors
LOOKALIKE_MIRROR    none               a folder of archives with a manifest.json
LOOKALIKE_FIGURES   see `figures_dir`  where notebooks write images and tables
LOOKALIKE_CHECK     none               ``1``: a notebook stops if a number differs from its text
CI                  none               set by most CI services; the same as LOOKALIKE_CHECK
ELASTICSEARCH_URL   none               address of a server, for notebook 18 and tests
OPENSEARCH_URL      none               address of a server, for notebook 18
LOOKALIKE_API_KEY   none               key required for changes, for ``lookalike serve``
LOOKALIKE_READ_KEY  none               key required for reading, for ``lookalike serve``
==================  =================  ====================================================

A service with several workers sets ``LOOKALIKE_SERVE``, ``LOOKALIKE_LOG_LEVEL`` and ``PROMETHEUS_MULTIPROC_DIR`` for
them.
`bypass_proxies_on_loopback` extends ``NO_PROXY``.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

#: The root of the checkout, or the folder that the package is installed in.
ROOT = Path(__file__).resolve().parent.parent

#: TensorFlow's environment variables, with the library's defaults: a log level that shows only errors (TensorFlow still
#: prints some lines when it starts), and oneDNN, which TensorFlow uses by default on some processors only. On others,
#: training takes 1.2 to 2 times as long without it.
TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1"}

#: Whether the library runs from a checkout of the project, with notebooks, figures and the sample.
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file() and (ROOT / "data" / "protocols").is_dir()


class NotInCheckout(FileNotFoundError):
    """A file exists only in a checkout of the project, and the library is installed without one."""


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser().resolve() if value else default


def checkout(what: str) -> Path:
    """The root folder of the checkout. Raises `NotInCheckout` if the library is installed without one.

    what : what is needed from it; the subject of the error message, in the plural.
    """
    if not IN_CHECKOUT:
        raise NotInCheckout(
            f"{what} come with a checkout of the project and are not part of the installed package: clone the "
            "repository and run the command there, as its README.md describes"
        )
    return ROOT


def data_dir() -> Path:
    """Files that ship with the library: projections, vocabularies, protocols, and tables (ImageNet's classes, audits).

    In a checkout this is ``data``, which also has the sample. An installed package has a copy without the sample.
    """
    return ROOT / "data" if IN_CHECKOUT else Path(__file__).resolve().parent / "_data"


def cache_dir() -> Path:
    """Files that can be created again: downloads, unpacked data sets, weights, vectors.

    In a checkout this is ``data/cache``. For an installed package it is the user's cache folder, which is
    ``~/.cache/lookalike`` on Linux.
    """
    if IN_CHECKOUT:
        return _folder("LOOKALIKE_CACHE", ROOT / "data" / "cache")
    from platformdirs import user_cache_path

    return _folder("LOOKALIKE_CACHE", user_cache_path("lookalike", appauthor=False))


def mirror_dir() -> Path | None:
    """A folder of archives to use instead of the internet, or None (unset, empty or ``none``)."""
    value = os.environ.get("LOOKALIKE_MIRROR", "").strip()
    return None if value.lower() in ("", "none") else Path(value).expanduser().resolve()


def package_version() -> str:
    """The version of this package, such as "0.1.0": of the checkout, or else of the installed package."""
    if not IN_CHECKOUT:
        from importlib import metadata

        return metadata.version("lookalike")
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["version"]


def protocols_dir() -> Path:
    """The frozen protocols, one JSON file each."""
    return data_dir() / "protocols"


def figures_dir() -> Path:
    """Images and tables that the notebooks write.

    In a checkout this is ``build/figures``, so that running a notebook by hand changes no tracked file. ``run_all.sh
    --save`` writes to `committed_figures_dir`. For an installed package it is ``figures`` in the current folder.
    """
    return _folder("LOOKALIKE_FIGURES", ROOT / "build" / "figures" if IN_CHECKOUT else Path.cwd() / "figures")


def committed_figures_dir() -> Path:
    """The images and tables of the last saved run, which come with a checkout."""
    return ROOT / "figures"


def checks_numbers() -> bool:
    """Whether a notebook stops if a number differs from its text, as CI wants; otherwise it prints a note."""
    return any(os.environ.get(name, "").strip().lower() not in ("", "0", "false") for name in ("LOOKALIKE_CHECK", "CI"))


def elasticsearch_address() -> str | None:
    """``host:port`` of the Elasticsearch server to use, or None (unset or empty).

    Raises ValueError if the variable is not of the form ``http://host:port``.
    """
    return _server_address("elasticsearch")


def opensearch_address() -> str | None:
    """``host:port`` of the OpenSearch server to use; see `elasticsearch_address`."""
    return _server_address("opensearch")


def _server_address(scheme_of_index: str) -> str | None:
    variable = f"{scheme_of_index.upper()}_URL"
    url = os.environ.get(variable, "").strip().rstrip("/")
    if not url:
        return None
    scheme, _, address = url.partition("://")
    if scheme != "http" or not address or "@" in address or "/" in address:
        raise ValueError(
            f"{variable} must be like http://127.0.0.1:9200, got {url.rpartition('@')[-1]!r}; for encryption "
            f"and keys open {scheme_of_index}://host:port/name?tls=1 after sign_in"
        )
    return address


def api_key() -> str | None:
    """The key that a service requires for changes, or None (unset or empty).

    Raises ValueError if the key has characters that an HTTP header cannot contain.
    """
    return _key("LOOKALIKE_API_KEY")


def read_key() -> str | None:
    """The key that a service requires for reading; see `api_key`."""
    return _key("LOOKALIKE_READ_KEY")


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{variable} must consist of printable ASCII characters, because it is sent in a header")
    return key or None


def serve_settings() -> str | None:
    """The settings that `worker_environment` passed to this process, or None."""
    return os.environ.get("LOOKALIKE_SERVE") or None


def serve_log_level() -> str:
    """The log level that `worker_environment` passed to this process, or "info"."""
    return os.environ.get("LOOKALIKE_LOG_LEVEL") or "info"


def metrics_dir() -> Path | None:
    """The folder in which the workers of a service store their metrics, or None for a single process."""
    value = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    return Path(value) if value else None


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that start inside the block."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.update(before)
        for name in variables.keys() - before.keys():
            del os.environ[name]


def worker_environment(
    settings: str, metrics: Path, log_level: str = "info"
) -> contextlib.AbstractContextManager[None]:
    """Pass a service's settings, the folder of its metrics and its log level to processes started inside the block."""
    return environment(
        {"LOOKALIKE_SERVE": settings, "PROMETHEUS_MULTIPROC_DIR": str(metrics), "LOOKALIKE_LOG_LEVEL": log_level}
    )


def bypass_proxies_on_loopback() -> None:
    """Add this computer's own names to ``NO_PROXY``, for the HTTP clients of this process and its children.

    Without them, many clients send requests to this computer through the proxy that ``HTTP_PROXY`` names.
    """
    names = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
    listed = [name.strip() for name in names if name.strip()]
    added = [name for name in ("127.0.0.1", "::1", "localhost") if name not in listed and "*" not in listed]
    for variable in ("no_proxy", "NO_PROXY"):
        os.environ[variable] = ",".join(listed + added)


def child_environment() -> dict[str, str]:
    """Environment variables for a Python process that imports this library, from a checkout as well."""
    environment = dict(os.environ)
    if IN_CHECKOUT:
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), others] if others else [str(ROOT)])
    return environment


def set_up_tensorflow() -> None:
    """Set the variables `TENSORFLOW` that are not set. Call it before TensorFlow is imported."""
    for name, value in TENSORFLOW.items():
        os.environ.setdefault(name, value)
