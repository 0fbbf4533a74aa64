"""Fetch a data set: the cache, then a mirror, then its official hosts; checked, resumable, unpacked safely.

A mirror's archives may be subsets of the official ones, so they are unpacked into a folder of their own
(``datasets/<name>-mirror-<sum>``): switching a mirror on or off never mixes the two.
"""

import errno
import hashlib
import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from helpers import paths

if TYPE_CHECKING:
    import requests

#: Time-outs in seconds: for a connection, and for the next bytes of a response.
CONNECT_SECONDS, READ_SECONDS = 3, 30
#: Hosts that let a connection time out. This process does not ask them again, so that each costs one time-out.
_silent_hosts: set[str] = set()
_PIECE = 1 << 16


class DownloadError(RuntimeError):
    """A data set can't be had; the message lists what was tried and what helps."""


class UnsafeArchive(DownloadError):
    """An archive that would write outside its folder; nothing of it was unpacked."""


@dataclass(frozen=True)
class Archive:
    """A file on the internet: several addresses of the same content.

    checksum : ``"sha256:…"`` or ``"md5:…"``, as published by whoever hosts or packages the data set.
    """

    filename: str
    urls: tuple[str, ...]
    checksum: str


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Parameters
    ----------
    name : what `fetch` calls it.
    mirror : its file in a mirror.
    folders : what the unpacked archive's top folder may be called; that one is returned.
    archives : official files, each of which holds the whole set; tried in turn.
    """

    name: str
    mirror: str
    folders: tuple[str, ...]
    archives: tuple[Archive, ...] = ()


SOURCES = {
    source.name: source
    for source in (
        # The first home of LFW (vis-www.cs.umass.edu) no longer resolves; scikit-learn keeps a copy and its sum.
        Source(
            "lfw",
            "lfw-mini.tar",
            ("lfw",),
            (
                Archive(
                    "lfw.tgz",
                    ("https://ndownloader.figshare.com/files/5976018", "http://vis-www.cs.umass.edu/lfw/lfw.tgz"),
                    "sha256:055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
                ),
            ),
        ),
        # Sums as torchvision pins them: datasets/imagenette.py, datasets/caltech.py, datasets/cifar.py.
        Source(
            "imagenette",
            "imagenette-mini.tar",
            ("imagenette2", "imagenette2-320", "imagenette2-160"),
            (
                Archive(
                    "imagenette2-160.tgz",
                    ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",),
                    "md5:e793b78cc4c9e9a4ccc0c1155377a412",
                ),
                Archive(
                    "imagenette2-320.tgz",
                    ("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",),
                    "md5:3df6f0d01a2c9592104656642f5e78a3",
                ),
            ),
        ),
        Source(
            "caltech101",
            "caltech101-mini.tar",
            ("101_ObjectCategories",),
            (
                Archive(
                    "caltech-101.zip",
                    ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
                    "md5:3138e1922a9193bfa496528edbbc45d0",
                ),
            ),
        ),
        Source(
            "cifar10",
            "cifar10-mini.tar",
            ("cifar10", "cifar-10-batches-py"),
            (
                Archive(
                    "cifar-10-python.tar.gz",
                    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
                    "md5:c58f30108f718f92721af3b95e74349a",
                ),
            ),
        ),
        # One image of each ImageNet class exists as a mirror's archive only.
        Source("imagenet-one-per-class", "imagenet-one-per-class.tar", ("imagenet-one-per-class",)),
    )
}


def fetch(name: str) -> Path:
    """The folder of a data set, unpacked; fetched on first use.

    With a mirror that lists it, the mirror's archive is used; else what the cache holds; else the official hosts.

    Raises
    ------
    KeyError : there is no such data set; the message lists those there are.
    DownloadError : no source gives it; the message lists what was tried and what helps.
    """
    try:
        source = SOURCES[name]
    except KeyError:
        raise KeyError(f"no data set is called {name!r}; there are: {', '.join(SOURCES)}") from None
    tried: list[str] = []
    for way in (_from_mirror, _from_internet):
        try:
            return way(source)
        except UnsafeArchive:
            raise
        except DownloadError as error:
            tried.append(str(error))
    by_hand = ""
    if source.archives:
        files = " or ".join(archive.filename for archive in source.archives)
        by_hand = f"\n  - get {files} in a browser and put it into {_downloads()},"
    raise DownloadError(
        f"The data set {name} can't be had. Tried:\n"
        + "\n".join(f"  - {line}" for reason in tried for line in reason.splitlines())
        + f"\nWhat helps:{by_hand}\n  - point LOOKALIKE_MIRROR at a folder with {source.mirror} and a manifest.json, or"
        "\n  - use the sample profile, which needs no download."
    )


def open_url(url: str, headers: dict[str, str] | None = None) -> "requests.Response":
    """The response to a GET request, whatever its status; its body is not read yet.

    Raises
    ------
    DownloadError : the host can't be connected to within `CONNECT_SECONDS`, or sends no response.
    """
    import requests

    host = urlsplit(url).netloc
    if host in _silent_hosts:
        raise DownloadError(f"{host} did not answer before; it is asked again after a restart")
    try:
        return requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.ConnectTimeout as error:
        _silent_hosts.add(host)
        raise DownloadError(f"{host} can't be reached: no connection in {CONNECT_SECONDS} seconds") from error
    except requests.RequestException as error:
        raise DownloadError(f"{host} can't be reached ({type(error).__name__})") from error


# ---- the mirror ---------------------------------------------------------------------------------------


def _from_mirror(source: Source) -> Path:
    mirror = paths.mirror_dir()
    if mirror is None:
        raise DownloadError("mirror: LOOKALIKE_MIRROR is not set")
    manifest = mirror / "manifest.json"
    try:
        entry = json.loads(manifest.read_text(encoding="utf-8"))[source.mirror]
        wanted = f"sha256:{entry['sha256']}"
    except OSError as error:
        raise DownloadError(f"mirror: {manifest} can't be read ({error.strerror or error})") from error
    except (ValueError, TypeError) as error:
        raise DownloadError(f"mirror: {manifest} is no manifest ({error})") from error
    except KeyError as error:
        raise DownloadError(f"mirror: {manifest} does not list {error}") from error
    target = _datasets() / f"{source.name}-mirror-{entry['sha256'][:8]}"
    with _one_at_a_time(target):
        if not _complete(target):
            archive = mirror / source.mirror
            if not archive.is_file():
                raise DownloadError(f"mirror: {archive} is missing")
            _check(archive, wanted)
            _unpack(archive, target)
    return _top(target, source)


# ---- the internet -------------------------------------------------------------------------------------


def _from_internet(source: Source) -> Path:
    target = _datasets() / source.name
    if not source.archives:
        raise DownloadError("internet: there is no official archive of this set; it exists in a mirror only")
    with _one_at_a_time(target):
        if _complete(target):
            return _top(target, source)
        tried = []
        for archive in source.archives:
            file = _downloads() / archive.filename
            if not file.is_file():
                tried += _download(archive, file)
            if file.is_file():
                try:
                    _check(file, archive.checksum)
                    _unpack(file, target)
                    return _top(target, source)
                except UnsafeArchive:
                    raise
                except DownloadError as error:
                    tried.append(str(error))
        raise DownloadError("\n".join(tried))


def _download(archive: Archive, file: Path) -> list[str]:
    """Try each address until the file is there and its sum is right; returns what failed."""
    import urllib3

    failures = []
    part = file.with_name(file.name + ".part")
    for url in archive.urls:
        try:
            _stream(url, part)
            _check(part, archive.checksum)
            part.replace(file)
            return []
        except DownloadError as error:
            failures.append(f"{url}: {error}")
            # A wrong sum is not mended by going on; a broken connection is.
            if isinstance(error, _WrongSum):
                part.unlink(missing_ok=True)
        except urllib3.exceptions.HTTPError as error:
            failures.append(f"{url}: {type(error).__name__}; run again to go on from {_size(part):,} bytes")
    return failures


def _stream(url: str, part: Path) -> None:
    """Get the rest of a file: what ``part`` holds is not transferred again."""
    _make(part.parent)
    have = _size(part)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with open_url(url, headers) as result:
        if result.status_code == 416:
            # Nothing after what we have: it is whole, or it is something else; its sum will tell.
            return
        if result.status_code not in (200, 206):
            raise DownloadError(f"HTTP status {result.status_code}")
        if result.status_code == 200:
            have = 0  # the server doesn't resume: from the start again
        length = int(result.headers.get("Content-Length") or 0)
        _need_space(part.parent, length)
        total = have + length if length else None
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=part.name.removesuffix(".part"), disable=None
        )
        try:
            with bar, part.open("ab" if have else "wb") as file:
                # What has arrived, however little: of a connection that breaks, every byte is kept.
                while piece := result.raw.read1(_PIECE):
                    file.write(piece)
                    bar.update(len(piece))
        except OSError as error:
            raise _disk(error, part) from error
        if total and _size(part) < total:
            raise DownloadError(f"the connection ended after {_size(part):,} of {total:,} bytes; run again to go on")


# ---- archives -----------------------------------------------------------------------------------------


class _WrongSum(DownloadError):
    pass


def _check(file: Path, checksum: str) -> None:
    kind, _, wanted = checksum.partition(":")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    if found != wanted:
        raise _WrongSum(
            f"{file} has the wrong checksum ({kind} {found[:12]}…, expected {wanted[:12]}…); it was not used"
        )


def _unpack(archive: Path, target: Path) -> None:
    """All of it or nothing: unpacked beside the target and moved there at the end."""
    _make(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        fresh = Path(folder) / "content"
        fresh.mkdir()
        try:
            _extract(archive, fresh)
            # Caltech-101 comes as a zip that holds a tar; what lies inside is unpacked beside it.
            for inner in list(fresh.rglob("*.tar.gz")):
                _extract(inner, inner.parent)
                inner.unlink()
        except (tarfile.FilterError, _Outside) as error:
            raise UnsafeArchive(f"{archive} was refused: {error}. Nothing of it was unpacked.") from error
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise DownloadError(f"{archive} is cut short or damaged ({error})") from error
        except OSError as error:
            # gzip's own complaint about damage is an OSError without a number.
            if error.errno is None:
                raise DownloadError(f"{archive} is cut short or damaged ({error})") from error
            raise _disk(error, target) from error
        (fresh / ".complete").touch()
        fresh.replace(target)


class _Outside(Exception):
    pass


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()) or Path(name).is_absolute():
                    raise _Outside(f"{name} lies outside the archive's folder")
            content.extractall(folder)
        return
    with tarfile.open(archive) as content:
        members = content.getmembers()
        for member in members:
            # The filter would cut a leading slash or follow a link inside; data sets have neither.
            if not (member.isfile() or member.isdir()):
                raise _Outside(f"{member.name} is neither file nor folder")
            if Path(member.name).is_absolute() or ".." in Path(member.name).parts:
                raise _Outside(f"{member.name} lies outside the archive's folder")
        content.extractall(folder, members, filter="data")


def _top(target: Path, source: Source) -> Path:
    for folder in source.folders:
        found = [target / folder, *sorted(target.glob(f"*/{folder}"))]
        for path in found:
            if path.is_dir():
                return path
    raise DownloadError(f"{target} holds none of the folders {', '.join(source.folders)}; delete it and fetch again")


# ---- the cache ----------------------------------------------------------------------------------------


def _datasets() -> Path:
    return paths.cache_dir() / "datasets"


def _downloads() -> Path:
    return paths.cache_dir() / "downloads"


def _complete(target: Path) -> bool:
    return (target / ".complete").is_file()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _disk(error, folder) from error


@contextmanager
def _one_at_a_time(target: Path) -> Iterator[None]:
    """Two processes that want the same data set: one fetches, the other waits and finds it."""
    if _complete(target):
        yield
        return
    _make(target.parent)
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=3600)
    except Timeout as error:
        raise DownloadError(
            f"another process has been fetching {target.name} for an hour; end it and try again"
        ) from error
    except OSError as error:
        raise _disk(error, target) from error
    try:
        yield
    finally:
        lock.release()


def _need_space(folder: Path, length: int) -> None:
    free = shutil.disk_usage(folder).free
    if length > free:
        raise DownloadError(
            f"{folder} has {free:,} bytes free, {length:,} are needed. Free some space or set LOOKALIKE_CACHE."
        )


def _disk(error: OSError, where: Path) -> DownloadError:
    reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return DownloadError(
        f"{where} can't be written: {reason}. Free some space, or set LOOKALIKE_CACHE to a folder that can be written; "
        "what was fetched so far is kept."
    )
