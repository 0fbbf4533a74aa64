"""Small archives with the names and layouts of the official ones, downloaded from the loopback address and loaded."""

import hashlib
import io
import pickle
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image

from helpers.evaluation import builders, protocol_files
from helpers.evaluation.protocol import ProtocolMismatch
from helpers.images import caltech101, cifar10, download, imagenet, lfw, samples
from helpers.images.download import DownloadError
from helpers.images.reading import read_image
from tests.integration.test_download import tar_of, zip_of

PHOTOS = [path.read_bytes() for path in samples.photos().paths[:12]]
#: Of Imagenette, in the order of its class names here.
WNIDS = (
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413", "n03445777",
    "n03888257",
)  # fmt: skip
#: In the order of CIFAR-10's labels.
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: The pixels of the images of each batch, uint8 (11, 32, 32, 3), and their labels.
CIFAR_BATCHES = {
    name: (np.random.default_rng(i).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8), np.roll([*range(10), 6], i))
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
}


@cache
def small_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 30)).save(file, "JPEG")
    return file.getvalue()


def imagenette_archive(keys=None) -> bytes:
    names = keys or [
        name
        for wnid in WNIDS
        for name in (f"train/{wnid}/{wnid}_10026.JPEG", f"val/{wnid}/ILSVRC2012_val_00000293.JPEG")
    ]
    images = {f"imagenette2-320/{name}": small_jpeg() if keys else PHOTOS[i % 12] for i, name in enumerate(names)}
    labels = (
        b"path,noisy_labels_0,noisy_labels_1,is_valid\ntrain/n01440764/n01440764_10026.JPEG,n01440764,n02979186,False\n"
    )
    return tar_of(
        {"imagenette2-320/noisy_imagenette.csv": labels, "imagenette2-320/.DS_Store": b"\0\0\0\1Bud1"} | images
    )


def lfw_archive(keys=()) -> bytes:
    people = {"Aaron_Peirsol": 4, "Abdel_Nasser_Assidi": 2, "Zydrunas_Ilgauskas": 1}
    names = [f"{person}/{person}_{i:04}.jpg" for person, count in people.items() for i in range(1, count + 1)]
    images = {f"lfw/{name}": PHOTOS[i] for i, name in enumerate(names)}
    return tar_of(images | {f"lfw/{key}": small_jpeg() for key in keys})


def caltech101_archive(keys=()) -> bytes:
    """A zip that macOS made: two tars, a MATLAB file, and their attributes in files that begin with "._"."""
    names = ["BACKGROUND_Google/image_0001.jpg", "Faces/image_0001.jpg", "Leopards/image_0001.jpg"]
    names += ["accordion/image_0001.jpg", "accordion/image_0002.jpg"]
    images = {f"101_ObjectCategories/{name}": PHOTOS[i] for i, name in enumerate(names)}
    images |= {f"101_ObjectCategories/{key}": small_jpeg() for key in keys}
    attributes = b"\0\x05\x16\x07\0\x02\0\0Mac OS X"
    images |= {"101_ObjectCategories/BACKGROUND_Google/tmp": b"", "101_ObjectCategories/._Faces": attributes}
    files = {
        "101_ObjectCategories.tar.gz": tar_of(images),
        "Annotations.tar": tar_of({"Annotations/accordion/annotation_0001.mat": b"MATLAB 5.0 MAT-file"}, "w"),
        "show_annotation.m": b"function show_annotation(imgfile, annotation_file);",
    }
    macos = {f"__MACOSX/caltech-101/._{name}": attributes for name in files}
    return zip_of({f"caltech-101/{name}": content for name, content in files.items()} | macos)


def cifar10_archive() -> bytes:
    files = {"readme.html": b"<meta>", "batches.meta": {b"label_names": [name.encode() for name in CIFAR_CLASSES]}}
    for name, (pixels, labels) in CIFAR_BATCHES.items():
        # A row has all red values, then all green ones, then all blue ones.
        files[name] = {b"data": pixels.transpose(0, 3, 1, 2).reshape(-1, 3072), b"labels": labels.tolist()}
    content = {
        name: each if isinstance(each, bytes) else pickle.dumps(each, protocol=2) for name, each in files.items()
    }
    return tar_of({f"cifar-10-batches-py/{name}": each for name, each in content.items()})


ARCHIVES = {
    "imagenette": (imagenette_archive, imagenet.imagenette, 20),
    "lfw": (lfw_archive, lambda: lfw.load(4), 5),
    "caltech101": (caltech101_archive, caltech101.load, 5),
    "cifar10": (cifar10_archive, cifar10.load, 66),
}


