"""ConSE, DeViSE and captions: images in word space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from helpers.features.text import UnknownWords
from helpers.features.word_space import Captions, Conse, DeviseNetwork, RidgeDevise
from helpers.networks.word_maps import HingeRankLoss, word_map
from tests.unit.word_vectors import word_vectors

NAMES = ["dog", "cat", "boat", "zyx"]


@pytest.fixture(scope="module")
def words():
    return word_vectors(["dog", "cat", "boat"], np.eye(3) * [[1], [2], [3]], "tiny", None)


# ---- ConSE ------------------------------------------------------------------------------------------------


def test_conse_by_hand(words):
    """Class vectors have length 1, so that the weights are the probabilities: 0.6 and 0.2, not 0.1."""
    space = Conse(words, NAMES, top=2)
    assert space.unknown == ("zyx",) and space.dim == 3
    found = space.embed_images(np.array([[0.6, 0.2, 0.1, 0.1], [0, 0, 1, 0], [0.01, 0.02, 0, 0.97]]))
    np.testing.assert_allclose(found, [[3 / 10**0.5, 1 / 10**0.5, 0], [0, 0, 1], [0, 1, 0]], rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(space.embed_text("boat cat"), np.array([0, 2, 3]) / 13**0.5, rtol=1e-6)


def test_all_classes_are_the_mean(words):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 9).astype(np.float32)
    expected = probabilities[:, :3] / np.linalg.norm(probabilities[:, :3], axis=1, keepdims=True)
    np.testing.assert_allclose(Conse(words, NAMES, top=99).embed_images(probabilities), expected, rtol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 7))
def test_an_image_does_not_depend_on_the_others(seed, top, count):
    names = [f"w{row}" for row in range(6)]
    random = np.random.default_rng(seed)
    space = Conse(word_vectors(names, random.standard_normal((6, 3)), "w"), names, top)
    probabilities = random.dirichlet(np.ones(6), count)
    alone = np.concatenate([space.embed_images(probabilities[row : row + 1]) for row in range(count)])
    np.testing.assert_allclose(space.embed_images(probabilities), alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


def test_conse_of_wrong_input(words):
    space = Conse(words, NAMES)
    with pytest.raises(ValueError, match=r"needs the probabilities of 4 classes, shape \(n, 4\), got \(2, 3\)"):
        space.embed_images(np.ones((2, 3)))
    for bad in (-0.1, np.inf):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            space.embed_images(np.array([[bad, 1, 0, 0]]))
    with pytest.raises(ValueError, match=r"no class name has a word in tiny"):
        Conse(words, ["zyx"])
    with pytest.raises(ValueError, match="top must be at least 1"):
        Conse(words, NAMES, top=0)
    with pytest.raises(UnknownWords):
        space.embed_text("zyx")


# ---- DeViSE -----------------------------------------------------------------------------------------------


def clusters(seed=0, count=40):
    """Features of three classes around distant centers, and one class whose name is unknown."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    centers = np.eye(8)[:4] * 3
    return (centers[labels] + 0.3 * random.standard_normal((count, 8))).astype(np.float32), labels


def test_ridge_is_that_of_scikit_learn(words):
    features, labels = clusters()
    space = RidgeDevise(words)
    space.alphas = [0.5]
    space.fit(features, labels, NAMES)
    assert space.alpha == 0.5
    known = labels < 3
    reference = Ridge(0.5).fit(features[known], np.eye(3)[labels[known]])
    new = clusters(1)[0]
    expected = reference.predict(new)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(space.embed_images(new), expected, atol=1e-5)


def names_found(space, features, labels):
    """Whether the nearest name of each image is that of its class."""
    scores = space.embed_images(features) @ np.stack([space.embed_text(name) for name in NAMES[:3]]).T
    return (scores.argmax(axis=1) == labels)[labels < 3]


def test_ridge_finds_the_names_of_new_images(words):
    assert names_found(RidgeDevise(words).fit(*clusters(), NAMES), *clusters(1)).all()


