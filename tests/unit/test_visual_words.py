"""Visual words: encodings by hand and against slow loops, and the extractors in an engine."""

import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.mixture import GaussianMixture

from helpers.features import keypoints, visual_words
from helpers.features.registry import open_extractor
from helpers.features.visual_words import (
    ENCODINGS,
    NoKeypointsWarning,
    VisualWords,
    bag_of_words,
    fisher,
    soft_words,
    vlad,
)
from helpers.features.vocabulary import KeypointConfig, Vocabulary, VocabularyUnavailable, learn
from helpers.images import samples
from helpers.images.folders import from_folder
from helpers.search.engine import Engine, EngineFolderError

pytestmark = pytest.mark.usefixtures("fresh_cache")

CONFIG = KeypointConfig(limit=60, size=128)


def distractors():
    every = samples.with_distractors()
    return every.subset(every.labels < 0)


@pytest.fixture(scope="module")
def learned():
    return learn(distractors().subset(range(0, 60, 3)), 20, CONFIG, dim=16, progress=False)


@pytest.fixture(scope="module")
def descriptors():
    rng = np.random.default_rng(0)
    return keypoints.root(rng.integers(0, 200, (40, 128)))


@pytest.fixture
def photos():
    return samples.photos().subset(range(0, 120, 6))


@pytest.fixture
def flat(tmp_path):
    Image.new("RGB", (80, 60), (10, 200, 30)).save(tmp_path / "flat.png")
    Image.new("RGB", (3, 2)).save(tmp_path / "tiny.png")
    return from_folder(tmp_path)


def by_hand():
    """Two words, (0, 0) and (4, 0), on the first two axes of descriptors of 128 numbers."""
    axes = np.eye(2, 128, dtype=np.float32)
    words = np.array([(0, 0), (4, 0)], np.float32)
    idf, shares = np.array([1, 2], np.float32), np.array([0.75, 0.25], np.float32)
    variances = np.array([(1, 4), (1, 1)], np.float32)
    return Vocabulary(KeypointConfig(), np.zeros(128, np.float32), axes, words, idf, shares, variances, 0.5, "hand")


def at(*points):
    found = np.zeros((len(points), 128), np.float32)
    found[:, :2] = points
    return found


# ---- encodings ------------------------------------------------------------------------------------------


def test_bag_of_words_by_hand():
    # Two are nearest to the first word, one to the second: shares 2/3 and 1/3, times the idf, 1 and 2.
    assert np.allclose(bag_of_words(at((0, 1), (1, 0), (3, 3)), by_hand()), (2 / 3, 2 / 3))


def test_soft_assignment_by_hand():
    # On the line between both words, 1 from the first and 3 from the second: weights e^-1 and e^-9.
    share = np.exp(-1) / (np.exp(-1) + np.exp(-9))
    assert np.allclose(soft_words(at((1, 0)), by_hand()), (share, 2 * (1 - share)), atol=1e-6)
    # Far from all words, the shares still sum to one.
    assert np.allclose(soft_words(at((1e4, 0)), by_hand()), (0, 2))


def test_vlad_by_hand():
    # Differences (0, 1) and (1, 0) from the first word, (-1, 3) from the second; roots (1, 1) and (-1, √3).
    found = at((0, 1), (1, 0), (3, 3))
    assert np.allclose(vlad(found, by_hand()), (0.5**0.5, 0.5**0.5, -0.5, 0.75**0.5))


def without_root(values):
    return np.sign(values) * values**2


def test_fisher_vector_by_hand():
    # All belong to the first word, one standard deviation (1 and 2) from its mean on each axis. The gradient with
    # respect to the mean is 1, to the deviation (1 - 1) / √2, both divided by the root of the word's share.
    found = without_root(fisher(at((-1, 2), (-1, 2)), by_hand()))
    assert np.allclose(found[:2], np.array((-1, 1)) / np.sqrt(0.75), atol=1e-3)
    assert np.allclose(found[4:6], 0, atol=1e-3)
    assert np.allclose(fisher(at((-1, 2)), by_hand())[:2], np.array((-1, 1)) / 0.75**0.25, atol=1e-3)


def test_fisher_vector_is_the_gradient_of_the_likelihood(descriptors, learned):
    """Against numerical derivatives of scikit-learn's log-likelihood of the same mixture."""
    projected = learned.project(descriptors).astype(np.float64)

    def likelihood(means, deviations):
        mixture = GaussianMixture(len(learned), covariance_type="diag")
        mixture.weights_, mixture.means_, mixture.covariances_ = learned.shares.astype(float), means, deviations**2
        mixture.precisions_cholesky_ = 1 / deviations
        return mixture.score(projected)

    means, deviations = learned.words.astype(float), np.sqrt(learned.variances.astype(float))
    found = without_root(fisher(descriptors, learned)).reshape(2, *means.shape)
    for word, axis in ((0, 0), (3, 5), (11, 2), (19, 15)):
        step = np.zeros_like(means)
        step[word, axis] = 1e-5 * deviations[word, axis]
        by_mean = likelihood(means + step, deviations) - likelihood(means - step, deviations)
        by_deviation = likelihood(means, deviations + step) - likelihood(means, deviations - step)
        share = np.sqrt(learned.shares[word])
        assert found[0, word, axis] == pytest.approx(by_mean / 2e-5 / share, abs=1e-3)
        assert found[1, word, axis] == pytest.approx(by_deviation / 2e-5 / share / np.sqrt(2), abs=1e-3)


