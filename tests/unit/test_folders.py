"""Folders of images: what is read, in a stable order, and a count of everything that is left out."""

import io
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.cli import main as cli
from helpers.cli.common import OK
from helpers.images import folders, formats, samples
from helpers.images.folders import SkippedFilesWarning, from_folder, image_files, scan_folder
from helpers.images.imageset import EmptyImageSet
from helpers.images.reading import UnreadableImage, read_image

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def encoded(kind: str = "JPEG") -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(written, kind)
    return written.getvalue()


def made(folder: Path, **contents: bytes) -> Path:
    """A folder with files by name; ``__`` stands for a slash and ``_`` for a dot."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def without_heif(monkeypatch):
    """As if pillow-heif were not installed."""
    caches = (formats.readable_formats, formats.suffix_kinds)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


# ---- what is read -----------------------------------------------------------------------------------


def test_images_are_sorted_by_name(tmp_path):
    names = ["b/2.jpg", "a/10.png", "a/9.JPG", "ü und ö/1.webp", "loose.gif"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.jpg").write_bytes(b"")
    (tmp_path / "a" / "._9.jpg").write_bytes(b"")
    images = from_folder(tmp_path)
    assert images.keys == ("a/10.png", "a/9.JPG", "b/2.jpg", "loose.gif", "ü und ö/1.webp")
    assert images.class_names == ("a", "b", "ü und ö")
    assert images.labels.tolist() == [0, 0, 1, -1, 2]
    assert images.class_name(3) == "–" and image_files(tmp_path) == list(images.paths)


def test_nested_folders_belong_to_the_class_of_the_first_level(tmp_path):
    assert from_folder(made(tmp_path, cats__2024__a_jpg=b"")).class_names == ("cats",)


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    images = from_folder(made(tmp_path, cats__folder_jpg__one_jpg=b""), "mine")
    assert images.keys == ("cats/folder.jpg/one.jpg",) and images.class_names == ("cats",)
    assert images.name == "mine" and from_folder(tmp_path).name == tmp_path.name


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    made(tmp_path, b_jpg=b"", a_jpg=b"", c__d_jpg=b"", B_jpg=b"", c__a__x_jpg=b"")
    names = scan_folder(tmp_path).names

    class Reversed:
        def __init__(self, path):
            self.entries = listed(path)

        def __enter__(self):
            return iter(list(self.entries)[::-1])

        def __exit__(self, *_):
            self.entries.close()

    listed = os.scandir
    monkeypatch.setattr(folders.os, "scandir", Reversed)
    assert scan_folder(tmp_path).names == names == ("B.jpg", "a.jpg", "b.jpg", "c/a/x.jpg", "c/d.jpg")


def test_missing_folders_and_files_in_place_of_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        from_folder(tmp_path / "missing")
    (tmp_path / "file.jpg").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"file\.jpg is a file"):
        image_files(tmp_path / "file.jpg")


def test_every_format_that_pillow_writes_and_reads_is_found(tmp_path):
    """Each registered suffix, in upper and lower case; EPS and others are refused."""
    Image.init()
    expected = set()
    for suffix, kind in Image.registered_extensions().items():
        names = {f"a{suffix}", f"b{suffix.upper()}"}
        content = b""
        if kind not in formats.REFUSED:
            try:
                content = encoded(kind)
                Image.open(io.BytesIO(content)).load()
            except (KeyError, OSError, ValueError):
                continue
            expected |= names
        for name in names:
            (tmp_path / name).write_bytes(content)
    assert set(scan_folder(tmp_path).names) == expected
    assert {"a.jfif", "b.AVIF", "a.jp2", "a.tga", "b.MPO", "a.dib", "b.APNG", "a.qoi"} <= expected
    for name in expected:
        with Image.open(tmp_path / name) as image:
            assert read_image(tmp_path / name).shape == (image.height, image.width, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "JPEG2000", "TIFF"])
def test_images_without_a_known_suffix_are_recognized(tmp_path, kind):
    for name in ("cdn", "photo.jpg_large", "scan v1.2", "image.", "photo.jpg~"):
        (tmp_path / name).write_bytes(encoded(kind))
    assert len(scan_folder(tmp_path).names) == 5


@pytest.mark.parametrize(
    "content", [b"", b"BMW is a car", b"#define x", b"\n\5", b"II*\0", b"text" * 100, b"%PDF-1.7", HEIC]
)
def test_other_files_without_a_suffix_are_counted(tmp_path, content, without_heif):
    scan = scan_folder(made(tmp_path, README=content, a_jpg=b""))
    assert scan.summary() == "2 files: 1 image; skipped: 1 file without suffix (not images)" and scan.is_complete


# ---- what is left out -------------------------------------------------------------------------------


def test_the_summary_names_and_counts_the_kinds(tmp_path, without_heif):
    made(
        tmp_path, a_jpg=b"", b_HEIC=HEIC, c_heic=HEIC, d_DNG=b"", e_nef=b"", f_svg=b"", g_txt=b"", h_mp4=b"", i_xmp=b"",
        k_eps=b"", l_fits=b"", _x_jpg=b"", _git__config=b"", sub__m_txt=b"",
    )  # fmt: skip
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "sub", target_is_directory=True)
    scan = scan_folder(tmp_path)
    assert scan.names == ("a.jpg",) and not scan.is_complete and scan.files == 14
    counts = {(kind.one, count) for kind, count in scan.skipped.items()}
    assert counts == {
        (".heic", 2), (".dng", 1), (".nef", 1), (".svg", 1), (".txt", 2), (".mp4", 1), (".xmp", 1), (".eps", 1),
        (".fits", 1), ("hidden file", 1), ("hidden folder", 1), ("broken link", 1), ("linked folder", 1),
    }  # fmt: skip
    raw = "raw file of a camera: export it as JPEG"
    assert scan.summary().startswith(
        "14 files: 1 image; skipped: 2 .heic (install the `heif` extra: pip install 'lookalike[heif]'), "
        f"1 .dng ({raw}), "
    )
    assert f"1 .nef ({raw})" in scan.summary() and "1 linked folder (use --follow-links)" in scan.summary()
    assert scan.summary().endswith("6 of 5 other kinds"), "the less important ones"


def test_a_warning_is_issued_only_if_images_may_be_missing(tmp_path, recwarn, without_heif):
    made(tmp_path, a_jpg=b"", a_json=b"", a_xmp=b"", _DS_Store=b"", README=b"text")
    assert len(from_folder(tmp_path)) == 1 and not recwarn.list
    with pytest.warns(SkippedFilesWarning, match=r"6 files: 1 image; skipped: 1 \.heic \(install the `heif` extra"):
        assert len(from_folder(made(tmp_path, b_heic=HEIC))) == 1


def test_a_folder_and_a_file_that_are_not_readable(tmp_path, monkeypatch):
    """Simulated, because the superuser may read everything."""
    made(tmp_path, a_jpg=b"", locked__b_jpg=b"", also_locked__c_jpg=b"", secret=b"")
    scandir, is_image = os.scandir, formats.is_image

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(folders.os, "scandir", lambda path: refused(path) if "locked" in path else scandir(path))
    monkeypatch.setattr(formats, "is_image", lambda path: refused(path) if "secret" in path else is_image(path))
    with pytest.warns(SkippedFilesWarning, match="2 files: 1 image; skipped: 2 unreadable folders, 1 unreadable file"):
        assert from_folder(tmp_path).keys == ("a.jpg",)
    monkeypatch.setattr(folders.os, "scandir", refused)
    with pytest.raises(PermissionError):
        from_folder(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="NOT TESTED: this system has no named pipes")
def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(made(tmp_path, a_jpg=b"") / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert scan_folder(tmp_path).summary() == "3 files: 1 image; skipped: 2 pipes, sockets or devices"


def test_a_folder_without_images_says_what_it_contains(tmp_path):
    with pytest.raises(EmptyImageSet, match=r"contains no images\. Expected"):
        from_folder(tmp_path)
    with pytest.raises(EmptyImageSet, match=r"contains no images \(2 files: 0 images; skipped: 1 \.cr2 .*1 \.txt\)"):
        from_folder(made(tmp_path, a_cr2=b"", b_txt=b""))


def test_raw_files_are_not_read_as_their_preview(tmp_path):
    """Many raw files are TIFF files whose first image is a small preview."""
    written = io.BytesIO()
    Image.new("RGB", (8, 6)).save(written, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    (tmp_path / "x.dng").write_bytes(written.getvalue())
    (tmp_path / "y.nef").write_bytes(encoded("TIFF"))
    for source in (tmp_path / "x.dng", tmp_path / "y.nef", written.getvalue()):
        with pytest.raises(UnreadableImage, match="is a raw file of a camera"):
            read_image(source)


# ---- linked folders ---------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path):
    """A folder with links to a folder elsewhere (twice), to a part of it, to itself and to a class."""
    made(tmp_path / "elsewhere", x_jpg=b"", deep__y_jpg=b"")
    photos = made(tmp_path / "photos", cats__a_jpg=b"", z__b_jpg=b"")
    for name, target in {
        "cats/again": tmp_path / "photos" / "z", "dogs": tmp_path / "elsewhere", "dogs 2": tmp_path / "elsewhere",
        "a part": tmp_path / "elsewhere" / "deep", "loop": tmp_path / "photos", "z/parent": tmp_path,
        "one.jpg": tmp_path / "elsewhere" / "x.jpg",
    }.items():  # fmt: skip
        (photos / name).symlink_to(target)
    return photos


def test_linked_folders_are_entered_on_request_and_once(linked):
    plain = scan_folder(linked)
    assert plain.names == ("cats/a.jpg", "one.jpg", "z/b.jpg")
    assert plain.summary() == "3 files: 3 images; skipped: 6 linked folders (use --follow-links)"
    followed = scan_folder(linked, follow_links=True)
    assert followed.names == ("a part/y.jpg", "cats/a.jpg", "dogs/x.jpg", "one.jpg", "z/b.jpg")
    assert followed.summary() == (
        "5 files: 5 images; skipped: 6 linked folders (their files are read through another path)"
    ), "cats/again, dogs/deep, dogs 2, loop, and two in z/parent"
    assert followed.is_complete and from_folder(linked, follow_links=True).class_names == (
        "a part",
        "cats",
        "dogs",
        "z",
    )


@pytest.mark.parametrize("command", ["index", "add", "evaluate", "audit", "search"])
def test_commands_follow_links_on_request(command, tmp_path, own_cache, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(samples.photos().paths[:6]):
        made(tmp_path, **{f"elsewhere__{number % 2}__{number}_jpg": path.read_bytes()})
    for name in ("0", "1"):
        for row in (10, 20):
            photo = samples.photos().paths[int(name) + row].read_bytes()
            made(tmp_path, **{f"photos__{name}__{row}_jpg": photo})
        (tmp_path / "photos" / name / "more").symlink_to(tmp_path / "elsewhere" / name)
    extractor = ["-x", "hsv-histogram"]
    assert cli.main(["index", "elsewhere", *extractor]) == OK
    arguments = {
        "index": ["photos", "-o", "other.engine", *extractor], "add": ["photos", "-e", "my.engine"],
        "evaluate": ["photos", *extractor], "audit": ["photos", *extractor], "search": ["photos"],
    }[command]  # fmt: skip
    capsys.readouterr()
    assert cli.main([command, *arguments]) == OK
    assert re.search(r"4 files: 4 images; skipped: 2 linked folders \(use --follow-links\)", capsys.readouterr().err)
    if command == "index":
        arguments.append("--force")
    assert cli.main([command, *arguments, "--follow-links"]) == OK
    out, err = capsys.readouterr()
    assert "linked" not in err
    expected = {
        "index": "10 images", "add": "all 10 images were already indexed", "evaluate": "10 queries", "audit": "",
        "search": "photos/0/more/0",
    }  # fmt: skip
    assert expected[command] in out and ("among 10 images" in err or command != "audit")


# ---- property ---------------------------------------------------------------------------------------

_FILES = ["a.jpg", "b.PNG", "c.txt", "d.heic", "e.dng", "f", "g", ".h.jpg", "i.svg", "j.xyz"]
_FOLDERS = ["cats", "dogs", ".cache", "x.jpg"]
#: A folder: its files, its links by name to another folder's number, and its subfolders.
trees = st.recursive(
    st.fixed_dictionaries(
        {"files": st.sets(st.sampled_from(_FILES)), "links": st.dictionaries(st.sampled_from("klm"), st.integers(0, 9))}
    ),
    lambda folder: st.fixed_dictionaries(
        {
            "files": st.sets(st.sampled_from(_FILES)),
            "links": st.dictionaries(st.sampled_from("klm"), st.integers(0, 9)),
            "folders": st.dictionaries(st.sampled_from(_FOLDERS), folder, max_size=3),
        }
    ),
    max_leaves=6,
)


def build(tree: dict, folder: Path, links: list[tuple[Path, int]]) -> list[Path]:
    """Write a tree; returns its folders, and collects its links."""
    folder.mkdir()
    for name in tree["files"]:
        (folder / name).write_bytes(encoded("PNG") if name == "f" else b"no image")
    links += [(folder / name, number) for name, number in sorted(tree["links"].items())]
    below = [build(each, folder / name, links) for name, each in sorted(tree.get("folders", {}).items())]
    return [folder, *(path for part in below for path in part)]


def expected_files(root: Path, follow_links: bool) -> tuple[int, int]:
    """The number of entries that are no folders in all visible folders, each folder once, and of those not entered."""
    waiting, entered, files, skipped = [root], set(), 0, 0
    while waiting:
        folder = waiting.pop()
        if folder.resolve() in entered:
            skipped += 1
            continue
        entered.add(folder.resolve())
        for path in folder.iterdir():
            if not path.is_dir():
                files += 1
            elif path.name.startswith(".") or (path.is_symlink() and not follow_links):
                skipped += 1
            else:
                waiting.append(path)
    return files, skipped


@settings(deadline=None, max_examples=60)
@given(trees, st.booleans())
def test_images_and_what_is_reported_are_all_files(tree, follow_links):
    with tempfile.TemporaryDirectory() as temporary:
        links: list[tuple[Path, int]] = []
        made_folders = build(tree, Path(temporary, "root"), links)
        made_folders.append(build({"files": {"a.jpg", "c.txt"}, "links": {}}, Path(temporary, "other"), [])[0])
        for link, number in links:
            link.symlink_to(made_folders[number] if number < len(made_folders) else Path("nowhere"))
        root = made_folders[0]
        scan = scan_folder(root, follow_links)
        files, skipped = expected_files(root, follow_links)
        assert scan.files == files, "every file is an image or reported"
        assert sum(count for kind, count in scan.skipped.items() if not kind.files) == skipped
        assert len(scan.names) == len(set(scan.names)) and list(scan.names) == sorted(scan.names)
        places = [(path.parent.resolve(), path.name) for path in scan.images]
        assert len(places) == len(set(places)), "nothing is read twice"
        assert all(path.is_file() and not path.name.startswith(".") for path in scan.images)
        assert {path.name for path in scan.images} <= {"a.jpg", "b.PNG", "f", "d.heic"}
        assert scan == scan_folder(root, follow_links)
        assert f"{files:,} file" in scan.summary() and str(root) not in scan.summary()


# ---- HEIC -------------------------------------------------------------------------------------------


def test_a_heic_image_without_the_extra_names_it(tmp_path, without_heif):
    for name in ("x.heic", "renamed.jpg"):
        (tmp_path / name).write_bytes(HEIC)
        with pytest.raises(UnreadableImage, match=rf"{name} is a HEIC image\. .*pip install 'lookalike\[heif\]'"):
            read_image(tmp_path / name)


def test_heic_images_are_read_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif")
    photo = Image.fromarray(read_image(samples.photos().paths[10])[:96, :128])
    formats.readable_formats()
    photo.save(tmp_path / "IMG.HEIC", "HEIF", quality=95)
    for name in ("a.heif", "no suffix", "renamed.jpg"):
        (tmp_path / name).write_bytes((tmp_path / "IMG.HEIC").read_bytes())
    scan = scan_folder(tmp_path)
    assert scan.names == ("IMG.HEIC", "a.heif", "no suffix", "renamed.jpg") and not scan.skipped
    for path in scan.images:
        read = read_image(path)
        assert read.shape == (96, 128, 3) and np.abs(read - np.asarray(photo, int)).mean() < 5
    content = (tmp_path / "IMG.HEIC").read_bytes()
    for cut in range(1, 20):
        (tmp_path / "cut.heic").write_bytes(content[: len(content) * cut // 20])
        with pytest.raises(UnreadableImage, match=r"cut\.heic"):
            read_image(tmp_path / "cut.heic")


def test_a_folder_that_is_left_out_is_not_part_of_the_scan(tmp_path):
    """An engine in the folder of its images, also if it is reached by a link, and also if it is the folder itself."""
    engine = made(tmp_path / "photos", a_jpg=b"", my_engine__images__b_jpg=b"", my_engine__c_txt=b"") / "my.engine"
    (tmp_path / "photos" / "link").symlink_to(engine)
    for follow_links in (False, True):
        scan = scan_folder(tmp_path / "photos", follow_links, without=engine)
        assert scan.names == ("a.jpg",) and scan.files == 1
    for folder in (engine, engine / "images"):
        assert scan_folder(folder, without=engine).files == 0
    assert len(scan_folder(tmp_path / "photos", without=tmp_path / "missing").names) == 2
