"""The noise-prediction network and its file."""

import json
import pickle

import pytest
import safetensors.torch
import torch

from ddgm.denoiser import (
    FORMAT,
    Denoiser,
    DenoiserCard,
    Normalisation,
    load_denoiser,
    save_denoiser,
)
from ddgm.errors import DdgmError
from ddgm.network import Architecture, UNet

SMALL = Architecture(widths=(8, 16), convolutions=2)
CARD = DenoiserCard(SMALL, Normalisation(mean=129.5, std=33.0), 0.03, 30.0, 16.0)


def network(architecture=SMALL, seed=0):
    """Return a network none of whose weights is zero, as training leaves it."""
    torch.manual_seed(seed)
    net = UNet(architecture).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


def test_the_papers_network_has_8_million_parameters():
    count = sum(parameter.numel() for parameter in UNet(Architecture()).parameters())
    assert count == pytest.approx(8e6, rel=0.05)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture((8,), 1),
        Architecture((8, 8), 3),
        Architecture((8, 16, 24), 2),
        Architecture((8, 16), (1, 3), packing=2),
        Architecture((16,), 2, packing=4),
        Architecture((8, 16), 3, normalise="residual"),
    ],
    ids=str,
)
def test_output_has_the_shape_of_the_input(architecture):
    image = torch.randn(2, 4 * architecture.stride, 6 * architecture.stride)
    assert network(architecture)(image).shape == image.shape


def test_prediction_does_not_depend_on_the_scale_of_the_input():
    # ε is unscaled, and the network is blind to σ: an image of pure noise has one answer.
    net, image = network(), torch.randn(3, 16, 16)
    torch.testing.assert_close(net(image), net(1000 * image), rtol=1e-4, atol=1e-4)


def test_images_of_a_batch_do_not_mix():
    net, images = network(), torch.randn(3, 16, 16)
    images[1] *= 100
    alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(net(images), alone, rtol=1e-4, atol=1e-5)


def test_an_image_of_zeros_has_a_finite_prediction():
    assert torch.isfinite(network()(torch.zeros(1, 16, 16))).all()


@pytest.mark.parametrize("shape", [(1, 15, 16), (1, 16, 17), (16, 16), (1, 1, 16, 16)])
def test_a_size_that_the_levels_cannot_halve_is_refused(shape):
    with pytest.raises(DdgmError, match="multiples of 2"):
        network()(torch.zeros(shape))


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": ()},
        {"widths": (12,)},
        {"widths": (8, 0)},
        {"widths": (8,), "convolutions": 0},
        {"widths": (8, 8), "convolutions": (1, 1, 1)},
        {"widths": (8, 8), "convolutions": (1, 0)},
        {"packing": 0},
        {"normalise": "never"},
        {"groups": 0},
    ],
    ids=str,
)
def test_an_impossible_architecture_is_refused_by_name(wrong):
    with pytest.raises(DdgmError, match=f"^{list(wrong)[-1]} = "):
        Architecture(**wrong)


def test_one_number_of_convolutions_is_that_of_every_level():
    assert Architecture((8, 16), 3) == Architecture([8, 16], [3, 3])


def test_a_file_holds_all_that_is_needed_to_use_the_network(tmp_path):
    net, path = network(), tmp_path / "net.safetensors"
    save_denoiser(net, CARD, path)
    loaded = load_denoiser(path)
    image = torch.randn(2, 16, 16)
    assert loaded.card == CARD
    with torch.no_grad():
        assert torch.equal(loaded(image), net(image))
    assert not loaded(image).requires_grad
    assert [each.name for each in tmp_path.iterdir()] == ["net.safetensors"]


def test_half_precision_changes_the_prediction_little_and_returns_float32():
    torch.manual_seed(4)
    net, image = network(), torch.randn(4, 16, 16)
    with torch.no_grad():
        whole, half = (Denoiser(net, CARD, half)(image) for half in (False, True))
    assert half.dtype == whole.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert (half - whole).norm() < 0.02 * whole.norm()


