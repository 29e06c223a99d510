"""The rough memory figure of list-cfg against measured runs."""

import pytest

from xtune.config.memory import estimate


@pytest.mark.parametrize(
    ('billions', 'bits', 'recomputed', 'measured'),
    # GB at 4 x 2048 tokens with adapters of rank 16, measured on an H100
    [(8.0, 16, True, 21.6), (8.0, 4, True, 10.2), (1.54, 16, True, 5.6), (1.54, 4, True, 3.1)]
    + [(8.0, 16, False, 55.5), (8.0, 4, False, 45.2), (1.54, 16, False, 21.0), (1.54, 4, False, 19.1)],
)
def test_the_memory_figure_is_roughly_what_was_measured(billions, bits, recomputed, measured):
    assert estimate(billions, bits, 16, 4 * 2048, recomputed).total == pytest.approx(measured, rel=0.2)


def test_all_weights_take_weight_gradient_and_two_moments():
    assert estimate(7.0, 16, None, 1, True).total == pytest.approx(7 * 16 * 1.1, rel=0.01)
