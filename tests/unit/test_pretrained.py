"""The networks in the box: each is there, is described, and does what it was trained for."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from ddgm.denoiser import load_denoiser, read_card
from ddgm.errors import DdgmError
from ddgm.pretrained import FOLDER, network_path, pretrained_names
from ddgm.synthetic import make_volume

NAMES = pretrained_names()


def test_the_network_for_fly_neuropil_is_in_the_box():
    assert "fib25-16nm" in NAMES
    assert read_card("fib25-16nm").voxel_size == 16


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_it_is_small_and_has_a_model_card_and_an_attribution(self, name):
        assert network_path(name).stat().st_size < 20e6
        text = (FOLDER / f"{name}.md").read_text()
        for heading in ("Data", "Licence", "Training", "Measured", "Limits"):
            assert f"## {heading}" in text
        card = read_card(name)
        assert "CC BY" in card.about
        # The model card and the file cannot say different things.
        assert f"{card.normalisation.mean:.2f}" in text
        assert f"{card.normalisation.std:.2f}" in text
        assert f"{name}.md" in (FOLDER / "README.md").read_text()

    def test_it_sees_noise_in_tissue_that_it_was_not_trained_on(self, name):
        denoiser = load_denoiser(name)
        tissue = torch.from_numpy(make_volume((8, 128, 128), seed=5)[::4].copy()).float()
        images = (tissue - tissue.mean()) / tissue.std()
        generator = torch.Generator().manual_seed(0)
        for sigma, most in ((0.1, 0.6), (1.0, 0.15), (10.0, 0.02)):
            noise = torch.randn(images.shape, generator=generator)
            with torch.no_grad():
                error = (denoiser(images + sigma * noise) - noise).square().mean()
            assert error < most


def test_a_name_and_a_path_are_told_apart(tmp_path):
    assert network_path("fib25-16nm") == FOLDER / "fib25-16nm.safetensors"
    assert network_path(tmp_path / "own.safetensors") == tmp_path / "own.safetensors"
    assert network_path("results/net") == Path("results/net")


def test_an_unknown_name_is_answered_with_those_that_there_are():
    with pytest.raises(DdgmError, match=r"fib26: no such file; in the box are .*fib25-16nm"):
        load_denoiser("fib26")


def test_the_networks_are_part_of_an_installed_package(tmp_path):
    repository, copy = Path(__file__).resolve().parents[2], tmp_path / "copy"
    # Elsewhere, for setuptools leaves its build in the source and packs what an old one left.
    shutil.copytree(repository / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, copy], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in NAMES:
        assert f"ddgm/networks/{name}.safetensors" in names
        assert f"ddgm/networks/{name}.md" in names
