"""Groups of linked images are connected components."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from helpers.images.components import Components, Link


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60))
def test_the_groups_are_those_of_scipy(edges):
    found = Components(20)
    for first, second in edges:
        apart = found.labels[first] != found.labels[second]
        assert found.join(Link(first, second, "bytes", 1.0)) == apart
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    n, expected = connected_components(coo_array((np.ones(len(first)), (first, second)), shape=(20, 20)), False)
    assert len(found.links) == 20 - n and found.firsts().tolist() == np.unique(expected, return_index=True)[1].tolist()
    assert ((found.labels[:, None] == found.labels) == (expected[:, None] == expected)).all()
