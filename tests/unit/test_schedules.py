import itertools
import math

import pytest

from ddgm.errors import DdgmError
from ddgm.schedules import exponential_decay, generation_alpha, generation_decay


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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # (1 − α)² + αβ = 1/4 + 0, 1/4 + 1/2, 0 + 1/4: σ falls by its root.
        ((8.0, 0.5, 0.0, 4), (8.0, 4.0, 2.0, 1.0)),
        ((2.0, 0.5, 1.0, 3), (2.0, math.sqrt(3.0), 1.5)),
        ((8.0, 1.0, 0.25, 3), (8.0, 4.0, 2.0)),
        ((5.0, 0.5, 0.5, 1), (5.0,)),
    ],
)
def test_levels_of_generation_follow_equation_2(arguments, expected):
    assert generation_decay(*arguments) == pytest.approx(expected, rel=1e-12)


def test_the_papers_generation_ends_near_the_lowest_level_of_the_training():
    levels = generation_decay(30.0, 0.183, 0.5, 50)
    assert len(levels) == 50
    assert levels[0] == 30.0
    assert (levels[1] / levels[0]) ** 2 == pytest.approx(0.758989, rel=1e-9)
    # 30 · 0.758989^24.5
    assert levels[-1] == pytest.approx(0.03491, abs=1e-5)


def test_the_papers_alpha_is_what_its_last_level_asks_for():
    assert generation_alpha(30.0, 0.03491, 0.5, 50) == pytest.approx(0.183, abs=1e-5)


@pytest.mark.parametrize(
    ("sigma_1", "sigma_N", "beta", "N"),
    [
        (3.0, 0.03, 0.5, 1000),
        (30.0, 0.03, 0.5, 50),
        (3.0, 0.03, 0.0, 5),
        (3.0, 0.03, 1.0, 40),
        (3.0, 2.0, 0.5, 2),
    ],
)
def test_generation_with_the_solved_alpha_ends_at_the_last_level(sigma_1, sigma_N, beta, N):
    alpha = generation_alpha(sigma_1, sigma_N, beta, N)
    assert 0 < alpha <= 1 - beta / 2  # the smaller root
    levels = generation_decay(sigma_1, alpha, beta, N)
    assert levels == pytest.approx(exponential_decay(sigma_1, sigma_N, N), rel=1e-9)


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
def test_too_few_levels_are_refused_with_the_least_number_that_will_do(beta):
    with pytest.raises(DdgmError, match="N = 2 is too small") as caught:
        generation_alpha(30.0, 0.03, beta, 2)
    least = int(str(caught.value).split()[-1])
    assert generation_alpha(30.0, 0.03, beta, least) > 0
    with pytest.raises(DdgmError, match=f"at least {least}"):
        generation_alpha(30.0, 0.03, beta, least - 1)


@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (generation_decay, (0.0, 0.2, 0.5, 5), "sigma_1 = 0"),
        (generation_decay, (math.inf, 0.2, 0.5, 5), "sigma_1 = inf"),
        (generation_decay, (30.0, 0.0, 0.5, 5), "alpha = 0"),
        (generation_decay, (30.0, 1.5, 0.5, 5), "alpha = 1.5"),
        (generation_decay, (30.0, math.nan, 0.5, 5), "alpha = nan"),
        (generation_decay, (30.0, 1.0, 1.0, 5), "alpha = 1"),  # all the noise comes back
        (generation_decay, (30.0, 0.2, -0.1, 5), "beta = -0.1"),
        (generation_decay, (30.0, 0.2, 1.1, 5), "beta = 1.1"),
        (generation_decay, (30.0, 0.2, 0.5, 0), "N = 0"),
        (generation_alpha, (30.0, 0.03, 1.1, 50), "beta = 1.1"),
        (generation_alpha, (30.0, 0.03, 0.5, 1), "N = 1"),
        (generation_alpha, (30.0, 30.0, 0.5, 50), "sigma_N = 30"),
    ],
)
def test_impossible_settings_of_generation_are_refused_in_one_line(function, arguments, named):
    with pytest.raises(DdgmError) as caught:
        function(*arguments)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
