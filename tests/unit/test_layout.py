"""The layout of folders: usual sides are recognized, the rest is reported, and layouts without valid scores refused."""

import contextlib
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.evaluation import builders
from helpers.images.folders import from_folder
from helpers.images.layout import GALLERY_NAMES, QUERY_NAMES, LayoutError, read_layout, two_folders
from helpers.images.tables import from_table


def tree(root, *files):
    """Empty files: a layout reads names only. ``a/cat/3`` stands for three images in ``a/cat``."""
    for file in files:
        folder, _, name = file.rpartition("/")
        (root / folder).mkdir(parents=True, exist_ok=True)
        for path in [f"{i}.jpg" for i in range(int(name))] if name.isdigit() else [name] if name else []:
            (root / folder / path).touch()
    return root


def layout_of(root, *files, **options):
    return read_layout(from_folder(tree(root, *files)), **options)


def test_folders_are_classes(tmp_path):
    layout = layout_of(tmp_path / "photos", "cat/3", "dog/2")
    assert layout.sides is None and layout.images.class_names == ("cat", "dog")
    assert layout.for_evaluation().describe() == [
        "layout: 5 images, 2 classes (cat, dog), no split",
        "note: each image is a query",
    ]


@pytest.mark.parametrize("gallery", [name for kind in GALLERY_NAMES for name in kind] + ["Train", "GALLERY"])
@pytest.mark.parametrize("queries", [name for kind in QUERY_NAMES for name in kind] + ["Test", "VAL"])
def test_usual_sides_are_recognized(tmp_path, gallery, queries):
    layout = layout_of(tmp_path, f"{gallery}/cat/2", f"{gallery}/dog/1", f"{queries}/cat/1", f"{queries}/dog/1")
    assert (layout.gallery, layout.queries) == ((gallery,), (queries,))
    assert layout.images.class_names == ("cat", "dog") and not layout.left_out
    for each in (layout, layout.for_evaluation()):
        assert each.describe() == [
            f"layout: gallery {gallery} (3 images, 2 classes), queries {queries} (2 images, 2 classes)"
        ]
    assert [key.split("/")[0] for key in np.array(layout.images.keys)[layout.is_query]] == [queries] * 2
    assert (layout.is_query != layout.in_gallery).all()


def test_what_is_next_to_the_sides_is_left_out(tmp_path):
    """A stray image or an unlabeled folder must not turn the sides into classes."""
    layout = layout_of(
        tmp_path, "train/cat/2", "train/dog/2", "test/cat/1", "test/dog/1", "unlabeled/7", "more/fox/3", "preview.jpg"
    )
    assert len(layout.images) == 6 and layout.images.class_names == ("cat", "dog")
    assert layout.left_out == {"more": 3, "unlabeled": 7, "next to the sides: preview.jpg": 1}
    assert layout.describe()[1] == (
        "left out: more (3 images), unlabeled (7 images), next to the sides: preview.jpg (1 image)"
    )


def test_of_several_query_sides_test_is_used(tmp_path):
    files = [f"{side}/{name}/2" for side in ("train", "dev", "test") for name in ("cat", "dog")]
    layout = layout_of(tmp_path, *files)
    assert layout.names == ("train", "test", "dev")  # an audit compares all
    used = layout.for_evaluation()
    assert (used.gallery, used.queries, used.left_out) == (("train",), ("test",), {"dev": 4})
    assert len(used.images) == 8 and used.names == ("train", "test")
    dev = read_layout(from_folder(tmp_path), test=["dev"])
    assert (dev.gallery, dev.queries, dev.left_out) == (("train",), ("dev",), {"test": 4})


