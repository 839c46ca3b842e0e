"""Agreement of two who label the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stair_jax.evaluation.agreement import agreement, share_and_kappa

LABELS = st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", None])] * 2), max_size=20)


def test_share_and_kappa_of_three_labels_by_hand():
    matrix = np.array([[10, 2, 0], [1, 5, 1], [0, 2, 9]])
    share, kappa = share_and_kappa(matrix)
    chance = (12 * 11 + 7 * 9 + 11 * 10) / 30**2
    assert share == pytest.approx(24 / 30)
    assert kappa == pytest.approx((24 / 30 - chance) / (1 - chance))


def test_independent_labels_have_kappa_0_and_opposite_ones_less():
    assert share_and_kappa(np.array([[4, 4], [4, 4]]))[1] == 0
    assert share_and_kappa(np.array([[0, 4], [4, 0]]))[1] == -1


def test_one_label_alone_has_agreement_and_no_kappa():
    found = agreement(["a"] * 7, ["a"] * 7)
    assert (found.share.value, found.kappa) == (1.0, None)
    assert found.share.low < 1.0  # seven rows do not prove that they always agree


@given(LABELS)
def test_agreement_is_symmetric(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    one = agreement(first, second, num_samples=50)
    assert one == agreement(second, first, num_samples=50)
    assert one.n + one.missing == len(pairs)


@given(LABELS)
def test_whoever_agrees_with_himself_does_so_always(pairs):
    labels = [a for a, _ in pairs]
    found = agreement(labels, labels, num_samples=50)
    assert found.share is None or found.share.value == 1
    assert found.kappa is None or found.kappa.value == 1
