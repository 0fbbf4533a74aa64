"""Vocabularies: sampling, clustering, comparison and files, by hand and against slow references."""

import struct

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from helpers.features import vocabulary
from helpers.features.keypoints import extract
from helpers.features.vocabulary import (
    KeypointConfig,
    Vocabulary,
    VocabularyFileError,
    VocabularyUnavailable,
    compare_sizes,
    draw,
    learn,
    shipped,
)
from helpers.images import reading, samples
from helpers.images.folders import from_folder

pytestmark = pytest.mark.usefixtures("fresh_cache")

CONFIG = KeypointConfig(limit=60, size=128)


def distractors():
    every = samples.with_distractors()
    return every.subset(every.labels < 0)


@pytest.fixture(scope="module")
def images():
    return distractors().subset(range(0, 60, 3))


@pytest.fixture(scope="module")
def learned(images):
    return learn(images, 20, CONFIG, dim=16, progress=False)


def descriptors_of(path, config=CONFIG):
    return extract(
        reading.resize(reading.read_image(path), config.size, config.rule), config.kind, config.limit
    ).descriptors


# ---- sampling -------------------------------------------------------------------------------------------


def test_all_are_drawn_if_there_are_few(images):
    every = np.concatenate([descriptors_of(path) for path in images.paths])
    assert np.array_equal(draw(images, CONFIG, 10_000, progress=False), every)


def test_the_sample_is_uniform(images):
    """Draw 50 descriptors many times and count those of each third."""
    sizes = [len(descriptors_of(path)) for path in images.paths]
    every = np.concatenate([descriptors_of(path) for path in images.paths])
    rows = {descriptor.tobytes(): row for row, descriptor in enumerate(every)}

    class Extracted(KeypointConfig):
        def keypoints(self, images, progress=True):
            return iter(found)

    found = [extract(reading.resize(reading.read_image(p), 128, "squash"), "rootsift", 60) for p in images.paths]
    counts = np.zeros(len(every))
    for seed in range(300):
        drawn = draw(images, Extracted(limit=60, size=128), 50, seed)
        assert len(drawn) == 50
        counts[[rows[descriptor.tobytes()] for descriptor in drawn]] += 1
    thirds = np.array([part.sum() for part in np.array_split(counts, 3)])
    # Each third is drawn 5,000 times; one standard deviation is about 50.
    assert sum(sizes) == len(every) > 200 and np.abs(thirds / thirds.sum() - 1 / 3).max() < 0.02