def test_a_gallery_and_queries_come_before_train_and_test(tmp_path):
    """As in data sets for re-identification, where train has other classes."""
    files = ["train/3/2", "train/4/2", *(f"{side}/{name}/2" for side in ("gallery", "query") for name in "12")]
    used = layout_of(tmp_path, *files).for_evaluation()
    assert (used.gallery, used.queries, used.left_out) == (("gallery",), ("query",), {"train": 4})
    assert used.images.class_names == ("1", "2")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/cat/2", "train/dog/2", "val/cat/1", "valid/dog/1"], "the queries with --test"),
        (["train/cat/2", "training/dog/2", "test/cat/1", "test/dog/1"], "the gallery with --train"),
        (["val/cat/2", "val/dog/2", "test/cat/1", "test/dog/1"], "the gallery with --train"),
        (["train/cat/2", "gallery/cat/2", "gallery/dog/1"], "the queries with --test"),
        (["train/cat/2", "train/dog/1", "test/"], "test in .* holds no images"),
        (["train/2", "test/2"], "no image has a class"),
        (["train/cat/2", "train/dog/2", "test/2"], "no class in common"),
        (["train/cat/2", "train/dog/2", "test/Cats/2"], "no class in common"),
        (["train/cat/2", "test/cat/2"], "only one class, cat"),
        (["3"], "no image has a class"),
        (["cat/3"], "only one class, cat"),
        (["cat/3", "preview.jpg"], "only one class, cat"),
        (["train/cat/2", "train/dog/2"], "holds the folders cat, dog: did you mean .*train, or --classes-from parent"),
        (["data/train/cat/2", "data/test/cat/2"], "holds the folders test, train: did you mean .*data"),
    ],
)
def test_layouts_without_valid_scores_are_refused(tmp_path, files, message):
    layout = layout_of(tmp_path, *files)
    with pytest.raises(LayoutError, match=message):
        layout.for_evaluation()
    assert layout.describe()[0].startswith("layout: ")


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (["cat/2", "dog/2", "test/2"], "test is read as a class, because no other folder holds the gallery"),
        (["car/2", "plane/2", "train/2"], "train is read as a class, because no other folder holds the queries"),
        (
            ["cat/2", "dog/2", "a.jpg", "b.jpg"],
            r"without a class, because directly in photos: 2 images \(a\.jpg, b\.jpg\)",
        ),
        (["cat/2", "Cat/2"], "the classes Cat, cat differ in case only"),
        (
            ["cat/siamese/2", "cat/1", "dog/2"],
            "in folders .*: 2 images, such as in cat/siamese; the class there is cat, or siamese with",
        ),
    ],
)
def test_unusual_layouts_have_a_note(tmp_path, files, note):
    layout = layout_of(tmp_path / "photos", *files)
    assert layout.sides is None
    (line,) = layout.describe()[1:]
    assert re.match(f"note: {note}", line)


def test_queries_of_classes_that_the_gallery_lacks_are_counted(tmp_path):
    files = ["train/cat/2", "train/dog/2", "test/cat/1", "test/dog/1", "test/fox/3", "test/a.jpg"]
    assert layout_of(tmp_path, *files).for_evaluation().notes == (
        "without a class, because directly in test: 1 image (test/a.jpg)",
        "4 queries will find no relevant image: train does not have fox",
    )


def test_the_parent_folder_can_be_the_class(tmp_path):
    files = ["2023/cat/2", "2023/dog/2", "2024/cat/1", "2024/fox/1", "x.jpg"]
    layout = layout_of(tmp_path, *files, classes_from="parent")
    assert layout.images.class_names == ("cat", "dog", "fox") and layout.images.counts.tolist() == [3, 2, 1]
    deep = layout_of(tmp_path / "one", "train/cat/2", "train/dog/2", classes_from="parent")
    assert deep.for_evaluation().images.class_names == ("cat", "dog")


def test_given_sides(tmp_path, monkeypatch):
    files = ["a/cat/2", "a/dog/2", "b/x/cat/1", "b/x/dog/1", "b/y/cat/4", "b/z.jpg", "unlabeled/3"]
    root = tree(tmp_path / "data", *files)
    images = from_folder(root)
    monkeypatch.chdir(tmp_path)
    for train, test in (["a", "b/x"], ["data/a", "data/b/x"], [root / "a", root / "b" / "x"]):
        layout = read_layout(images, train=[train, "unlabeled"], test=[test]).for_evaluation()
        assert (layout.gallery, layout.queries) == (("a", "unlabeled"), ("b/x",))
        assert layout.left_out == {"b/y": 4, "next to the sides: b/z.jpg": 1}
        # Images without a class in the gallery are distractors.
        assert layout.images.class_names == ("cat", "dog") and (layout.images.labels == -1).sum() == 3
    protocol = builders.from_layout(layout, "data")
    assert protocol.name == "data-b-x-a-unlabeled"
    assert [protocol.keys[i] for i in protocol.queries] == ["b/x/cat/0.jpg", "b/x/dog/0.jpg"]
    assert len(protocol.gallery) == 7 and protocol.n_distractors == 3
    for options in ({"train": ["a"]}, {"train": ["a"], "test": ["none"]}, {"train": ["b"], "test": ["b/x"]},
                    {"train": ["a"], "test": ["a"]}, {"train": [tmp_path], "test": ["b/x"]}):  # fmt: skip
        with pytest.raises(LayoutError):
            read_layout(images, **options)


