"""Points of a sweep: tidy rows, failures that stay alone, and interruptions."""

import json
import logging
from dataclasses import replace

import pandas as pd
import pytest
import torch

from ddgm import sweep_points
from ddgm.engine import make_operator
from ddgm.errors import DivergenceError, SettingError
from ddgm.evaluation import evaluate
from ddgm.geometry import TiltGeometry
from ddgm.held_out import HeldOutViews, held_out_error
from ddgm.methods import Algebraic
from ddgm.noise_level import estimate_noise_std
from ddgm.reconstruction import reconstruct
from ddgm.sinograms import simulate
from ddgm.sweep_points import (
    Candidate,
    SweepInputs,
    evaluate_point,
    fingerprint,
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
    pd.testing.assert_frame_equal(rows[expected.columns], expected, check_dtype=False)


def test_without_the_truth_the_rows_have_what_the_data_say(inputs, projector):
    blind = replace(inputs, truth=None)
    rows = evaluate_point(algebraic(7, projector), blind)
    assert not {"mse", "ssim", "psnr"} & set(rows)
    expected = evaluate_point(algebraic(7, projector), inputs)
    for name in ("image", "data_error", "gradient_evals"):
        assert rows[name].equals(expected[name])


def test_the_error_of_held_out_views_stands_with_the_images_it_is_of(inputs, projector):
    views = HeldOutViews.divide(projector, GEOMETRY, 4)
    both = replace(inputs, held_out=views, blind_images=2)
    rows = evaluate_point(algebraic(7, projector, 0.5), both)
    method = Algebraic(**algebraic(7, projector, 0.5).settings)
    expected = held_out_error(method, views, inputs.data[:2])
    assert rows["held_out_error"][:2].to_list() == pytest.approx(expected.tolist())
    assert rows["held_out_error"][2:].isna().all()


def test_divergence_with_fewer_views_leaves_the_result_of_all_alone(inputs, projector, monkeypatch):
    def diverge(*args, **kwargs):
        raise DivergenceError("values reach 1e9")

    monkeypatch.setattr(sweep_points, "held_out_error", diverge)
    views = HeldOutViews.divide(projector, GEOMETRY, 4)
    rows = evaluate_point(algebraic(7, projector), replace(inputs, held_out=views, blind_images=2))
    assert rows["mse"].notna().all()
    assert rows["held_out_error"].isna().all()
    assert set(rows["failure"]) == {""}


def test_the_views_held_out_are_predicted_without_being_told_the_noise(
    inputs, projector, monkeypatch
):
    told = []
    monkeypatch.setattr(
        sweep_points,
        "held_out_error",
        lambda *args, noise_std, **kwargs: told.append(noise_std) or torch.zeros(2),
    )
    views = HeldOutViews.divide(projector, GEOMETRY, 4)
    for believed in (0.5, 100.0):
        both = replace(inputs, noise_std=believed, held_out=views, blind_images=2)
        evaluate_point(algebraic(7, projector), both)
    assert told == [pytest.approx(estimate_noise_std(projector, inputs.data[:2]))] * 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
def test_a_gpu_finds_the_same(inputs, projector, tmp_path):
    rows = []
    for device in ("cpu", "cuda"):
        operator = make_operator(GEOMETRY, device, cache=tmp_path)
        views = HeldOutViews.divide(operator, GEOMETRY, 4, cache=tmp_path)
        there = replace(inputs, operator=operator, held_out=views, blind_images=2)
        rows.append(evaluate_point(algebraic(7, projector, 0.5), there).drop(columns="seconds"))
    pd.testing.assert_frame_equal(*rows, rtol=1e-3)


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


def test_a_point_that_fails_otherwise_fails_alone_and_is_tried_again(
    inputs, projector, tmp_path, monkeypatch, caplog
):
    points = [algebraic(K, projector) for K in (3, 5, 7)]

    def crowded(candidate, inputs, **kwargs):
        if candidate.swept["K"] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
        return evaluate_point(candidate, inputs, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_points, "evaluate_point", crowded)
        rows = run_points(points, inputs, tmp_path)
    (failed,) = rows[rows["failure"] != ""].to_dict("records")
    assert failed["K"] == 5
    assert failed["failure"].startswith("OutOfMemoryError: CUDA out of memory.")
    assert "\n" not in failed["failure"]
    assert failed["try_again"]
    assert not rows[rows["failure"] == ""]["try_again"].any()
    assert rows["image"].count() == 8
    assert any("sweep steps, K = 5: CUDA out of memory" in r.getMessage() for r in caplog.records)

    # With room, only this one is left to do.
    with caplog.at_level(logging.INFO):
        rows = run_points(points, inputs, tmp_path)
    done = [each.getMessage() for each in caplog.records if "done before" in each.getMessage()]
    assert done == ["sweep steps, K = 3: done before", "sweep steps, K = 7: done before"]
    assert list(rows["K"]) == [3] * 4 + [5] * 4 + [7] * 4
    assert not rows["try_again"].any()


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
    noisier = replace(inputs, data=inputs.data + 1)
    assert run_points([point], noisier, tmp_path, key="one")["mse"].equals(first["mse"])
    assert not run_points([point], noisier, tmp_path, key="two")["mse"].equals(first["mse"])


def test_a_wrong_setting_is_named(inputs, projector):
    with pytest.raises(SettingError, match="step_size"):
        evaluate_point(algebraic(3, projector, share=2), inputs)


def test_counts_stay_whole_numbers_beside_points_without(inputs, projector, diverging, tmp_path):
    points = [diverging(projector), algebraic(7, projector)]
    rows = run_points(points, inputs, tmp_path)
    for name in ("image", "gradient_evals", "network_evals"):
        assert rows[name].dtype == "Int64"
    again = run_points(points, inputs, tmp_path)
    assert again["gradient_evals"].dtype == "Int64"


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