def test_broken_images_are_skipped_with_a_warning(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.fromarray(reading.read_image(distractors().paths[0])).save(tmp_path / "whole.png")
    with pytest.warns(reading.UnreadableImageWarning, match="1 of 2"):
        assert len(draw(from_folder(tmp_path), CONFIG, progress=False))


# ---- learning -------------------------------------------------------------------------------------------


def test_words_are_means_on_principal_axes(images, learned):
    drawn = draw(images, CONFIG, progress=False)
    pca = PCA(16, svd_solver="full").fit(drawn)
    assert np.allclose(learned.project(drawn), pca.transform(drawn), atol=1e-4)
    clusters = MiniBatchKMeans(20, batch_size=4096, n_init=3, max_iter=vocabulary.EPOCHS, random_state=0)
    assert np.allclose(learned.words, clusters.fit(learned.project(drawn)).cluster_centers_, atol=1e-4)


def test_idf_counts_images(images, learned):
    has = np.zeros((len(images), len(learned)), bool)
    for row, path in enumerate(images.paths):
        for descriptor in learned.project(descriptors_of(path)):
            has[row, np.argmin(((learned.words - descriptor) ** 2).sum(axis=1))] = True
    expected = np.log(len(images) / np.maximum(has.sum(axis=0), 1))
    assert np.allclose(learned.idf, expected, atol=1e-6) and learned.idf.min() >= 0


def test_the_seed_determines_the_vocabulary(images, learned):
    again = learn(images, 20, CONFIG, dim=16, progress=False)
    assert again.digest == learned.digest
    assert learn(images, 20, CONFIG, dim=16, seed=1, progress=False).digest != learned.digest


def test_nearest_words_against_a_slow_loop(images, learned):
    projected = learned.project(descriptors_of(images.paths[0]))
    words, squared = learned.nearest(projected, 3)
    for row, descriptor in enumerate(projected):
        distances = ((learned.words - descriptor) ** 2).sum(axis=1)
        order = np.argsort(distances, kind="stable")[:3]
        assert words[row].tolist() == order.tolist() and np.allclose(squared[row], distances[order], atol=1e-5)
    assert learned.nearest(projected, 99)[0].shape == (len(projected), 20)
    assert learned.nearest(projected[:0])[0].shape == (0, 1)


def test_too_few_descriptors(images):
    few = images.subset(range(1))
    with pytest.raises(ValueError, match="too few for 500 words: give more images"):
        learn(few, 500, KeypointConfig(limit=30, size=128), dim=4, progress=False)
    with pytest.raises(ValueError, match="too few for 64 axes"):
        learn(few, 2, KeypointConfig(limit=30, size=128), progress=False)


def test_binary_descriptors_are_refused():
    with pytest.raises(ValueError, match="orb descriptors are bits"):
        KeypointConfig("orb")


# ---- number of words ------------------------------------------------------------------------------------


def slow_davies_bouldin(points, groups):
    """The mean over clusters of the worst (scatter i + scatter j) / distance (i, j)."""
    names = sorted(set(groups.tolist()))
    middles = [points[groups == name].mean(axis=0) for name in names]
    scatter = [
        np.linalg.norm(points[groups == name] - m, axis=1).mean() for name, m in zip(names, middles, strict=True)
    ]
    worst = [
        max((scatter[i] + scatter[j]) / np.linalg.norm(middles[i] - middles[j]) for j in range(len(names)) if j != i)
        for i in range(len(names))
    ]
    return np.mean(worst)


def test_davies_bouldin_against_a_slow_reference(images):
    drawn = draw(images, CONFIG, progress=False)
    table = compare_sizes(drawn, (5, 10, 20), dim=16)
    mixed = drawn[np.random.default_rng(0).permutation(len(drawn))]
    held_out, train = mixed[: len(mixed) // 5], mixed[len(mixed) // 5 :]
    pca = PCA(16, svd_solver="full").fit(train)
    for words, found in zip(table["words"], table["davies_bouldin"], strict=True):
        clusters = MiniBatchKMeans(words, batch_size=4096, n_init=3, max_iter=vocabulary.EPOCHS, random_state=0)
        groups = clusters.fit(pca.transform(train)).predict(pca.transform(held_out))
        assert found == pytest.approx(slow_davies_bouldin(pca.transform(held_out), groups), abs=1e-4)
    assert table["chosen"].sum() == 1 and table.loc[table["chosen"], "davies_bouldin"].item() == table.iloc[:, 1].min()


def test_separate_clusters_are_found():
    """Six separate clusters: six words are best."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 10, (6, 128))
    points = np.concatenate([center + rng.normal(0, 0.1, (300, 128)) for center in centers]).astype(np.float32)
    table = compare_sizes(points, (3, 6, 12), dim=8)
    assert table.loc[table["chosen"], "words"].item() == 6


# ---- files ----------------------------------------------------------------------------------------------


def test_save_and_load(learned, tmp_path):
    loaded = Vocabulary.load(learned.save(tmp_path / "new folder" / "words.npz"))
    assert loaded.digest == learned.digest and loaded.config == CONFIG and loaded.learned_from == learned.learned_from
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["words.npz"]


def test_a_missing_vocabulary(tmp_path):
    with pytest.raises(VocabularyUnavailable, match=r"words\.npz.*vocabulary\.learn\(images"):
        Vocabulary.load(tmp_path / "words.npz")
    with pytest.raises(VocabularyUnavailable, match="of 77 words.*only of 64, 1000.*learn"):
        shipped(77)


@pytest.mark.parametrize("damage", ["cut", "changed", "text", "empty", "other format", "other shape"])
def test_a_damaged_file_is_named(learned, tmp_path, damage):
    path = learned.save(tmp_path / "words.npz")
    whole = path.read_bytes()
    if damage == "other format":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vocabulary, "FORMAT", 99)
            learned.save(path)
    elif damage == "other shape":
        with np.load(path) as stored:
            np.savez(path, **{name: stored[name] for name in ("about", "mean", "axes", "words")}, idf=np.ones(3))
    else:
        # The first byte of a compressed array has an invalid kind of block.
        start = 30 + sum(struct.unpack("<HH", whole[26:30]))
        changed = whole[:start] + b"\xff" + whole[start + 1 :]
        damaged = {"cut": whole[: len(whole) // 2], "changed": changed, "text": b"hello", "empty": b""}
        path.write_bytes(damaged[damage])
    with pytest.raises(VocabularyFileError, match=r"words\.npz is not a vocabulary.*again"):
        Vocabulary.load(path)