def test_a_file_can_be_read_for_half_precision(tmp_path):
    save_denoiser(network(), CARD, tmp_path / "net.safetensors")
    assert load_denoiser(tmp_path / "net.safetensors", half=True).half
    assert not load_denoiser(tmp_path / "net.safetensors").half


def test_the_prediction_can_be_differentiated_by_the_image(tmp_path):
    # Its weights are frozen, and need no gradient of their own.
    save_denoiser(network(), CARD, tmp_path / "net.safetensors")
    loaded = load_denoiser(tmp_path / "net.safetensors")
    image = torch.randn(1, 16, 16, requires_grad=True)
    loaded(image).square().sum().backward()
    assert image.grad.abs().max() > 0
    assert all(weight.grad is None for weight in loaded.network.parameters())


def test_a_pickle_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "evil.safetensors", tmp_path / "trace"

    class Evil:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DdgmError, match="not a safetensors file"):
        load_denoiser(path)
    assert not trace.exists()


def damage(metadata=None, drop=False, add=False, dtype=torch.float32):
    """Return a function that writes a network file with other metadata or tensors."""

    def write(path):
        save_denoiser(network(), CARD, path)
        with safetensors.safe_open(path, framework="pt") as file:
            own = file.metadata()
        weights = safetensors.torch.load_file(path)
        if drop:
            weights.pop(min(weights))
        if add:
            weights["extra"] = torch.zeros(1)
        weights = {name: value.to(dtype) for name, value in weights.items()}
        safetensors.torch.save_file(weights, path, metadata={**own, **(metadata or {})})

    return write


def card_with(**changes):
    values = {
        "architecture": {"widths": [8, 16], "convolutions": 2, "groups": 8},
        "normalisation": {"mean": 0.0, "std": 1.0},
        "sigma_min": 0.03,
        "sigma_max": 30.0,
        "voxel_size": 16.0,
    }
    return {"format": FORMAT, "card": json.dumps({**values, **changes})}


def shaped(**changes):
    architecture = {"widths": [8, 16], "convolutions": 2, "groups": 8}
    return card_with(architecture={**architecture, **changes})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"\x00" * 100), "not a safetensors file"),
        (damage({"format": "other/3"}), "format is 'other/3'"),
        (damage({"card": "{"}), "no description that can be read"),
        (damage(card_with(flavour=1)), "flavour"),
        (damage(card_with(sigma_min="low")), "card.sigma_min: 'low' is not of type 'number'"),
        (damage(card_with(sigma_min=40.0)), "sigma_min = 40 and sigma_max = 30"),
        (damage(card_with(sigma_max=float("nan"))), "card.sigma_max: nan is not of type"),
        (damage(card_with(voxel_size=0.0)), "voxel size: 0 nm"),
        (damage(card_with(normalisation={"mean": 0.0, "std": 0.0})), "standard deviation"),
        (
            damage(card_with(normalisation={"mean": float("inf"), "std": 1.0})),
            "mean: inf is not of type",
        ),
        (damage(drop=True), "do not fit .*: down.0.* is missing"),
        (damage(add=True), "do not fit .*: extra is not part of it"),
        (damage(dtype=torch.float64), "has numbers of type F64 instead of F32"),
        (damage(shaped(widths=[16, 16])), r"do not fit .* instead of \(16,"),
        (damage(shaped(widths=[8, 16], groups=0)), "groups: 0 is less than the minimum"),
        (damage(shaped(widths=[8, 12])), "widths = .* must be multiples of groups = 8"),
        (damage(shaped(convolutions=[2, 2, 2])), "convolutions = .* one for each"),
        (damage(shaped(widths=[8.0, 16.0])), "widths.* is not of type 'integer'"),
        (damage(shaped(convolutions=5000)), "convolutions"),
        (damage(shaped(widths=[8 * 10**12, 8])), "greater than the maximum"),
        # 600 GB, if it were allocated before it is compared.
        (damage(shaped(widths=[4096] * 9, convolutions=64)), "do not fit"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path, write, message):
    path = tmp_path / "net.safetensors"
    write(path)
    with pytest.raises(DdgmError, match=message) as caught:
        load_denoiser(path)
    assert "\n" not in str(caught.value)
