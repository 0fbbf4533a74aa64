"""Downloads from a real server on the loopback address: checksums, resuming, several addresses, safe unpacking."""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import socket
import sys
import tarfile
import time
import zipfile

import pytest

from helpers.images import download, samples
from helpers.images.download import Archive, DownloadError, Source, UnsafeArchive, fetch
from helpers.loopback import reserved_port


def tar_of(members: dict[str, bytes], mode="w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


IMAGES = {f"set/a/{i}.jpg": path.read_bytes() for i, path in enumerate(samples.photos().paths[:8])}
CONTENT = tar_of(IMAGES)
SUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(file_server):
    file_server.files["/set.tgz"] = CONTENT
    return file_server


@pytest.fixture
def source(server, monkeypatch):
    """Make `fetch("set")` use these addresses of an archive with this checksum."""

    def put(*urls, checksum=SUM):
        archives = tuple(Archive("set.tgz", url, checksum, 1) for url in urls or [f"{server.url}/set.tgz"])
        monkeypatch.setitem(download.SOURCES, "set", Source("set", "set-mini.tar", ("set",), archives))

    put()
    return put


def names(folder):
    return sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*") if path.is_file())


def test_fetched_checked_and_unpacked_once(server, source):
    folder = fetch("set")
    assert names(folder) == sorted(IMAGES)
    assert (folder / "a/3.jpg").read_bytes() == IMAGES["set/a/3.jpg"]
    assert fetch("set") == folder and len(server.sent) == 1


def test_a_broken_connection_is_resumed(server, source, own_cache):
    server.faults.add("drop once")
    with pytest.raises(DownloadError, match="run again"):
        fetch("set")
    half = (own_cache / "downloads" / "set.tgz.part").stat().st_size
    assert half == len(CONTENT) // 2
    assert names(fetch("set")) == sorted(IMAGES)
    assert server.sent == [half, len(CONTENT) - half]


def test_without_support_for_resuming_a_download_starts_again(server, source):
    server.faults |= {"drop once", "no ranges"}
    with pytest.raises(DownloadError):
        fetch("set")
    assert names(fetch("set")) == sorted(IMAGES)
    assert server.sent[1] == len(CONTENT)


def test_a_complete_partial_file_is_used(server, source, own_cache):
    part = own_cache / "downloads" / "set.tgz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert names(fetch("set")) == sorted(IMAGES) and server.sent == []


def test_the_second_address_is_tried(server, source):
    source(f"{server.url}/missing.tgz", f"{server.url}/set.tgz")
    assert names(fetch("set")) == sorted(IMAGES)


def test_a_file_with_a_wrong_checksum_is_not_unpacked(server, source, own_cache):
    source(checksum="sha256:" + "0" * 64)
    with pytest.raises(DownloadError, match=r"wrong checksum(.|\n)*LOOKALIKE_MIRROR(.|\n)*sample profile"):
        fetch("set")
    assert not list(own_cache.rglob("*.jpg")) and not list(own_cache.rglob("*.part"))


def test_a_file_copied_by_hand_is_checked_and_used(server, source, own_cache):
    source(f"{server.url}/missing.tgz")
    by_hand = own_cache / "downloads" / "set.tgz"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"something else")
    with pytest.raises(DownloadError, match="wrong checksum"):
        fetch("set")
    assert by_hand.read_bytes() == b"something else", "a file of the user is not deleted"
    by_hand.write_bytes(CONTENT)
    assert names(fetch("set")) == sorted(IMAGES)


def write_mirror(folder, content, checksum=None):
    folder.mkdir(exist_ok=True)
    (folder / "set-mini.tar").write_bytes(content)
    entry = {"sha256": checksum or hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps({"set-mini.tar": entry}))


def test_the_mirror_comes_first_and_has_a_separate_folder(server, source, tmp_path, monkeypatch):
    write_mirror(tmp_path / "mirror", tar_of({"set/b/only.jpg": b"x"}, "w"))
    official = fetch("set")
    monkeypatch.setenv("LOOKALIKE_MIRROR", str(tmp_path / "mirror"))
    mirrored = fetch("set")
    assert names(mirrored) == ["set/b/only.jpg"] and mirrored != official
    monkeypatch.setenv("LOOKALIKE_MIRROR", "none")
    assert fetch("set") == official


def test_the_internet_is_used_after_a_damaged_mirror(server, source, tmp_path, monkeypatch):
    write_mirror(tmp_path / "mirror", b"damaged", checksum="0" * 64)
    monkeypatch.setenv("LOOKALIKE_MIRROR", str(tmp_path / "mirror"))
    assert names(fetch("set")) == sorted(IMAGES)


