"""The table of published claims: every number of a measurement comes from the run."""

import re
from string import Formatter

import pytest

from helpers.lessons import full_profile, published_claims

#: The names of the numbers that the table needs.
FIELDS = {name for claim in published_claims.CLAIMS for _, name, _, _ in Formatter().parse(claim.measured) if name}


def test_the_numbers_of_a_run_are_filled_in():
    measured = dict.fromkeys(FIELDS, 0.12345)
    table = published_claims.table(measured | {"annoy_recall": 0.728, "sketches_first": "[0.556, 0.778]"})
    assert list(table.columns) == ["claimed", "what we measure", "why"] and len(table) == len(published_claims.CLAIMS)
    measurements = "\n".join(table["what we measure"])
    assert "0.728 of the true neighbors" in measurements and "intervals are [0.556, 0.778] and" in measurements
    assert table["claimed"][3].endswith("or the reverse ([1]).") and "{" not in measurements


def test_no_measured_number_is_typed():
    """Without its fields, a measurement has no decimal number."""
    for claim in published_claims.CLAIMS:
        assert not re.findall(r"\d+\.\d+", re.sub(r"\{[^}]*\}", "", claim.measured)), claim.claimed


def test_a_missing_number_is_an_error():
    measured = dict.fromkeys(FIELDS - {"annoy_ms"}, 1.0)
    with pytest.raises(KeyError, match="annoy_ms"):
        published_claims.table(measured)


@pytest.mark.parametrize("number", ["96 %", "0.938/0.953/0.955/0.960", "0.170/0.398/0.510/0.637", "0.677", "0.292",
                                    "19 %", "0.0019", "0.0088", "92 to 5923", "0.2 to 1.5 s"])  # fmt: skip
def test_the_claims_of_the_course_are_there(number):
    assert sum(number in claim.claimed for claim in published_claims.CLAIMS) == 1


def test_numbers_of_the_full_profile_are_those_of_its_tables():
    numbers = published_claims.from_full_profile()
    assert numbers.keys() < FIELDS
    assert numbers["map_ceiling"] == pytest.approx(0.02) and numbers["map_vgg"] == pytest.approx(0.44)
    assert numbers["sketches_first"] == "[0.556, 0.778]"
    words = full_profile.table("17_cifar10_study_classifiers")
    lowest = words[words["fusion"] == "HOG + SIFT, raw counts"]["test accuracy"].min()
    assert numbers["neighbors_raw"] == lowest < numbers["others_low"] < numbers["others_high"]
    systems = full_profile.table("13_indexes_at_scale_published")
    assert numbers["annoy_recall"] in systems["recall"].tolist()
    assert numbers["annoy_recall"] < numbers["graph_recall"]
    assert numbers["annoy_gb"] == systems.loc[systems["index"] == "published", "megabytes"].item() / 1000
    assert numbers["from_scratch"].startswith("0.405/") and numbers["pretrained"].startswith("0.975/")
