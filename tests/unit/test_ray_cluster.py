"""Starts of a local Ray cluster that are too slow; Ray itself does not start."""

import pytest

from helpers.networks import ray_cluster

pytest.importorskip("ray", reason="NOT TESTED: Ray is not installed")

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.fixture
def starts(monkeypatch):
    """``starts(errors)`` → a cluster whose starts raise these errors, then succeed, and the number of starts."""
    import ray

    monkeypatch.setattr(ray, "shutdown", lambda **_: None)

    def make(*errors):
        waiting, called = list(errors), []

        def init(*arguments, **options):
            called.append(options)
            if waiting:
                raise waiting.pop(0)

        monkeypatch.setattr(ray, "init", init)
        return called

    return make


def test_a_slow_start_is_repeated(starts):
    called = starts(Exception(SLOW), Exception(SLOW))
    with ray_cluster.cluster(workers=3):
        assert len(called) == ray_cluster.STARTS == 3
    assert [options["num_cpus"] for options in called] == [3, 3, 3]


def test_a_computer_that_stays_busy(starts):
    called = starts(*(Exception(SLOW) for _ in range(4)))
    with (
        pytest.raises(RuntimeError, match="did not start within 30 seconds in 3 attempts") as raised,
        ray_cluster.cluster(),
    ):
        pytest.fail("the cluster did not start")
    assert len(called) == 3 and SLOW in str(raised.value.__cause__)


def test_other_errors_are_not_repeated(starts):
    called = starts(ValueError("no such option"))
    with pytest.raises(ValueError, match="no such option"), ray_cluster.cluster():
        pytest.fail("the cluster did not start")
    assert len(called) == 1