def slow(descriptors, vocabulary):
    """Bag of words, soft words and VLAD, descriptor by descriptor in float64."""
    k, dim = vocabulary.words.shape
    hard, soft, sums = np.zeros(k), np.zeros(k), np.zeros((k, dim))
    for descriptor in descriptors:
        projected = vocabulary.axes.astype(np.float64) @ (descriptor - vocabulary.mean)
        squared = np.array([((projected - word) ** 2).sum() for word in vocabulary.words])
        order = np.argsort(squared, kind="stable")
        hard[order[0]] += 1 / len(descriptors)
        weights = [np.exp(-squared[word] / (2 * vocabulary.spread)) for word in order[:3]]
        for word, weight in zip(order[:3], weights, strict=True):
            soft[word] += weight / sum(weights) / len(descriptors)
        sums[order[0]] += projected - vocabulary.words[order[0]]
    sums = np.sign(sums) * np.abs(sums) ** 0.5
    for word in range(k):
        if np.linalg.norm(sums[word]):
            sums[word] /= np.linalg.norm(sums[word])
    return hard * vocabulary.idf, soft * vocabulary.idf, sums.ravel()


def test_against_a_slow_loop(descriptors, learned):
    encodings = (bag_of_words, soft_words, vlad)
    for encode, expected in zip(encodings, slow(descriptors, learned), strict=True):
        found = encode(descriptors, learned)
        assert found.dtype == np.float32 and np.allclose(found, expected, atol=1e-5), encode.__name__


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_keypoints_give_zeros(learned, encoding):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ENCODINGS[encoding].encode(np.empty((0, 128), np.float32), learned)
    assert found.shape == (VisualWords(encoding, learned).dim,) and not found.any()


# ---- extractors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
class TestExtractors:
    def test_in_an_engine(self, own_cache, photos, encoding):
        engine = Engine(f"sift-{encoding}").fit(photos)
        result = engine.query(photos.paths[7], k=3)[0]
        assert result.id == 7 and result.score == pytest.approx(1, abs=1e-4)
        assert engine.extractor.weights.startswith("imagenette")

    def test_vectors_do_not_depend_on_batches_and_cores(self, own_cache, photos, learned, encoding, monkeypatch):
        found = VisualWords(encoding, learned).extract(photos, cache=False)
        assert np.array_equal(VisualWords(encoding, learned).extract(photos, cache=False), found)
        assert np.array_equal(VisualWords(encoding, learned, batch_size=1).extract(photos, cache=False), found)
        monkeypatch.setattr("joblib.cpu_count", lambda: 1)
        assert np.array_equal(VisualWords(encoding, learned).extract(photos, cache=False), found)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)

    def test_a_flat_image_has_a_zero_vector_and_a_warning(self, own_cache, flat, learned, encoding):
        words = VisualWords(encoding, learned)
        for _ in range(2):  # computed, then stored
            with pytest.warns(NoKeypointsWarning, match=r"in 2 of 2 images: flat\.png, tiny\.png"):
                assert not words.extract(flat).any()
        with pytest.warns(NoKeypointsWarning, match="in 1 of 1 images: image 0"):
            assert not words.extract_arrays([np.zeros((50, 50, 3), np.uint8)]).any()


def test_a_flat_image_as_query(own_cache, photos, flat, learned):
    engine = Engine(VisualWords("vlad", learned)).fit(photos)
    with pytest.warns(NoKeypointsWarning):
        results = engine.query(flat.paths[0], k=5)
    assert len(results) == 5 and all(result.score == 0 for result in results)


def test_the_rate_excludes_imports_and_hashes(own_cache, photos, learned, monkeypatch):
    words, calls = VisualWords("bow", learned), []
    monkeypatch.setattr(words, "prepare", lambda: calls.append("prepare"))
    monkeypatch.setattr(visual_words, "content_hashes", lambda files: calls.append("hashes"))
    monkeypatch.setattr(visual_words, "extract_files", lambda *_, **__: calls.append("keypoints") or [])
    assert list(words.iter_batches(photos.paths)) == [] and calls == ["prepare", "hashes", "keypoints"]


def test_the_vocabulary_changes_the_fingerprint(learned):
    other = replace(learned, idf=learned.idf + 1)
    assert VisualWords("bow", learned).fingerprint != VisualWords("bow", other).fingerprint
    assert VisualWords("bow", learned).fingerprint != VisualWords("soft", learned).fingerprint


def test_saved_with_its_vocabulary(own_cache, photos, learned, tmp_path):
    learned.save(tmp_path / "words.npz")
    words = open_extractor("sift-vlad", vocabulary=tmp_path / "words.npz")
    Engine(words).fit(photos).save(tmp_path / "engine")
    again = Engine.load(tmp_path / "engine", open_extractor("sift-vlad", vocabulary=tmp_path / "words.npz"))
    assert again.query(photos.paths[3], k=1)[0].id == 3
    with pytest.raises(EngineFolderError, match="Give the same extractor"):
        Engine.load(tmp_path / "engine")


def test_a_missing_vocabulary(tmp_path):
    with pytest.raises(VocabularyUnavailable, match="learn"):
        open_extractor("sift-bow", vocabulary=tmp_path / "none.npz")
    with pytest.raises(ValueError, match="encoding must be one of bow, soft, vlad, fisher"):
        VisualWords("fisher-price")


@pytest.mark.slow
def test_the_limit_of_keypoints(learned):
    leaves = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (1150, 1150)), (0, 0), 1)
    leaves = np.clip(128 + 60 * leaves / leaves.std(), 0, 255).astype(np.uint8)
    every = keypoints.extract(leaves, "sift", limit=10**6)
    found = keypoints.extract(leaves, "sift", limit=500)
    assert len(every) > 50_000 and len(found) == 500
    assert np.array_equal(found.responses, every.responses[:500])
