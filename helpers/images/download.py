"""Data sets from a mirror, the cache or their official hosts. Checksums are verified, and downloads are resumable.

A mirror's archive may be a subset of the official one. It is therefore unpacked into a separate folder,
``datasets/<name>-mirror-<checksum>``.
"""

import errno
import gzip
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
#: Hosts whose connections timed out. This process does not try them again.
_unreachable_hosts: set[str] = set()
_CHUNK = 1 << 16


class DownloadError(RuntimeError):
    """A file or data set is not available; the message lists the sources that were tried and the remedies."""


class UnsafeArchive(ValueError):
    """An archive would write outside its folder; nothing of it was unpacked."""


class _WrongChecksum(DownloadError):
    pass


@dataclass(frozen=True)
class Archive:
    """A file on the internet.

    checksum : ``"sha256:…"`` or ``"md5:…"``, as published with the data set or by a library that downloads it.
    megabytes : its size, for people who plan a download.
    """

    filename: str
    url: str
    checksum: str
    megabytes: int


@dataclass(frozen=True)
class Source:
    """The sources of a data set.

    mirror : its file in a mirror.
    folders : possible names of the unpacked archive's top folder.
    archives : official files, each of which contains the whole set with images of one size; they are tried in turn.
    """

    name: str
    mirror: str
    folders: tuple[str, ...]
    archives: tuple[Archive, ...] = ()


SOURCES = {
    source.name: source
    for source in (
        # LFW's own host (vis-www.cs.umass.edu) no longer resolves; scikit-learn has a copy and its checksum.
        Source(
            "lfw", "lfw-mini.tar", ("lfw",),
            (
                Archive(
                    "lfw.tgz", "https://ndownloader.figshare.com/files/5976018",
                    "sha256:055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0", 181,
                ),
            ),
        ),
        # Checksums from torchvision: datasets/imagenette.py, datasets/caltech.py, datasets/cifar.py.
        Source(
            # Short sides of 320 pixels; scores measured on the archives of 160 pixels or of full size would differ.
            "imagenette", "imagenette-mini.tar", ("imagenette2", "imagenette2-320"),
            (
                Archive(
                    "imagenette2-320.tgz", "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
                    "md5:3df6f0d01a2c9592104656642f5e78a3", 342,
                ),
            ),
        ),
        Source(
            "caltech101", "caltech101-mini.tar", ("101_ObjectCategories",),
            (
                Archive(
                    "caltech-101.zip", "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                    "md5:3138e1922a9193bfa496528edbbc45d0", 137,
                ),
            ),
        ),
        Source(
            "cifar10", "cifar10-mini.tar", ("cifar10", "cifar-10-batches-py"),
            (
                Archive(
                    "cifar-10-python.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                    "md5:c58f30108f718f92721af3b95e74349a", 170,
                ),
            ),
        ),
        # Only a mirror has it.
        Source("imagenet-one-per-class", "imagenet-one-per-class.tar", ("imagenet-one-per-class",)),
    )
}  # fmt: skip


def fetch(name: str, official: bool = False) -> Path:
    """The unpacked folder of a data set, fetched on first use: from a mirror that lists it, or from the internet.

    Raises `DownloadError` if no source has it, and `UnsafeArchive` if an archive is rejected.

    official : use the official archive only; a mirror may have a part of the set.
    """
    try:
        source = SOURCES[name]
    except KeyError:
        raise KeyError(f"no data set is called {name!r}; there are: {', '.join(SOURCES)}") from None
    tried: list[str] = []
    for get in (_from_internet,) if official else (_from_mirror, _from_internet):
        try:
            return get(source)
        except DownloadError as error:
            tried += str(error).splitlines()
    by_hand = ""
    if source.archives:
        files = " or ".join(dict.fromkeys(archive.filename for archive in source.archives))
        by_hand = f"\n  - download {files} in a browser and put it into {paths.cache_dir() / 'downloads'},"
    mirror = f"\n  - set LOOKALIKE_MIRROR to a folder with {source.mirror} and a manifest.json,"
    raise DownloadError(
        f"The data set {name} is not available. Tried:\n"
        + "\n".join(f"  - {line}" for line in tried)
        + f"\nRemedies:{by_hand}{'' if official else mirror}"
        "\n  - or use the sample profile, which needs no download."
    )


def open_url(url: str, headers: dict[str, str] | None = None) -> "requests.Response":
    """The response to a GET request, of any status, before its body is read.

    Raises `DownloadError` if the host cannot be reached within `CONNECT_SECONDS`, or sends no response.
    """
    import requests

    host = urlsplit(url).netloc
    if host in _unreachable_hosts:
        raise DownloadError(f"{host} did not respond before; restart to try it again")
    try:
        return requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
    except requests.ConnectTimeout as error:
        _unreachable_hosts.add(host)
        raise DownloadError(f"{host} cannot be reached: no connection in {CONNECT_SECONDS} seconds") from error
    except requests.RequestException as error:
        raise DownloadError(f"{host} cannot be reached ({type(error).__name__})") from error


