import numpy as np
import pandas as pd
import pytest
import torch

from ddgm.errors import DdgmError
from ddgm.metrics import image_metrics


def pair(count=6):
    generator = torch.Generator().manual_seed(3)
    truth = torch.randn(count, 24, 20, generator=generator)
    scale = torch.linspace(0.1, 1.5, count)[:, None, None]
    return truth + scale * torch.randn(truth.shape, generator=generator), truth


def test_there_is_one_row_an_image():
    frame = image_metrics(*pair(4))
    assert list(frame.columns) == ["image", "mse", "psnr", "ssim"]
    assert list(frame["image"]) == [0, 1, 2, 3]


def test_mse_is_the_mean_squared_difference_of_each_image():
    images, truth = pair()
    expected = ((images.double() - truth.double()) ** 2).mean(dim=(1, 2)).numpy()
    np.testing.assert_allclose(image_metrics(images, truth)["mse"], expected, rtol=1e-5)


def test_a_constant_offset_has_its_square_as_mse():
    _, truth = pair(2)
    offset = torch.tensor([0.5, -2.0])[:, None, None]
    assert list(image_metrics(truth + offset, truth)["mse"]) == pytest.approx([0.25, 4], rel=1e-5)


def test_psnr_is_that_of_the_mse_in_the_range():
    images, truth = pair()
    frame = image_metrics(images, truth, data_range=5.0)
    np.testing.assert_allclose(frame["psnr"], 10 * np.log10(25.0 / frame["mse"]), rtol=1e-5)


def test_identical_images_have_no_error_and_a_similarity_of_one():
    _, truth = pair()
    frame = image_metrics(truth.clone(), truth)
    assert (frame["mse"] == 0).all()
    assert list(frame["ssim"]) == pytest.approx([1.0] * 6, abs=1e-6)


def test_similarity_falls_as_noise_grows():
    frame = image_metrics(*pair())
    assert (frame["ssim"].diff().dropna() < 0).all()
    assert frame["ssim"].between(-1, 1).all()


def test_ssim_of_constant_images_follows_from_its_definition():
    # Without variance, SSIM is the luminance term (2ab + c₁) / (a² + b² + c₁), c₁ = (0.01 L)².
    a, b, L = 0.3, 0.7, 2.0
    c1 = (0.01 * L) ** 2
    frame = image_metrics(torch.full((1, 16, 16), a), torch.full((1, 16, 16), b), data_range=L)
    assert frame["ssim"][0] == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), abs=1e-3)


def test_an_image_scores_the_same_however_the_set_is_batched():
    images, truth = pair()
    data_range = float(truth.max() - truth.min())
    whole = image_metrics(images, truth, data_range=data_range)
    parts = [
        image_metrics(images[part], truth[part], data_range=data_range)
        for part in (slice(0, 1), slice(1, 5), slice(5, 6))
    ]
    together = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(
        together[["mse", "psnr", "ssim"]], whole[["mse", "psnr", "ssim"]], rtol=1e-5, atol=1e-6
    )


def test_the_range_is_that_of_the_truth_unless_given():
    images, truth = pair()
    images[0] *= 100
    given = image_metrics(images, truth, data_range=float(truth.max() - truth.min()))
    pd.testing.assert_frame_equal(image_metrics(images, truth), given)


def test_the_range_matters():
    images, truth = pair()
    narrow = image_metrics(images, truth, data_range=1.0)["ssim"]
    wide = image_metrics(images, truth, data_range=20.0)["ssim"]
    assert (wide > narrow).all()


@pytest.mark.parametrize("shape", [(5, 24, 20), (6, 24, 21), (6, 1, 24, 20)])
def test_images_of_another_shape_are_refused_with_both_shapes(shape):
    _, truth = pair()
    with pytest.raises(DdgmError) as caught:
        image_metrics(torch.zeros(shape), truth)
    assert str(shape) in str(caught.value)
    assert "(6, 24, 20)" in str(caught.value)


def test_a_constant_truth_has_no_similarity_and_is_refused():
    with pytest.raises(DdgmError, match="range"):
        image_metrics(torch.rand(2, 16, 16), torch.ones(2, 16, 16))


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(DdgmError, match="5"):
        image_metrics(torch.rand(2, 5, 5), torch.rand(2, 5, 5))