def test_sides_are_found_through_a_link(tmp_path):
    """A link to the set, and one inside the set, whose name is part of the keys."""
    root = tree(tmp_path / "data", "train/cat/2", "train/dog/2")
    tree(tmp_path / "elsewhere", "cat/1", "dog/1")
    (root / "test").symlink_to(tmp_path / "elsewhere")
    link = tmp_path / "link"
    link.symlink_to(root)
    for folder in (root, link):
        images = from_folder(folder, follow_links=True)
        layout = read_layout(images, train=[link / "train"], test=[link / "test"]).for_evaluation()
        assert (layout.gallery, layout.queries) == (("train",), ("test",))


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (["cat/1", "dog/1"], "no image is a query, because no class has two images"),
        (["cat/2", "dog/1"], "2 of 3 images are queries; the others have no class, or are the only image of their"),
    ],
)
def test_the_number_of_queries_is_noted(tmp_path, files, note):
    assert layout_of(tmp_path, *files).for_evaluation().notes[-1].startswith(note)


def test_a_table_has_its_classes(tmp_path):
    root = tree(tmp_path, "train/2", "test/2")
    rows = ["path,label", "train/0.jpg,a", "train/1.jpg,b", "test/0.jpg,a", "test/1.jpg,"]
    (root / "table.csv").write_text("\n".join(rows))
    images = from_table(root / "table.csv")
    assert read_layout(images, classes_from="table").sides is None
    layout = read_layout(images, ["train"], ["test"], classes_from="table").for_evaluation()
    assert layout.images.class_names == ("a", "b")
    assert layout.describe()[0] == "layout: gallery train (2 images, 2 classes), queries test (2 images, 1 class)"
    assert layout.notes == ("1 query will find no relevant image",)


def test_two_folders_are_the_sides(tmp_path):
    first, second = (from_folder(tree(tmp_path / name, "cat/2", "dog/1")) for name in ("old", "new"))
    layout = two_folders(first, second, ("old", "new"))
    assert layout.sides.tolist() == [0, 0, 0, 1, 1, 1] and layout.images.keys[3] == "new/cat/0.jpg"
    assert layout.describe() == ["layout: old (3 images, 2 classes), new (3 images, 2 classes)"]


NAMES = st.sampled_from(["train", "Test", "val", "gallery", "query", "cat", "dog", "Cat", "unlabeled", "", "deep"])


@settings(max_examples=40, deadline=None)
@given(st.sets(st.tuples(NAMES, NAMES, NAMES, st.integers(0, 2)), min_size=1), st.sampled_from(["first", "parent"]))
def test_every_image_is_used_or_left_out(files, classes_from):
    with tempfile.TemporaryDirectory() as folder:
        for *names, number in files:
            (path := Path(folder, *names)).mkdir(parents=True, exist_ok=True)
            (path / f"{number}.jpg").touch()
        images = from_folder(folder)
        layout = read_layout(images, classes_from=classes_from)
        used = [layout]
        with contextlib.suppress(LayoutError):
            used.append(layout.for_evaluation())
        for each in used:
            assert len(each.images) + sum(each.left_out.values()) == len(images)
            assert set(each.images.keys) <= set(images.keys)
            assert each.images.counts.all() or not len(each.images.class_names)
            for key, label in zip(each.images.keys, each.images.labels, strict=True):
                parts = key.split("/")[:-1]
                if each.sides is not None:
                    assert parts.pop(0) == each.names[each.sides[each.images.keys.index(key)]]
                name = parts[0 if classes_from == "first" else -1] if parts else None
                assert name == (None if label < 0 else each.images.class_names[label])
        if len(used) == 2:
            # Scores need at least two classes.
            assert len(used[1].images.class_names) >= 2
