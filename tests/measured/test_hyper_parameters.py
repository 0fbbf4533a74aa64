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
def test_asha_finds_as_good_networks_in_half_of_the_epochs(network, tmp_path):
    """16 trials of up to 12 epochs, twice for each of three seeds: with ASHA and without. Takes ten minutes or more."""
    compared = []
    with cluster(workers=1):
        for seed in tuning_study.SEEDS:
            found = tuning_study.compare(network, seed, tmp_path, progress=False)
            # Both searches train the same trials; ASHA only ends some of them early.
            assert found["ASHA"].parameters == found["all epochs"].parameters
            for stopped, whole in zip(found["ASHA"].scores, found["all epochs"].scores, strict=True):
                assert stopped == pytest.approx(whole[: len(stopped)], abs=0.005)
            compared.append(tuning_study.comparison(found["all epochs"], found["ASHA"]))
            on_test = tuning_study.on_test_images(network, seed, found["ASHA"])
            assert on_test["repeated"] == pytest.approx(found["ASHA"].best_score, abs=0.03)
            assert on_test["low"] < on_test["test_accuracy"] < on_test["high"] and on_test["test_accuracy"] > 0.2
    assert sum(each["asha_epochs"] for each in compared) <= 0.5 * sum(each["epochs"] for each in compared)
    for each in compared:
        assert each["asha_difference"] >= -0.01
        assert each["best_score"] > 0.3, "chance is 0.1"
