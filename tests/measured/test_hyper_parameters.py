"""The search for hyper-parameters on the downloaded copy of CIFAR-10, as notebook 17 shows it."""

import pytest

from helpers import paths
from helpers.lessons import tuning_study
from helpers.networks.ray_cluster import cluster

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(
        paths.mirror_dir() is None,
        reason="NOT TESTED: the search on CIFAR-10 needs the data set; set LOOKALIKE_MIRROR to its folder",
    ),
]


@pytest.mark.parametrize("network", tuning_study.NETWORKS)
def test_asha_finds_as_good_a_network_in_half_of_the_epochs(network, tmp_path):
    """16 trials of up to 12 epochs, twice: with ASHA and without. Takes minutes."""
    with cluster(workers=1):
        found = tuning_study.compare(network, 0, tmp_path, progress=False)
    # Both searches train the same trials; ASHA only ends some of them early.
    assert found["ASHA"].parameters == found["all epochs"].parameters
    for stopped, whole in zip(found["ASHA"].scores, found["all epochs"].scores, strict=True):
        assert stopped == pytest.approx(whole[: len(stopped)], abs=0.005)
    compared = tuning_study.comparison(found["all epochs"], found["ASHA"])
    assert compared["asha_share"] <= 0.5
    assert compared["asha_difference"] >= -0.01
    assert compared["best_score"] > 0.3, "chance is 0.1"