def _from_mirror(source: Source) -> Path:
    mirror = paths.mirror_dir()
    if mirror is None:
        raise DownloadError("mirror: LOOKALIKE_MIRROR is not set")
    manifest = mirror / "manifest.json"
    try:
        sha256 = str(json.loads(manifest.read_text(encoding="utf-8"))[source.mirror]["sha256"])
    except OSError as error:
        raise DownloadError(f"mirror: {manifest} cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise DownloadError(f"mirror: {manifest} is not a manifest that lists {source.mirror} ({error!r})") from error
    target = paths.cache_dir() / "datasets" / f"{source.name}-mirror-{sha256[:8]}"
    with _locked(target) as complete:
        if not complete:
            archive = mirror / source.mirror
            if not archive.is_file():
                raise DownloadError(f"mirror: {archive} is missing")
            _check(archive, f"sha256:{sha256}")
            _unpack(archive, target)
    return _top(target, source)


def _from_internet(source: Source) -> Path:
    target = paths.cache_dir() / "datasets" / source.name
    if not source.archives:
        raise DownloadError("internet: there is no official archive of this set; only a mirror can have it")
    with _locked(target) as complete:
        if complete:
            return _top(target, source)
        tried: list[str] = []
        for archive in source.archives:
            file = paths.cache_dir() / "downloads" / archive.filename
            try:
                if file.is_file():
                    _check(file, archive.checksum)
                else:
                    _download(archive, file)
                _unpack(file, target)
                return _top(target, source)
            except DownloadError as error:
                tried.append(str(error))
        raise DownloadError("\n".join(tried))


def _download(archive: Archive, file: Path) -> None:
    import urllib3

    part = file.with_name(file.name + ".part")
    try:
        _stream(archive.url, part)
        _check(part, archive.checksum)
        part.replace(file)
    except DownloadError as error:
        # Resuming helps after a broken connection, but not if the content is wrong.
        if isinstance(error, _WrongChecksum):
            part.unlink(missing_ok=True)
        raise DownloadError(f"{archive.url}: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        reason = f"{type(error).__name__}; run again to resume from {_size(part):,} bytes"
        raise DownloadError(f"{archive.url}: {reason}") from error


def _stream(url: str, part: Path) -> None:
    """Download a file, or the rest of it if ``part`` exists."""
    with _writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    done = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with open_url(url, headers) as response:
        if response.status_code == 416:
            # There are no more bytes. The checksum shows whether the file is the right one.
            return
        if response.status_code not in (200, 206):
            raise DownloadError(f"HTTP status {response.status_code}")
        if response.status_code == 200:
            done = 0  # the server does not support resuming
        length, free = int(response.headers.get("Content-Length") or 0), shutil.disk_usage(part.parent).free
        if length > free:
            raise DownloadError(
                f"{part.parent} has {free:,} bytes free, {length:,} are needed. Free some space or set LOOKALIKE_CACHE."
            )
        total = done + length if length else None
        name = part.name.removesuffix(".part")
        bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name, disable=None)
        with _writing(part), bar, part.open("ab" if done else "wb") as file:
            # `read1` returns what has arrived, so every byte is kept if the connection breaks.
            while chunk := response.raw.read1(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total and _size(part) < total:
            raise DownloadError(f"the connection ended after {_size(part):,} of {total:,} bytes; run again to resume")


def _check(file: Path, checksum: str) -> None:
    kind, _, expected = checksum.partition(":")
    with file.open("rb") as content:
        found = hashlib.file_digest(content, kind).hexdigest()
    if found != expected:
        raise _WrongChecksum(
            f"{file} has the wrong checksum ({kind} {found[:12]}…, expected {expected[:12]}…); it was not used"
        )


def _unpack(archive: Path, target: Path) -> None:
    """Unpack atomically: into a temporary folder, which is then renamed."""
    with _writing(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as folder:
        fresh = Path(folder) / "content"
        fresh.mkdir()
        try:
            _extract(archive, fresh)
            # Caltech-101 is a zip that contains a tar, and "._" files, in which macOS keeps attributes of files.
            for inner in [path for path in fresh.rglob("*.tar.gz") if not path.name.startswith("._")]:
                _extract(inner, inner.parent)
                inner.unlink()
        except (tarfile.FilterError, UnsafeArchive) as error:
            raise UnsafeArchive(f"{archive} was rejected: {error}. Nothing of it was unpacked.") from error
        except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
            raise DownloadError(f"{archive} is truncated or damaged ({error}). Move it away, or replace it.") from error
        (fresh / ".complete").touch()
        fresh.replace(target)


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                if not (folder / name).resolve().is_relative_to(folder.resolve()) or Path(name).is_absolute():
                    raise UnsafeArchive(f"{name} is outside the archive's folder")
            content.extractall(folder)
        return
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        for member in members:
            # The filter would remove a leading slash or follow an inner link. The data sets contain neither.
            if not (member.isfile() or member.isdir()):
                raise UnsafeArchive(f"{member.name} is neither a file nor a folder")
            if Path(member.name).is_absolute() or ".." in Path(member.name).parts:
                raise UnsafeArchive(f"{member.name} is outside the archive's folder")
        tar.extractall(folder, members, filter="data")


def _top(target: Path, source: Source) -> Path:
    for folder in source.folders:
        for path in (target / folder, *sorted(target.glob(f"*/{folder}"))):
            if path.is_dir():
                return path
    raise DownloadError(
        f"{target} has none of the folders {', '.join(source.folders)}; move it away and fetch it again"
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


@contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Only one process fetches a data set; others wait for it. Yields whether it is complete."""
    complete = target / ".complete"
    if complete.is_file():
        yield True
        return
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=3600)
        except Timeout as error:
            raise DownloadError(
                f"another process has been fetching {target.name} for an hour; end it and try again"
            ) from error
    with held:
        yield complete.is_file()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the OSError of a file or folder that cannot be written into a DownloadError."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise DownloadError(
            f"{path} cannot be written: {reason}. Free some space and run again to resume a download, or set "
            "LOOKALIKE_CACHE to a writable folder, where it starts again."
        ) from error
