import numpy as np
import pytest
import torch

from ddgm.noise import ImageNoise, Purpose, seeded_generator

SHAPE = (24, 32)


def field(seed, image):
    return ImageNoise(seed, [image], SHAPE).draw()[0]


def test_an_image_gets_the_same_noise_whatever_its_batch_and_place():
    together = ImageNoise(5, [3, 0, 8], SHAPE)
    alone = ImageNoise(5, [8], SHAPE)
    reordered = ImageNoise(5, [8, 3], SHAPE)
    for _ in range(3):
        batch, single, pair = together.draw(), alone.draw(), reordered.draw()
        assert torch.equal(batch[2], single[0])
        assert torch.equal(pair[0], single[0])
        assert torch.equal(pair[1], batch[0])


def test_the_noise_of_every_seed_and_image_is_its_own():
    fields = [field(seed, image) for seed in range(4) for image in range(4)]
    correlations = np.corrcoef(torch.stack(fields).flatten(1).numpy())
    np.fill_diagonal(correlations, 0)
    # 768 independent pixels: the standard deviation of a correlation is 0.036.
    assert np.abs(correlations).max() < 0.2


def test_successive_draws_differ():
    noise = ImageNoise(1, [0], SHAPE)
    first, second = noise.draw(), noise.draw()
    assert np.abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.2


def test_a_run_can_be_repeated():
    one, two = ImageNoise(9, range(3), SHAPE), ImageNoise(9, range(3), SHAPE)
    for _ in range(2):
        assert torch.equal(one.draw(), two.draw())


def test_the_noise_is_standard_normal():
    noise = ImageNoise(2, range(20), (64, 64)).draw().double()
    assert noise.shape == (20, 64, 64)
    count = noise.numel()
    assert abs(noise.mean()) < 5 / count**0.5
    assert noise.var() == pytest.approx(1, abs=5 * (2 / count) ** 0.5)
    assert (noise**4).mean() == pytest.approx(3, abs=5 * (96 / count) ** 0.5)
    assert (noise[:, :, 1:] * noise[:, :, :-1]).mean().abs() < 5 / count**0.5


def test_noise_is_single_precision():
    assert ImageNoise(2, [0], SHAPE).draw().dtype == torch.float32


def test_large_seeds_keep_their_streams_apart():
    assert not torch.equal(field(2**32 - 1, 0), field(2**32 - 2, 0))


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    field(1, 1)
    assert torch.equal(torch.randn(3), expected)


def test_noise_of_different_purpose_has_nothing_in_common():
    fields = [ImageNoise(3, [1], (64, 64), purpose=purpose).draw().flatten() for purpose in Purpose]
    correlation = torch.corrcoef(torch.stack(fields)) - torch.eye(len(fields))
    assert correlation.abs().max() < 0.08  # 5 standard errors of 4096 numbers


def test_keys_that_differ_by_zeros_have_streams_of_their_own():
    keys = [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1)]
    first = {float(torch.rand(1, generator=seeded_generator(Purpose(1), *key))) for key in keys}
    assert len(first) == len(keys)


def test_a_value_depends_on_its_place_and_not_on_the_size_of_the_image():
    large, small = ImageNoise(4, [2], (130, 200)), ImageNoise(4, [2], (70, 33))
    for _ in range(2):
        assert torch.equal(large.draw()[:, :70, :33], small.draw())


def test_neighbouring_tiles_differ():
    noise = ImageNoise(4, [2], (128, 128)).draw()[0]
    tiles = noise.reshape(2, 64, 2, 64).movedim(1, 2).reshape(4, -1)
    correlations = np.corrcoef(tiles.numpy())
    np.fill_diagonal(correlations, 0)
    # 4096 independent pixels: the standard deviation of a correlation is 0.016.
    assert np.abs(correlations).max() < 0.08