@pytest.fixture
def serve(file_server, monkeypatch):
    """Serve an archive under the official file name, with its sum in the table; the kind of the sum stays."""

    def put(name: str, content: bytes) -> download.Archive:
        source = download.SOURCES[name]
        (official,) = source.archives
        kind = official.checksum.partition(":")[0]
        checksum = f"{kind}:{hashlib.new(kind, content).hexdigest()}"
        archive = replace(official, url=f"{file_server.url}/{official.filename}", checksum=checksum)
        monkeypatch.setitem(download.SOURCES, name, replace(source, archives=(archive,)))
        file_server.files[f"/{official.filename}"] = content
        return archive

    return put


@pytest.mark.parametrize(
    ("name", "filename", "checksum"),
    [
        ("imagenette", "imagenette2-320.tgz", "md5:3df6f0d01a2c9592104656642f5e78a3"),
        ("lfw", "lfw.tgz", "sha256:055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0"),
        ("caltech101", "caltech-101.zip", "md5:3138e1922a9193bfa496528edbbc45d0"),
        ("cifar10", "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),
    ],
)
def test_names_and_sums_are_the_published_ones(name, filename, checksum):
    """As in torchvision and scikit-learn."""
    (archive,) = download.SOURCES[name].archives
    assert (archive.filename, archive.checksum) == (filename, checksum)


def test_imagenette(serve):
    serve("imagenette", imagenette_archive())
    images = imagenet.imagenette()
    assert images.name == "imagenette" and images.root.name == "imagenette2-320"
    assert images.class_names == (
        "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
        "gas pump", "golf ball", "parachute",
    )  # fmt: skip
    assert images.keys[:2] == ("train/n01440764/n01440764_10026.JPEG", "train/n02102040/n02102040_10026.JPEG")
    assert images.keys[10] == "val/n01440764/ILSVRC2012_val_00000293.JPEG"
    assert images.labels.tolist() == [*range(10)] * 2
    assert images.paths[1].read_bytes() == PHOTOS[2]


def test_lfw(serve):
    serve("lfw", lfw_archive())
    images = lfw.load(4)
    assert (images.name, images.class_names) == ("lfw", ("Aaron Peirsol",))
    assert images.keys[0] == "Aaron_Peirsol/Aaron_Peirsol_0001.jpg"
    assert images.keys[4] == "Zydrunas_Ilgauskas/Zydrunas_Ilgauskas_0001.jpg"
    assert images.labels.tolist() == [0, 0, 0, 0, -1]
    assert images.paths[4].read_bytes() == PHOTOS[6]


def test_all_of_lfw_is_the_official_archive_under_another_name(serve, file_server, tmp_path, monkeypatch):
    """A mirror has a part of LFW; all of it comes from the official archive, and its scores have rows of their own."""
    archive = serve("lfw", lfw_archive())
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    part = tar_of({f"lfw/Aaron_Peirsol/Aaron_Peirsol_000{i}.jpg": PHOTOS[i] for i in (1, 3)}, "w")
    (mirror / "lfw-mini.tar").write_bytes(part)
    (mirror / "manifest.json").write_text(f'{{"lfw-mini.tar": {{"sha256": "{hashlib.sha256(part).hexdigest()}"}}}}')
    monkeypatch.setenv("LOOKALIKE_MIRROR", str(mirror))
    assert len(lfw.load(2)) == 2
    images = lfw.load(2, official=True)
    assert (len(images), images.class_names) == (7, ("Aaron Peirsol", "Abdel Nasser Assidi"))
    assert (images.labels >= 0).sum() == 6
    protocol = builders.leave_one_out(images, f"{images.name}-leave-one-out")
    assert (protocol.dataset, protocol.name) == ("lfw-all-2", "lfw-all-2-leave-one-out")
    assert protocol.name not in protocol_files.frozen_names()
    assert len(protocol.queries) == 6 and protocol.n_distractors == 1
    assert lfw.load(4, official=True).name == "lfw-all-4"
    # Without the archive, LOOKALIKE_MIRROR is no remedy.
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "other"))
    file_server.files.clear()
    with pytest.raises(
        DownloadError, match=f"HTTP status 404(.|\n)*download {archive.filename} in a browser"
    ) as raised:
        lfw.load(2, official=True)
    assert "LOOKALIKE_MIRROR" not in str(raised.value)


