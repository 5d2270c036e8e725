"""The best settings of a sweep."""

import json

import numpy as np
import pandas as pd
import pytest

from ddgm.errors import DdgmError
from ddgm.selection import failed_points, lowest, select


def point(K, errors, *, evals=50, sweep="sigma1"):
    """Return the rows of a point with these errors."""
    return pd.DataFrame(
        {
            "sweep": sweep,
            "method": "ddgm",
            "settings": json.dumps({"K": K, "N": evals}),
            "image": range(len(errors)),
            "mse": errors,
            "network_evals": evals,
            "failure": "",
        }
    )


def failed(K):
    settings = json.dumps({"K": K, "N": 50})
    row = {"sweep": "sigma1", "method": "ddgm", "settings": settings, "failure": "it diverges"}
    return pd.DataFrame([row])


def test_the_lowest_mean_wins_with_its_standard_error():
    rows = pd.concat([point(5, [0.3, 0.1]), point(25, [0.1, 0.2]), point(50, [0.2, 0.3])])
    choice = select(rows)
    assert choice.settings == {"K": 25, "N": 50}
    assert (choice.sweep, choice.method) == ("sigma1", "ddgm")
    assert choice.mse == pytest.approx(0.15)
    assert choice.mse_se == pytest.approx(np.std([0.1, 0.2], ddof=1) / np.sqrt(2))
    assert (choice.images, choice.points, choice.network_evals) == (2, 3, 50)


def test_a_limit_on_the_evaluations_leaves_out_what_takes_more():
    rows = pd.concat(
        [point(15, [0.1, 0.1], evals=150), point(25, [0.2, 0.2]), point(9, [0.3, 0.3])]
    )
    assert select(rows).settings["K"] == 15
    assert select(rows, network_evals=50).settings["K"] == 25
    assert select(rows, network_evals=149).points == 2


def test_means_over_different_images_are_not_compared():
    # On its own image the first point is better than the second on all, but not on the same one.
    rows = pd.concat([point(1, [0.2], sweep="dps_1000"), point(2, [0.1, 0.9])])
    choice = select(rows)
    assert choice.settings["K"] == 2
    assert (choice.images, choice.mse) == (1, pytest.approx(0.1))


def test_points_that_failed_are_not_chosen_and_are_named():
    rows = pd.concat([failed(400), point(25, [0.2, 0.3])], ignore_index=True)
    assert select(rows).settings["K"] == 25
    assert failed_points(rows) == [({"K": 400, "N": 50}, "it diverges")]


@pytest.mark.parametrize(
    ("rows", "limit", "named"),
    [
        (failed(1), None, "no finished point"),
        (failed(1), 50, "no finished point"),
        (point(1, [0.1]), 20, "at most 20 network"),
    ],
)
def test_nothing_to_choose_from_is_said(rows, limit, named):
    with pytest.raises(DdgmError, match=named):
        select(rows, network_evals=limit)


def test_the_first_of_equals_is_taken():
    table = pd.DataFrame({"score": [2.0, 1.0, 1.0], "name": list("abc")})
    assert lowest(table, "score") == {"score": 1.0, "name": "b"}