def test_the_network_finds_the_names_of_new_images_and_repeats(words):
    """Takes seconds on a busy computer, because TensorFlow builds three trainings."""
    settings = {"hidden": 16, "dropout": 0.1, "learning_rate": 0.05}
    space = DeviseNetwork(words, epochs=15, **settings).fit(*clusters(), NAMES)
    assert names_found(space, *clusters(1)).all() and len(space.losses) == 15 and space.losses[-1] < 0.5
    found = space.embed_images(clusters(1)[0])
    assert found.shape == (40, 3) and found.dtype == np.float32
    cosine = DeviseNetwork(words, epochs=15, loss="cosine", **settings).fit(*clusters(), NAMES)
    assert names_found(cosine, *clusters(1)).all() and -1 <= cosine.losses[-1] < -0.9
    with pytest.raises(ValueError, match="loss must be hinge or cosine, got 'mse'"):
        DeviseNetwork(words, loss="mse").fit(*clusters(), NAMES)
    assert DeviseNetwork(words, epochs=2, **settings).fit(*clusters(), NAMES).losses == space.losses[:2]


def test_hinge_rank_loss_by_hand():
    loss = HingeRankLoss(np.array([[1, 0], [0, 1], [-1, 0]]), margin=0.5)
    # Scores of the three classes: (3, 2) has (3, 2, -3) / √13; (0, 2) has (0, 1, 0).
    found = np.asarray(loss.call(np.array([0, 0]), np.array([[3.0, 2.0], [0.0, 2.0]], np.float32)))
    expected = [max(0, 0.5 - 1 / 13**0.5), (0.5 - 0 + 1) + (0.5 - 0 + 0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    again = HingeRankLoss(**loss.get_config())
    np.testing.assert_allclose(again.call(np.array([[0]]), np.array([[0.0, 2.0]], np.float32)), expected[1:], rtol=1e-6)
    with pytest.raises(ValueError, match="margin must be positive"):
        HingeRankLoss(np.eye(2), margin=0)


def test_devise_of_wrong_input(words):
    features, labels = clusters()
    space = RidgeDevise(words)
    with pytest.raises(ValueError, match="ridge must be fitted first"):
        space.embed_images(features)
    with pytest.raises(ValueError, match="no image has a class whose name has a word in tiny"):
        space.fit(features, np.full(40, 3), NAMES)
    with pytest.raises(ValueError, match="labels must lie in -1 … 2"):
        space.fit(features, labels, NAMES[:3])
    with pytest.raises(ValueError, match=r"expected finite features \(n, m\) and labels \(n,\)"):
        space.fit(features * np.nan, labels, NAMES)
    space.fit(features, np.where(labels == 1, -1, labels), NAMES)
    with pytest.raises(ValueError, match=r"was fitted on vectors of 8 numbers, got \(40, 7\)"):
        space.embed_images(features[:, 1:])


def test_the_network_is_that_of_keras(words):
    """The two layers, computed without Keras."""
    features, labels = clusters()
    space = DeviseNetwork(words, hidden=4, epochs=1).fit(features, labels, NAMES)
    model = word_map(8, 3, hidden=4)
    model.set_weights([array for layer in space._layers for array in layer])
    expected = np.asarray(model(features, training=False))
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(space.embed_images(features), expected, atol=1e-5)


def test_images_that_could_not_be_read(words):
    features, labels = clusters()
    bad = features.copy()
    bad[3] = np.nan
    space = RidgeDevise(words).fit(features, labels, NAMES)
    found = space.embed_images(bad)
    assert np.isnan(found[3]).all() and np.array_equal(
        np.delete(found, 3, 0), np.delete(space.embed_images(features), 3, 0)
    )
    found = Conse(words, NAMES).embed_images(np.array([[np.nan] * 4, [1, 0, 0, 0]]))
    assert np.isnan(found[0]).all() and found[1].tolist() == [1, 0, 0]


# ---- captions ---------------------------------------------------------------------------------------------


def test_captions_are_phrases(words):
    space = Captions(words)
    found = space.embed_images(["A boat, and a cat.", "", "nothing known", "Dogs!"])
    np.testing.assert_allclose(found, [space.embed_text("boat cat"), [0] * 3, [0] * 3, [1, 0, 0]], atol=1e-6)


@given(st.integers(0, 2**16), st.integers(1, 8), st.integers(0, 5))
def test_the_likeliest_classes_give_the_same_vectors(seed, top, n):
    conse = Conse(word_vectors(NAMES[:3], np.eye(3), "tiny", None), NAMES, top=top)
    scores = np.random.default_rng(seed).dirichlet(np.ones(len(NAMES)), n).astype(np.float32)
    classes = np.argsort(-scores, axis=1)
    found = conse.embed_likeliest(classes.astype(np.int16), np.take_along_axis(scores, classes, axis=1))
    np.testing.assert_allclose(found, conse.embed_images(scores), atol=1e-6)
