"""Vocabularies: drawn, clustered, judged, saved; against slow references and by hand."""

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
from helpers.images.imageset import from_folder

pytestmark = pytest.mark.usefixtures("fresh_cache")

CONFIG = KeypointConfig(limit=60, size=128)


def distractors():
    every = samples.with_distractors()
    return every.subset(every.labels < 0)


@pytest.fixture(scope="module")
def pictures():
    return distractors().subset(range(0, 60, 3))


@pytest.fixture(scope="module")
def learnt(pictures):
    return learn(pictures, 20, CONFIG, dim=16, progress=False)


def descriptors_of(path, config=CONFIG):
    return extract(
        reading.resize(reading.read_picture(path), config.size, config.rule), config.kind, config.limit
    ).descriptors


# ---- drawing --------------------------------------------------------------------------------------------


def test_everything_is_drawn_where_there_is_room(pictures):
    every = np.concatenate([descriptors_of(path) for path in pictures.paths])
    assert np.array_equal(draw(pictures, CONFIG, 10_000, progress=False), every)


def test_each_descriptor_is_as_likely_as_any_other(pictures):
    """Of n descriptors 50 are drawn, many times: the first and the last picture's come up as often as their number."""
    sizes = [len(descriptors_of(path)) for path in pictures.paths]
    every = np.concatenate([descriptors_of(path) for path in pictures.paths])
    places = {row.tobytes(): place for place, row in enumerate(every)}

    class Kept(KeypointConfig):
        def keypoints(self, images, progress=True):
            return iter(found)

    found = [extract(reading.resize(reading.read_picture(p), 128, "squash"), "rootsift", 60) for p in pictures.paths]
    counts = np.zeros(len(every))
    for seed in range(300):
        drawn = draw(pictures, Kept(limit=60, size=128), 50, seed)
        assert len(drawn) == 50
        counts[[places[row.tobytes()] for row in drawn]] += 1
    thirds = np.array([part.sum() for part in np.array_split(counts, 3)])
    # Each third is drawn 5,000 times; one standard deviation is about 50.
    assert sum(sizes) == len(every) > 200 and np.abs(thirds / thirds.sum() - 1 / 3).max() < 0.02