def test_caltech101(serve):
    serve("caltech101", caltech101_archive())
    images = caltech101.load()
    assert images.class_names == ("Faces", "Leopards", "accordion")
    assert images.keys == (
        "BACKGROUND_Google/image_0001.jpg", "Faces/image_0001.jpg", "Leopards/image_0001.jpg",
        "accordion/image_0001.jpg", "accordion/image_0002.jpg",
    )  # fmt: skip
    assert images.labels.tolist() == [-1, 0, 1, 2, 2]
    assert images.paths[0].read_bytes() == PHOTOS[0]


def test_cifar10(serve):
    serve("cifar10", cifar10_archive())
    images = cifar10.load()
    assert images.class_names == CIFAR_CLASSES
    assert sum(key.startswith("train/") for key in images.keys) == 55 and len(images) == 66
    # Each class is numbered in the order of the batches, and within a batch in that of its rows.
    numbers = Counter()
    for name, (pixels, labels) in CIFAR_BATCHES.items():
        split = "test" if name == "test_batch" else "train"
        for array, label in zip(pixels, labels, strict=True):
            file = images.root / split / CIFAR_CLASSES[label] / f"{numbers[split, label]:04}.png"
            assert np.array_equal(read_image(file), array), file
            numbers[split, label] += 1


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_with_a_wrong_sum_is_refused(name, serve, file_server, own_cache):
    make, load, _ = ARCHIVES[name]
    archive = serve(name, make())
    content = bytearray(file_server.files[f"/{archive.filename}"])
    content[len(content) // 2] ^= 1
    file_server.files[f"/{archive.filename}"] = bytes(content)
    with pytest.raises(DownloadError) as raised:
        load()
    message = str(raised.value)
    assert f"{archive.filename}.part has the wrong checksum" in message
    assert f"download {archive.filename} in a browser and put it into {own_cache / 'downloads'}" in message
    assert not [path for path in own_cache.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_interrupted_download_resumes(name, serve, file_server):
    make, load, count = ARCHIVES[name]
    content = make()
    archive = serve(name, content)
    file_server.faults.add("drop once")
    with pytest.raises(DownloadError, match=f"{archive.filename}: .*run again to resume"):
        load()
    assert len(load()) == count
    half = len(content) // 2
    assert file_server.sent == [half, len(content) - half]


@pytest.mark.parametrize(
    ("protocol", "archive", "load"),
    [
        ("imagenette-val-train", imagenette_archive, imagenet.imagenette),
        ("lfw-leave-one-out", lfw_archive, lfw.load),
        ("lfw-held-out", lfw_archive, lfw.load),
        ("lfw-unseen-people", lfw_archive, lfw.load),
        ("caltech101-leave-one-out", caltech101_archive, caltech101.load),
        ("caltech101-unseen-classes", caltech101_archive, caltech101.load),
    ],
)
def test_frozen_protocols_bind_to_larger_archives(protocol, archive, load, serve):
    """The official archives have more images of the same classes, more classes and more distractors."""
    frozen = protocol_files.frozen(protocol)
    # A protocol of some classes has the keys of these only.
    keys = list(protocol_files.frozen({"lfw": "lfw-leave-one-out"}.get(frozen.dataset, protocol)).keys)
    first = keys[int(frozen.queries[0])]
    more = [f"{first.rpartition('/')[0]}/more_{i}.{first.rpartition('.')[2]}" for i in range(3)]
    serve(frozen.dataset, archive([*keys, *more]))
    images = load()
    bound, found = frozen.bind(images)
    assert bound is frozen and found.keys == frozen.keys
    assert found.labels.tolist() == frozen.labels.tolist() and len(images) >= len(found) + 3
    assert set(more) <= set(images.keys) - set(found.keys)


def test_the_frozen_protocol_of_cifar10_binds_to_the_png_files_of_the_archive(serve):
    """It was frozen on JPEG files. 60,000 images would take a minute, so this is the part with the first images."""
    serve("cifar10", cifar10_archive())
    images = cifar10.load()
    frozen = protocol_files.frozen("cifar10-test-train")
    assert {key.rpartition(".")[2] for key in frozen.keys} == {"jpg"}
    ids = [row for row, key in enumerate(frozen.keys) if key.replace(".jpg", ".png") in images.keys]
    assert ids and all(frozen.keys[row].startswith("train/") for row in ids)
    part = replace(
        frozen,
        keys=tuple(frozen.keys[row] for row in ids),
        labels=frozen.labels[ids],
        queries=np.arange(len(ids)),
        gallery=np.arange(len(ids)),
    )
    bound, found = part.bind(images)
    assert bound.keys == tuple(key.replace(".jpg", ".png") for key in part.keys) == found.keys
    with pytest.raises(ProtocolMismatch, match=r"lacks \d+ of the protocol's 6000"):
        frozen.bind(images)
