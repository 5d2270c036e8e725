"""Points of a sweep: tidy rows, failures that stay alone, and interruptions."""

import json
import logging

import pandas as pd
import pytest
import torch

from ddgm import sweep_points
from ddgm.blind import HeldOutViews, held_out_error
from ddgm.errors import DdgmError, SettingError
from ddgm.evaluation import evaluate
from ddgm.geometry import TiltGeometry
from ddgm.methods import Algebraic
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import simulate
from ddgm.sweep_points import (
    Candidate,
    SweepInputs,
    evaluate_point,
    fingerprint,
    forget_points,
    run_points,
)

GEOMETRY = TiltGeometry.limited_angle((16, 16), views=12)


@pytest.fixture
def inputs(projector, images):
    data = simulate(projector, images[:4], noise_std=0.5, seed=1)
    return SweepInputs(projector, data, images, None, 0.5, batch=3)


def algebraic(K, projector, share=0.9):
    settings = {"step_size": share * projector.max_step_size, "K": K}
    return Candidate("steps", "algebraic", settings, {"K": K})


@pytest.fixture
def diverging(monkeypatch):
    """Let step sizes above the limit through to the descent, which then diverges."""
    monkeypatch.setattr(Algebraic, "check", lambda self, operator: None)

    def candidate(projector):
        return algebraic(400, projector, share=20)

    return candidate


def test_a_point_is_one_row_an_image_with_its_settings(inputs, projector, images):
    rows = evaluate_point(algebraic(7, projector), inputs)
    assert list(rows["image"]) == [0, 1, 2, 3]
    assert set(rows["K"]) == {7}
    assert set(rows["sweep"]) == {"steps"}
    assert set(rows["failure"]) == {""}
    assert json.loads(rows["settings"][0]) == algebraic(7, projector).settings
    result = reconstruct(
        Algebraic(**algebraic(7, projector).settings), projector, inputs.data, batch=3
    )
    expected = evaluate(result, images).drop(columns="seconds")
    pd.testing.assert_frame_equal(rows[expected.columns], expected)


def test_the_error_of_held_out_views_stands_with_the_images_it_is_of(inputs, projector):
    views = HeldOutViews.divide(projector, GEOMETRY, 4)
    both = SweepInputs(**{**vars(inputs), "held_out": views, "held_out_images": 2})
    rows = evaluate_point(algebraic(7, projector, 0.5), both)
    method = Algebraic(**algebraic(7, projector, 0.5).settings)
    expected = held_out_error(method, views, inputs.data[:2])
    assert rows["held_out_error"][:2].to_list() == pytest.approx(expected.tolist())
    assert rows["held_out_error"][2:].isna().all()


def test_divergence_is_a_result_that_says_why(inputs, projector, diverging):
    (row,) = evaluate_point(diverging(projector), inputs).to_dict("records")
    assert row["K"] == 400
    assert "algebraic, within 400 steps: values reach" in row["failure"]
    assert "diverges" in row["failure"]


def test_points_of_a_job_are_those_of_separate_jobs(inputs, projector, diverging, tmp_path):
    points = [algebraic(3, projector), diverging(projector), algebraic(7, projector)]
    rows = run_points(points, inputs, tmp_path)
    separate = pd.concat([evaluate_point(point, inputs) for point in points], ignore_index=True)
    pd.testing.assert_frame_equal(
        rows.drop(columns="seconds"), separate.drop(columns="seconds"), check_dtype=False
    )
    assert rows["image"].count() == 8
    assert (rows["failure"] != "").sum() == 1


def test_a_point_that_fails_otherwise_fails_alone_with_its_settings(
    inputs, projector, tmp_path, monkeypatch, caplog
):
    points = [algebraic(K, projector) for K in (3, 5, 7)]

    def crowded(candidate, inputs, **kwargs):
        if candidate.swept["K"] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return evaluate_point(candidate, inputs, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_points, "evaluate_point", crowded)
        with pytest.raises(DdgmError, match=r"sweep steps, K = 5: .*out of memory") as caught:
            run_points(points, inputs, tmp_path)
    assert "\n" not in str(caught.value)
    # The others are done: with room, only this one is left.
    with caplog.at_level(logging.INFO):
        rows = run_points(points, inputs, tmp_path)
    done = [record.getMessage() for record in caplog.records if "done before" in record.message]
    assert done == ["sweep steps, K = 3: done before", "sweep steps, K = 7: done before"]
    assert list(rows["K"]) == [3] * 4 + [5] * 4 + [7] * 4


def test_an_interrupted_job_goes_on_with_the_next_point(inputs, projector, tmp_path, monkeypatch):
    points = [algebraic(K, projector) for K in (3, 5, 7)]
    computed = []

    def interrupted(candidate, inputs, **kwargs):
        if candidate.swept["K"] == 5 and len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(candidate.swept["K"])
        return evaluate_point(candidate, inputs, **kwargs)

    monkeypatch.setattr(sweep_points, "evaluate_point", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_points(points, inputs, tmp_path)
    computed.append("again")
    assert len(run_points(points, inputs, tmp_path)) == 12
    assert computed == [3, "again", 5, 7]


def test_points_done_with_other_data_or_code_are_done_anew(inputs, projector, tmp_path):
    point = algebraic(3, projector)
    first = run_points([point], inputs, tmp_path, key="one")
    noisier = SweepInputs(**{**vars(inputs), "data": inputs.data + 1})
    assert run_points([point], noisier, tmp_path, key="one")["mse"].equals(first["mse"])
    assert not run_points([point], noisier, tmp_path, key="two")["mse"].equals(first["mse"])


def test_what_is_safe_elsewhere_is_forgotten(inputs, projector, tmp_path):
    points = [algebraic(K, projector) for K in (3, 5)]
    run_points(points, inputs, tmp_path, key="one")
    assert len(list(tmp_path.iterdir())) == 2
    forget_points(points[:1], tmp_path, key="one")
    forget_points(points[1:], tmp_path, key="two")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_wrong_setting_names_point_and_setting(inputs, projector, tmp_path):
    with pytest.raises(SettingError, match="step_size"):
        evaluate_point(algebraic(3, projector, share=2), inputs)
    with pytest.raises(DdgmError, match=r"K = 3: .*step_size"):
        run_points([algebraic(3, projector, share=2)], inputs, tmp_path)


def test_a_fingerprint_follows_contents_and_values(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    same = tmp_path / "other"
    same.write_bytes(b"one")
    first = fingerprint([path], 3, None)
    assert fingerprint([same], 3, None) == first
    assert fingerprint([path], 4, None) != first
    path.write_bytes(b"two")
    assert fingerprint([path], 3, None) != first
