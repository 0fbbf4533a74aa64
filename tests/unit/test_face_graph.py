"""dlib's face network, computed by OpenVINO: dlib itself is the reference."""

import numpy as np
import pytest

from helpers.features import faces
from helpers.images import att_faces
from helpers.images.reading import read_image, resize
from helpers.networks.face_network import DIM, face_network

dlib = pytest.importorskip("dlib")


@pytest.fixture(scope="module")
def path():
    return faces.model_files()[faces.NETWORK_FILE]


@pytest.fixture(scope="module")
def aligned():
    """Five aligned faces, and noise, which uses all of the network's channels."""
    images = [resize(read_image(path), 250, "pad") for path in att_faces.load().paths[:50:10]]
    found = [faces.align(image, faces.choose(faces.find_faces(image), image.shape)) for image in images]
    return np.stack([*found, np.random.default_rng(0).integers(0, 256, found[0].shape, np.uint8)])


def test_it_agrees_with_dlib(path, aligned):
    expected = np.array(dlib.face_recognition_model_v1(str(path)).compute_face_descriptor(list(aligned)))
    network = face_network(path)
    found = network(aligned)
    assert found.shape == (len(aligned), DIM) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_array_equal(network(aligned[3:4]), found[3:4])


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:19000],
        lambda content: content.replace(b"affine_", b"bn_con2"),
        lambda content: content.replace(b"fc_2", b"fc_1"),
        lambda content: b"",
    ],
)
def test_another_file_is_refused(path, tmp_path, change):
    other = tmp_path / "other.dat"
    other.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError):
        face_network(other)
