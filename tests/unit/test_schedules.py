import itertools
import math

import pytest

from ddgm.errors import DdgmError
from ddgm.schedules import exponential_decay


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((8.0, 1.0, 4), (8.0, 4.0, 2.0, 1.0)),
        ((3.0, 0.03, 3), (3.0, 0.3, 0.03)),
        ((100.0, 0.01, 5), (100.0, 10.0, 1.0, 0.1, 0.01)),
        ((5.0, 2.0, 2), (5.0, 2.0)),
        ((5.0, 2.0, 1), (5.0,)),
    ],
)
def test_levels_fall_geometrically(arguments, expected):
    assert exponential_decay(*arguments) == pytest.approx(expected, rel=1e-12)


def test_the_papers_schedule_has_its_ends_and_a_constant_ratio():
    levels = exponential_decay(3.0, 0.03, 150)
    assert len(levels) == 150
    assert levels[0] == 3.0
    assert levels[-1] == pytest.approx(0.03, rel=1e-12)
    ratios = [after / before for before, after in itertools.pairwise(levels)]
    assert ratios == pytest.approx([0.01 ** (1 / 149)] * 149, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((3.0, 3.0, 10), ("sigma_N = 3", "sigma_1 = 3")),
        ((3.0, 4.5, 10), ("sigma_N = 4.5", "sigma_1 = 3")),
        ((3.0, 0.0, 10), ("sigma_N = 0",)),
        ((3.0, -0.1, 10), ("sigma_N = -0.1",)),
        ((-3.0, -5.0, 10), ("sigma_N = -5",)),
        ((0.0, 0.0, 10), ("sigma_N = 0",)),
        ((3.0, math.nan, 10), ("sigma_N = nan",)),
        ((math.nan, 0.1, 10), ("sigma_1 = nan",)),
        ((math.inf, 0.1, 10), ("sigma_1 = inf",)),
        ((3.0, 0.03, 0), ("N = 0",)),
        ((3.0, 0.03, -4), ("N = -4",)),
    ],
)
def test_impossible_levels_are_refused_in_one_line_that_names_the_value(arguments, named):
    with pytest.raises(DdgmError) as caught:
        exponential_decay(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    for word in named:
        assert word in message