@pytest.mark.parametrize("damage", ["missing folder", "no manifest", "not listed", "truncated"])
def test_errors_of_a_mirror_are_reported(server, source, tmp_path, monkeypatch, damage):
    source(f"{server.url}/missing.tgz")
    mirror = tmp_path / "mirror"
    content = tar_of(IMAGES, "w")
    write_mirror(mirror, content[: len(content) // 2] if damage == "truncated" else content)
    if damage == "no manifest":
        (mirror / "manifest.json").write_text("{")
    if damage == "not listed":
        (mirror / "manifest.json").write_text("{}")
    monkeypatch.setenv("LOOKALIKE_MIRROR", str(mirror if damage != "missing folder" else tmp_path / "missing"))
    with pytest.raises(DownloadError, match={"truncated": "truncated or damaged"}.get(damage, "manifest")):
        fetch("set")


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil.jpg", "set/../../evil.jpg", "/evil.jpg"])
@pytest.mark.parametrize("kind", [tar_of, zip_of])
def test_archives_that_leave_their_folder_are_rejected(server, source, own_cache, name, kind):
    evil = kind({"set/a/good.jpg": b"x", name: b"y"})
    server.files["/evil"] = evil
    source(f"{server.url}/evil", checksum="sha256:" + hashlib.sha256(evil).hexdigest())
    with pytest.raises(UnsafeArchive, match="Nothing of it was unpacked"):
        fetch("set")
    assert not list(own_cache.parent.rglob("evil.jpg")) and not list(own_cache.rglob("good.jpg"))


def test_links_are_rejected(server, source, own_cache):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("set/a/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    server.files["/evil"] = buffer.getvalue()
    source(f"{server.url}/evil", checksum="sha256:" + hashlib.sha256(buffer.getvalue()).hexdigest())
    with pytest.raises(UnsafeArchive, match="neither a file nor a folder"):
        fetch("set")


def test_an_archive_in_an_archive(server, source):
    """Caltech-101 is a zip that contains a tar."""
    outer = zip_of({"caltech-101/inner.tar.gz": CONTENT})
    server.files["/outer"] = outer
    source(f"{server.url}/outer", checksum="md5:" + hashlib.md5(outer).hexdigest())
    assert len(names(fetch("set"))) == len(IMAGES)


def test_too_little_disk_space_is_reported(server, source, own_cache, monkeypatch):
    class Full:
        free = 10

    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: Full)
    with pytest.raises(DownloadError, match="10 bytes free"):
        fetch("set")


def test_a_cache_that_is_a_file(server, source, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "occupied"))
    with pytest.raises(DownloadError, match=r"cannot be written(.|\n)*LOOKALIKE_CACHE"):
        fetch("set")


def test_an_unknown_name():
    with pytest.raises(KeyError, match="no data set is called 'mnist'.*lfw"):
        fetch("mnist")


def test_a_data_set_that_only_a_mirror_has(server):
    with pytest.raises(DownloadError, match="only a mirror can have it"):
        fetch("imagenet-one-per-class")


def fetch_in_process(cache, url, checksum, results):
    os.environ["LOOKALIKE_CACHE"], os.environ["LOOKALIKE_MIRROR"] = cache, "none"
    archive = Archive("set.tgz", url, checksum, 1)
    download.SOURCES["set"] = Source("set", "set-mini.tar", ("set",), (archive,))
    results.put(len(names(fetch("set"))))


def test_two_processes_fetch_once(server, source, own_cache):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(own_cache), f"{server.url}/set.tgz", SUM, results)
    both = [context.Process(target=fetch_in_process, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    assert [results.get(timeout=30) for _ in both] == [len(IMAGES)] * 2
    for process in both:
        process.join(10)
    assert len(server.sent) == 1


# ---- hosts that do not respond --------------------------------------------------------------------------


@pytest.fixture
def black_hole():
    """The address of a socket whose connection queue is full: the kernel drops further attempts."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"127.0.0.1:{full.getsockname()[1]}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT TESTED: other systems refuse where Linux drops")
def test_a_host_that_does_not_respond_costs_one_timeout(server, source, black_hole, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.4)
    source(f"http://{black_hole}/a.tgz", f"http://{black_hole}/b.tgz", f"{server.url}/set.tgz")
    started = time.monotonic()
    assert names(fetch("set")) == sorted(IMAGES), "the next address is used"
    assert 0.4 <= time.monotonic() - started < 0.8
    started = time.monotonic()
    with pytest.raises(DownloadError, match="did not respond before"):
        download.open_url(f"http://{black_hole}/c.tgz")
    assert time.monotonic() - started < 0.2


def test_the_error_lists_all_sources(server, source, monkeypatch):
    with reserved_port() as port:
        refusing = f"127.0.0.1:{port}"
        source(f"http://{refusing}/set.tgz", "http://no-such-host.invalid/set.tgz", f"{server.url}/missing.tgz")
        started = time.monotonic()
        with pytest.raises(DownloadError) as error:
            fetch("set")
    assert time.monotonic() - started < 3
    message = str(error.value)
    for part in (
        "LOOKALIKE_MIRROR is not set", f"{refusing} cannot be reached", "no-such-host.invalid cannot be reached",
        "HTTP status 404", "download set.tgz in a browser",
    ):  # fmt: skip
        assert part in message
    # These failures take no time, so the hosts are tried again.
    assert download._unreachable_hosts == set()


def test_a_proxy_is_used(server, source, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    server.files["http://no-such-host.invalid/set.tgz"] = CONTENT
    source("http://no-such-host.invalid/set.tgz")
    assert names(fetch("set")) == sorted(IMAGES)


def test_every_official_archive_has_a_checksum():
    for entry in download.SOURCES.values():
        for archive in entry.archives:
            kind, _, digest = archive.checksum.partition(":")
            assert len(digest) == {"md5": 32, "sha256": 64}[kind]
            assert archive.url.startswith("https://")


def test_a_real_archive_of_the_mirror(mirror, own_cache):
    folder = fetch("imagenette")
    assert folder.name == "imagenette2" and len(list(folder.rglob("*.JPEG"))) == 1400