def test_broken_pictures_are_left_out_aloud(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(reading.read_picture(distractors().paths[0])).save(tmp_path / "whole.png")
    with pytest.warns(reading.UnreadablePictureWarning, match="1 of 2"):
        assert len(draw(from_folder(tmp_path), CONFIG, progress=False))


# ---- learning -------------------------------------------------------------------------------------------


def test_words_are_means_on_principal_axes(pictures, learnt):
    drawn = draw(pictures, CONFIG, progress=False)
    pca = PCA(16, svd_solver="full").fit(drawn)
    assert np.allclose(learnt.project(drawn), pca.transform(drawn), atol=1e-4)
    clusters = MiniBatchKMeans(20, batch_size=4096, n_init=3, max_iter=vocabulary.EPOCHS, random_state=0)
    assert np.allclose(learnt.words, clusters.fit(learnt.project(drawn)).cluster_centers_, atol=1e-4)


def test_idf_is_counted_picture_by_picture(pictures, learnt):
    has = np.zeros((len(pictures), len(learnt)), bool)
    for row, path in enumerate(pictures.paths):
        for descriptor in learnt.project(descriptors_of(path)):
            has[row, np.argmin(((learnt.words - descriptor) ** 2).sum(axis=1))] = True
    expected = np.log(len(pictures) / np.maximum(has.sum(axis=0), 1))
    assert np.allclose(learnt.idf, expected, atol=1e-6) and learnt.idf.min() >= 0


def test_the_same_again_and_another_with_another_seed(pictures, learnt):
    again = learn(pictures, 20, CONFIG, dim=16, progress=False)
    assert again.digest == learnt.digest
    assert learn(pictures, 20, CONFIG, dim=16, seed=1, progress=False).digest != learnt.digest


def test_nearest_words_against_a_slow_loop(pictures, learnt):
    projected = learnt.project(descriptors_of(pictures.paths[0]))
    words, squared = learnt.nearest(projected, 3)
    for row, descriptor in enumerate(projected):
        distances = ((learnt.words - descriptor) ** 2).sum(axis=1)
        order = np.argsort(distances, kind="stable")[:3]
        assert words[row].tolist() == order.tolist() and np.allclose(squared[row], distances[order], atol=1e-5)
    assert learnt.nearest(projected, 99)[0].shape == (len(projected), 20)
    assert learnt.nearest(projected[:0])[0].shape == (0, 1)


def test_too_little_to_learn_from(pictures):
    few = pictures.subset(range(1))
    with pytest.raises(ValueError, match="can't make 500 words: give more pictures"):
        learn(few, 500, KeypointConfig(limit=30, size=128), dim=4, progress=False)
    with pytest.raises(ValueError, match="too few for 64 axes"):
        learn(few, 2, KeypointConfig(limit=30, size=128), progress=False)


def test_bits_have_no_words():
    with pytest.raises(ValueError, match="orb descriptors are bits"):
        KeypointConfig("orb")


# ---- how many words -------------------------------------------------------------------------------------


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


def test_the_choice_by_davies_and_bouldin_against_a_slow_reference(pictures):
    drawn = draw(pictures, CONFIG, progress=False)
    table = compare_sizes(drawn, (5, 10, 20), dim=16)
    mixed = drawn[np.random.default_rng(0).permutation(len(drawn))]
    new, old = mixed[: len(mixed) // 5], mixed[len(mixed) // 5 :]
    pca = PCA(16, svd_solver="full").fit(old)
    for words, found in zip(table["words"], table["davies_bouldin"], strict=True):
        clusters = MiniBatchKMeans(words, batch_size=4096, n_init=3, max_iter=vocabulary.EPOCHS, random_state=0)
        groups = clusters.fit(pca.transform(old)).predict(pca.transform(new))
        assert found == pytest.approx(slow_davies_bouldin(pca.transform(new), groups), abs=1e-4)
    assert table["chosen"].sum() == 1 and table.loc[table["chosen"], "davies_bouldin"].item() == table.iloc[:, 1].min()


def test_clusters_that_are_there_are_found():
    """Six heaps far from each other: six words tell them apart best."""
    rng = np.random.default_rng(0)
    heaps = rng.normal(0, 10, (6, 128))
    points = np.concatenate([heap + rng.normal(0, 0.1, (300, 128)) for heap in heaps]).astype(np.float32)
    table = compare_sizes(points, (3, 6, 12), dim=8)
    assert table.loc[table["chosen"], "words"].item() == 6


# ---- files ----------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(learnt, tmp_path):
    back = Vocabulary.load(learnt.save(tmp_path / "new folder" / "words.npz"))
    assert back.digest == learnt.digest and back.config == CONFIG and back.learnt_from == learnt.learnt_from
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["words.npz"]


def test_a_vocabulary_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(VocabularyUnavailable, match=r"words\.npz.*vocabulary\.learn\(images"):
        Vocabulary.load(tmp_path / "words.npz")
    with pytest.raises(VocabularyUnavailable, match="of 77 words.*only of 64, 1000.*learn"):
        shipped(77)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other format", "other shape"])
def test_a_damaged_file_is_named(learnt, tmp_path, damage):
    path = learnt.save(tmp_path / "words.npz")
    whole = path.read_bytes()
    if damage == "other format":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vocabulary, "FORMAT", 99)
            learnt.save(path)
    elif damage == "other shape":
        with np.load(path) as stored:
            np.savez(path, **{name: stored[name] for name in ("about", "mean", "axes", "words")}, idf=np.ones(3))
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(VocabularyFileError, match=r"words\.npz is not a vocabulary.*again"):
        Vocabulary.load(path)
