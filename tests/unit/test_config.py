import copy
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from ddgm.config import (
    DATA_DIR_VARIABLE,
    Selection,
    check_meaning,
    check_schema,
    given_network,
    held_out_views,
    resolve_address,
    selections_of,
    settings_of,
    sweeps_of,
)
from ddgm.denoiser import DenoiserCard, Normalisation, save_denoiser
from ddgm.errors import DdgmError
from ddgm.network import Architecture, UNet
from ddgm.synthetic import write_precomputed
from ddgm.training_settings import TrainingSettings

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


def merge(base, overlay):
    """Merge as Snakemake does: mappings key by key, anything else is replaced."""
    merged = copy.deepcopy(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def load(overlay=None):
    def read(name):
        return yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))

    paper = read("config.yaml")
    return paper if overlay is None else merge(paper, read(overlay))


def put(config, key, value):
    """Set the value at a dotted key."""
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = value


def check(config):
    check_schema(config, SCHEMA)
    check_meaning(config)


def complaint(config):
    with pytest.raises(DdgmError) as caught:
        check(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def config(monkeypatch):
    """A valid configuration whose operator is quick to build: sections of 40 × 48 pixels."""
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    config = load("demo.yaml")
    for name in ("train", "eval"):
        config["volumes"][name]["synthetic"]["size"] = [48, 40, 30]
        config["volumes"][name]["axes"] = "zyx"
    config["patches"]["size"] = 32
    config["training"]["patch_size"] = 32
    config["geometry"]["views"] = 12
    config["sweeps"]["blind"]["views"] = 2
    return config


@pytest.mark.parametrize("overlay", [None, "demo.yaml", "fib25.yaml"])
def test_the_configurations_of_the_repository_fit_the_schema(overlay):
    check_schema(load(overlay), SCHEMA)


@pytest.mark.parametrize("overlay", [None, "demo.yaml"])
def test_the_configurations_of_the_repository_make_sense(overlay):
    check_meaning(load(overlay))


def test_the_librarys_defaults_of_training_are_those_of_the_papers_configuration():
    assert TrainingSettings(**load()["training"]) == TrainingSettings()


def test_the_configuration_of_fib25_makes_sense_where_its_volumes_are(tmp_path):
    config = load("fib25.yaml") | {"data_dir": str(tmp_path)}
    volume = np.zeros((128, 128, 12), np.uint8)
    for name in ("train", "eval", "slab"):
        write_precomputed(volume, tmp_path / name)
    config["volumes"]["slab"]["box"] = None
    config["geometry"]["views"] = 64  # half the projector: this is about the volumes
    check_meaning(config)
    config["patches"]["gap"] = 11
    message = complaint(config)
    assert "patches.gap = 11" in message
    assert "12 sections" in message


def test_the_small_configuration_of_these_tests_is_valid(config):
    check(config)


BAD_TYPES_AND_RANGES = [
    ("run", "two words", "run = 'two words'", None),
    ("run", "../up", "run = '../up'", None),
    ("run", "line\n", "run = 'line\\n'", None),
    ("run", 5, "run = 5", "string"),
    ("data_dir", 5, "data_dir = 5", "string"),
    ("download.workers", 0, "download.workers = 0", "1"),
    ("download.fill_missing", "yes", "download.fill_missing = 'yes'", "boolean"),
    ("patches.size", "128", "patches.size = '128'", "integer"),
    ("patches.size", 32.5, "patches.size = 32.5", "integer"),
    ("patches.size", 32.0, "patches.size = 32.0", "integer"),
    ("patches.size", 10, "patches.size = 10", "11"),
    ("patches.test", True, "patches.test = True", "integer"),
    ("patches.gap", -1, "patches.gap = -1", "0"),
    ("patches.seed", -1, "patches.seed = -1", "0"),
    ("patches.seed", 2**32, f"patches.seed = {2**32}", "4294967295"),
    ("geometry.views", 0, "geometry.views = 0", "1"),
    ("geometry.views", 12.0, "geometry.views = 12.0", "integer"),
    ("geometry.max_tilt", 90.5, "geometry.max_tilt = 90.5", "90"),
    ("geometry.max_tilt", 0, "geometry.max_tilt = 0", "> 0"),
    ("geometry.max_tilt", math.nan, "geometry.max_tilt = nan", "number"),
    ("geometry.detector", 0, "geometry.detector = 0", "1"),
    ("measurement.noise_std", -4.1, "measurement.noise_std = -4.1", "0"),
    ("measurement.noise_std", math.nan, "measurement.noise_std = nan", "number"),
    ("measurement.noise_std", math.inf, "measurement.noise_std = inf", "number"),
    ("network.widths", [16, 12], "network.widths.1 = 12", "multiple of 8"),
    ("network.widths", [], "network.widths = []", "1"),
    ("network.convolutions", [2, 0], "network.convolutions.1 = 0", "1"),
    ("network.convolutions", 0, "network.convolutions = 0", "1"),
    ("network.packing", 0, "network.packing = 0", "1"),
    ("network.normalise", "batch", "network.normalise = 'batch'", "residual"),
    ("network.about", None, "network.about = None", "string"),
    ("training.samples", -1, "training.samples = -1", "0"),
    ("training.compile", "yes", "training.compile = 'yes'", "boolean"),
    ("prior.images", 0, "prior.images = 0", "1"),
    ("more.images", 0, "more.images = 0", "1"),
    ("training.schedule", "linear", "training.schedule = 'linear'", "cosine"),
    ("training.devices", "both", "training.devices = 'both'", "auto"),
    ("training.devices", 0, "training.devices = 0", "1"),
    ("training.ema_decay", 1.0, "training.ema_decay = 1.0", "< 1"),
    ("training.learning_rate", "1e-3", "training.learning_rate = '1e-3'", "number"),
    ("training.learning_rate", math.inf, "training.learning_rate = inf", "number"),
    ("reconstruction.device", "gpu", "reconstruction.device = 'gpu'", "cuda"),
    ("methods.ddgm_50.K", 0, "methods.ddgm_50.K = 0", "1"),
    ("methods.ddgm_50.K", "3", "methods.ddgm_50.K = '3'", "int"),
    ("methods.ddgm_50.K", 2.5, "methods.ddgm_50.K = 2.5", "int"),
    ("methods.ddgm_50.K", 2.0, "methods.ddgm_50.K = 2.0", "int"),
    ("methods.ddgm_50.K", True, "methods.ddgm_50.K = True", "int"),
    ("methods.ddgm_50.N", 0, "methods.ddgm_50.N = 0", "1"),
    ("methods.ddgm_50.sigma_1", math.inf, "methods.ddgm_50.sigma_1 = inf", None),
    ("methods.algebraic.step_size", "9e-5", "methods.algebraic.step_size = '9e-5'", "number"),
    ("methods.algebraic.step_size", 0, "methods.algebraic.step_size = 0", "> 0"),
    ("methods.algebraic.label", "", "methods.algebraic.label = ''", "1"),
    ("methods", {}, "methods = {}", "1"),
    ("table_1", [], "table_1 = []", "1"),
    (
        "table_1",
        ["algebraic"] * 2,
        "table_1 = ['algebraic', 'algebraic']",
        "differ|uniq|once|repeat",
    ),
    ("comparison.images", 0, "comparison.images = 0", "1"),
    ("sweeps.job", "row", "sweeps.job = 'row'", "line"),
    ("sweeps.tables", {"x_point": None}, "sweeps.tables.x_point", None),
    ("sweeps.grid", "fine", "sweeps.grid = 'fine'", "medium"),
    ("sweeps.tables.algebraic", {}, "sweeps.tables.algebraic", "base"),
    ("sweeps.blind.views", 1, "sweeps.blind.views = 1", "2"),
    ("methods.ddgm.select", {}, "methods.ddgm.select.sweeps", "missing"),
    ("volumes.eval.mip", -1, "volumes.eval.mip = -1", "0"),
    ("volumes.eval.axes", "xxz", "volumes.eval.axes = 'xxz'", "zyx"),
    ("volumes.eval.size", [1, 2], "volumes.eval.size = [1, 2]", "3"),
    ("volumes.eval.box", "all", "volumes.eval.box = 'all'", "null"),
    ("volumes.eval.box", {"start": [0, 0], "stop": [5, 5, 5]}, "volumes.eval.box.start", "3"),
    ("volumes.eval.synthetic.size", 48, "volumes.eval.synthetic.size = 48", "3"),
]


@pytest.mark.parametrize(
    ("key", "value", "named", "allowed"),
    BAD_TYPES_AND_RANGES,
    ids=[f"{key}={value!r}" for key, value, _, _ in BAD_TYPES_AND_RANGES],
)
def test_a_value_of_the_wrong_type_or_range_is_named_with_what_is_allowed(
    config, key, value, named, allowed
):
    put(config, key, value)
    message = complaint(config)
    assert named in message
    if allowed is not None:
        assert re.search(allowed, message.replace(named, ""))


@pytest.mark.parametrize(
    ("key", "alternatives"),
    [
        ("patch", ["patches", "geometry"]),
        ("patches.szie", ["size", "gap"]),
        ("volumes.test", ["train", "eval"]),
        ("volumes.eval.box.end", ["start", "stop"]),
        ("volumes.eval.synthetic.shape", ["size", "seed"]),
        ("methods.ddgm_50.lambda", ["step_size", "sigma_1"]),
        ("methods.algebraic.N", ["step_size", "K"]),
    ],
)
def test_an_unknown_key_is_named_in_full_with_those_that_exist(config, key, alternatives):
    config["volumes"]["eval"]["box"] = {"start": [0, 0, 0], "stop": [48, 40, 30]}
    check(config)
    put(config, key, 3)
    message = complaint(config)
    assert key in message
    for name in alternatives:
        assert name in message


@pytest.mark.parametrize(
    "key", ["patches", "patches.size", "volumes.eval.axes", "methods.ddgm_50.method"]
)
def test_a_missing_key_is_named_in_full(config, key):
    *parents, last = key.split(".")
    holder = config
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    assert key in complaint(config)


def test_a_name_of_a_method_that_cannot_be_a_file_is_refused(config):
    config["methods"]["two words"] = config["methods"]["ddgm_50"]
    assert "methods.two words" in complaint(config)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"volumes.eval.box": {"start": [0, 0, 0], "stop": [49, 40, 30]}},
            ["volumes.eval.box", "(49, 40, 30)", "(48, 40, 30)"],
        ),
        (
            {"volumes.train.box": {"start": [0, 0, 0], "stop": [48, 40, 31]}},
            ["volumes.train.box", "(48, 40, 31)", "(48, 40, 30)"],
        ),
        (
            {"volumes.eval.box": {"start": [0, 30, 0], "stop": [48, 4, 30]}},
            ["volumes.eval.box", "(0, 30, 0)", "(48, 4, 30)"],
        ),
        (
            {"volumes.eval.box": {"start": [5, 0, 0], "stop": [5, 40, 30]}},
            ["volumes.eval.box", "(5, 0, 0)", "(5, 40, 30)"],
        ),
        ({"volumes.eval.synthetic.size": [0, 40, 30]}, ["volumes.eval.synthetic.size", "0, 40"]),
        ({"volumes.eval.mip": 1}, ["volumes.eval.mip = 1", "0"]),
        ({"patches.size": 48}, ["patches.size = 48", "40 × 48", "40"]),
        ({"training.patch_size": 48}, ["training.patch_size = 48", "volumes.train", "40"]),
        ({"patches.size": 36}, ["patches.size = 36", "multiple of 16"]),
        ({"training.patch_size": 24}, ["training.patch_size = 24", "multiple of 16"]),
        ({"patches.gap": 29}, ["patches.gap = 29", "30", "28"]),
        ({"patches.gap": 500}, ["patches.gap = 500", "30", "28"]),
        ({"comparison.images": 17}, ["comparison.images = 17", "16"]),
        ({"table_1": ["algebraic", "absent"]}, ["table_1", "'absent'", "ddgm_50"]),
        ({"comparison.methods": ["absent"]}, ["comparison.methods", "'absent'", "ddgm_50"]),
        ({"prior.method": "absent"}, ["prior.method", "'absent'", "generation"]),
        ({"prior.method": "ddgm_50"}, ["prior.method = ddgm_50", "generation"]),
        ({"prior.images": 9}, ["prior.images = 9", "8"]),
        ({"more.method": "absent"}, ["more.method", "'absent'", "ddgm_50"]),
        ({"more.images": 9}, ["more.images = 9", "8"]),
        (
            {"methods.ddgm.images": 5},
            ["more.images = 8", "only 5 are made", "methods.ddgm.images"],
        ),
        ({"uncertainty.methods": ["absent"]}, ["uncertainty.methods", "'absent'", "ddgm_50"]),
        ({"uncertainty.methods": ["algebraic"]}, ["uncertainty.methods names 'algebraic'"]),
        ({"uncertainty.methods": ["generation"]}, ["uncertainty.methods names 'generation'"]),
        ({"uncertainty.beside": "absent"}, ["uncertainty.beside", "'absent'", "ddgm_50"]),
        ({"uncertainty.test": 17}, ["uncertainty.test = 17", "patches.test = 16"]),
        ({"uncertainty.validation": 9}, ["uncertainty.validation = 9", "patches.validation = 8"]),
        ({"uncertainty.runs": 9}, ["uncertainty.runs = 9", "uncertainty.samples = 8"]),
        ({"uncertainty.shown": 13}, ["uncertainty.shown = 13", "uncertainty.test = 12"]),
        (
            {"methods.algebraic.images": 8},
            ["uncertainty.test = 12", "methods.algebraic.images = 8"],
        ),
        ({"training.validate_every": 451}, ["training.validate_every = 451", "steps = 450"]),
        (
            {"training.devices": 16, "patches.validation": 8},
            ["patches.validation = 8", "16 processes"],
        ),
        (
            {"network.convolutions": [2, 2]},
            ["network.convolutions = (2, 2)", "one for each of (16, 32, 64, 64, 64)"],
        ),
        (
            {"network.packing": 4},
            ["training.patch_size = 32 must be a multiple of 64", "packing 4"],
        ),
        (
            {"training.devices": 3},
            ["training.batch = 16", "training.devices × training.nodes = 3"],
        ),
        ({"methods.ddgm_50.method": "dgdm"}, ["methods.ddgm_50.method", "'dgdm'", "algebraic"]),
        ({"methods.ddgm_50.sigma_N": 3.0}, ["methods.ddgm_50.sigma_N = 3", "3"]),
        ({"methods.ddgm_50.sigma_N": 4.5}, ["methods.ddgm_50.sigma_N = 4.5", "3"]),
        ({"methods.ddgm_50.sigma_1": 31.0}, ["methods.ddgm_50.sigma_1 = 31", "0.03", "30"]),
        ({"methods.ddgm_50.sigma_N": 0.01}, ["methods.ddgm_50.sigma_N = 0.01", "0.03", "30"]),
        ({"network.sigma_min": 30.0}, ["network.sigma_min = 30", "network.sigma_max = 30"]),
        ({"network.path": "/no/net"}, ["network.path = /no/net", "no such file", "fib25-16nm"]),
        (
            {"volumes.eval.synthetic.seed": 11},
            ["volumes.train.box", "volumes.eval.box", "overlap", "(48, 40, 30)"],
        ),
        ({"measurement.noise_std": 0}, ["methods.ddrm", "measurement.noise_std", "positive"]),
        ({"run": "operators"}, ["run = 'operators'"]),
        ({"methods.dps.images": 99}, ["methods.dps.images = 99", "patches.test"]),
        (
            {"comparison.images": 8, "methods.dps.images": 4},
            ["comparison.images = 8", "methods.dps.images = 4"],
        ),
        ({"volumes.eval.address": "synthetic:"}, ["volumes.eval.address", "synthetic:"]),
        ({"slab.methods": ["ddrm"]}, ["slab.methods names 'ddrm'", "ddrm needs the eigenbasis"]),
        ({"slab.methods": ["none"]}, ["slab.methods names 'none'", "`methods` has"]),
        ({"slab.section": 99}, ["slab.section = 99", "the slab has sections 0 to 3"]),
        ({"slab.blending.patch": 33}, ["slab.blending.patch = 33 must be a positive multiple"]),
        ({"slab.cluster.kind": "address"}, ["slab.cluster.address = None goes with the kind"]),
        ({"slab.tilt_series": "none.zarr"}, ["slab.tilt_series: there is no", "at none.zarr"]),
        ({"slab.ome_zarr": False, "slab.precomputed": False}, ["are both false: nothing to do"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_value_that_makes_no_sense_is_named_with_what_is_allowed(config, changes, named):
    for key, value in changes.items():
        put(config, key, value)
    message = complaint(config)
    for word in named:
        assert word in message


def test_a_method_that_needs_the_svd_is_refused_where_the_images_are_too_large(config, monkeypatch):
    monkeypatch.setattr("ddgm.engine.LARGEST_BLOCK", 100)
    message = complaint(config)
    for word in ("methods.ddrm", "SVD", "proximal"):
        assert word in message


@pytest.mark.parametrize("key", ["methods.algebraic.step_size", "methods.ddgm_50.step_size"])
def test_a_step_size_above_the_limit_is_named_with_the_limit_of_this_geometry(config, key):
    from ddgm.geometry import TiltGeometry
    from ddgm.projector import Projector

    limit = Projector(TiltGeometry.limited_angle((32, 32), views=12)).max_step_size
    put(config, key, 0.99 * limit)
    check(config)
    put(config, key, 1.01 * limit)
    message = complaint(config)
    assert f"{1.01 * limit:g}" in message
    assert f"{limit:.3g}" in message
    assert key in message


def test_a_synthetic_volume_without_its_description_is_refused(config):
    del config["volumes"]["eval"]["synthetic"]
    assert "volumes.eval.synthetic" in complaint(config)


def test_the_size_of_a_source_must_leave_something_to_use(config):
    config["volumes"]["eval"] |= {"address": "precomputed://gs://nowhere/x", "size": [0, 40, 30]}
    message = complaint(config)
    assert "volumes.eval.size" in message
    assert "0, 40, 30" in message


def test_a_box_inside_the_volume_decides_what_is_large_enough(config):
    config["volumes"]["eval"]["box"] = {"start": [0, 0, 0], "stop": [31, 40, 30]}
    message = complaint(config)
    assert "patches.size = 32" in message
    assert "40 × 31" in message


@pytest.mark.parametrize("path", [None, "train"])
def test_a_network_is_trained_for_null_and_for_the_word_that_a_command_line_can_say(config, path):
    put(config, "network.path", path)
    assert given_network(config) is None
    check(config)
    put(config, "training.patch_size", 4096)
    assert "training.patch_size" in complaint(config)


def test_a_given_network_makes_the_training_settings_irrelevant(config, tmp_path):
    network = tmp_path / "net.safetensors"
    card = DenoiserCard(Architecture((8,), 1), Normalisation(130.0, 33.0), 0.02, 40.0, 16.0)
    save_denoiser(UNet(card.architecture), card, network)
    put(config, "training.patch_size", 4096)
    assert "training.patch_size" in complaint(config)
    put(config, "network.path", str(network))
    check(config)
    put(config, "methods.ddgm_50.sigma_1", 39.0)
    check(config)
    put(config, "methods.ddgm_50.sigma_1", 41.0)
    assert "methods.ddgm_50.sigma_1 = 41.0 is outside" in complaint(config)


def test_a_given_network_must_fit_the_images(config, tmp_path):
    network = tmp_path / "net.safetensors"
    card = DenoiserCard(Architecture((8,) * 6, 1), Normalisation(130.0, 33.0), 0.02, 40.0, 8.0)
    save_denoiser(UNet(card.architecture), card, network)
    put(config, "network.path", str(network))
    check(config)
    write_precomputed(np.zeros((40, 40, 10), np.uint8), tmp_path / "eval")
    put(config, "volumes.eval.address", f"precomputed://file://{tmp_path}/eval")
    put(config, "patches.gap", 8)
    message = complaint(config)
    assert "8 nm" in message
    assert "16 nm" in message
    put(config, "volumes.eval.size", [40, 40, 10])
    put(config, "patches.size", 16)
    assert "patches.size = 16 must be a multiple of 32" in complaint(config)


def test_boxes_of_one_volume_may_touch_but_not_overlap(config):
    for name, start, stop in (("train", 0, 14), ("eval", 14, 30)):
        put(config, f"volumes.{name}.synthetic.seed", 5)
        box = {"start": [0, 0, start], "stop": [48, 40, stop]}
        put(config, f"volumes.{name}.box", box)
    check(config)
    config["volumes"]["eval"]["box"]["start"][2] = 13
    assert "overlap" in complaint(config)


def test_pixels_that_are_not_square_are_refused(config, tmp_path):
    from cloudvolume import CloudVolume

    CloudVolume.from_numpy(
        np.zeros((48, 40, 30, 1), np.uint8),
        vol_path=f"file://{tmp_path}/eval",
        resolution=(8, 8, 40),
        chunk_size=(64, 64, 64),
        progress=False,
    )
    put(config, "volumes.eval.address", f"precomputed://file://{tmp_path}/eval")
    check_schema(config, SCHEMA)
    put(config, "volumes.eval.axes", "yzx")
    message = complaint(config)
    assert "volumes.eval.axes = yzx" in message
    assert "40 nm deep and 8 nm wide" in message


def test_a_number_that_yaml_takes_for_text_comes_with_advice(config):
    put(config, "methods.algebraic.step_size", "9e-5")
    assert "write 0.00009)" in complaint(config)


def test_a_given_network_that_is_none_is_refused(config, tmp_path):
    network = tmp_path / "net.safetensors"
    network.write_bytes(b"weights")
    put(config, "network.path", str(network))
    assert f"network.path = {network}" in complaint(config)


class TestAddress:
    def test_a_missing_data_dir_is_refused_with_both_ways_to_give_it(self, config):
        put(config, "volumes.eval.address", "precomputed://file://{data_dir}/eval")
        message = complaint(config)
        assert "volumes.eval.address" in message
        assert "{data_dir}/eval" in message
        assert "data_dir=" in message
        assert DATA_DIR_VARIABLE in message

    def test_a_data_dir_without_the_volume_is_refused_with_the_path(self, config, tmp_path):
        put(config, "volumes.eval.address", "precomputed://file://{data_dir}/eval")
        put(config, "data_dir", str(tmp_path))
        message = complaint(config)
        assert "volumes.eval.address" in message
        assert str(tmp_path / "eval") in message

    def test_the_data_dir_may_come_from_the_environment(self, config, tmp_path, monkeypatch):
        write_precomputed(np.zeros((40, 40, 10), np.uint8), tmp_path / "eval")
        put(config, "volumes.eval.address", "precomputed://file://{data_dir}/eval")
        monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
        assert resolve_address(config, "eval") == f"precomputed://file://{tmp_path}/eval"
        put(config, "volumes.eval.size", None)
        put(config, "patches.gap", 8)
        check(config)

    def test_the_configuration_goes_before_the_environment(self, config, tmp_path, monkeypatch):
        write_precomputed(np.zeros((4, 4, 4), np.uint8), tmp_path / "eval")
        put(config, "volumes.eval.address", "precomputed://file://{data_dir}/eval")
        put(config, "data_dir", str(tmp_path))
        monkeypatch.setenv(DATA_DIR_VARIABLE, "/somewhere/else")
        assert resolve_address(config, "eval") == f"precomputed://file://{tmp_path}/eval"

    def test_a_box_outside_a_volume_on_disk_is_refused(self, config, tmp_path):
        write_precomputed(np.zeros((40, 40, 10), np.uint8), tmp_path / "eval")
        put(config, "volumes.eval.address", f"precomputed://file://{tmp_path}/eval")
        put(config, "volumes.eval.box", {"start": [0, 0, 0], "stop": [40, 40, 11]})
        message = complaint(config)
        assert "volumes.eval.box" in message
        assert "(40, 40, 10)" in message

    def test_a_mip_that_a_volume_on_disk_does_not_have_is_refused(self, config, tmp_path):
        write_precomputed(np.zeros((40, 40, 10), np.uint8), tmp_path / "eval")
        put(config, "volumes.eval.address", f"precomputed://file://{tmp_path}/eval")
        put(config, "volumes.eval.mip", 3)
        message = complaint(config)
        assert "volumes.eval.mip" in message
        assert "3" in message

    def test_addresses_without_a_data_dir_stay_as_they_are(self, config):
        address = "precomputed://gs://bucket/em"
        put(config, "volumes.eval.address", address)
        assert resolve_address(config, "eval") == address


@pytest.fixture
def table(config, tmp_path):
    """A table of a sweep over the gradient steps of DDGM, the only one of the configuration."""
    path = tmp_path / "steps.tsv"
    path.write_text("K\tsigma_1\n5\t1\n10\t3\n")
    for name in config["sweeps"]["tables"]:
        config["sweeps"]["tables"][name] = None
    config["sweeps"]["tables"]["sigma1"] = {"base": "ddgm_50", "table": str(path)}
    return path


class TestSweeps:
    def test_a_point_has_the_settings_of_its_base_where_the_table_has_none(self, config, table):
        check(config)
        (sweep,) = sweeps_of(config).values()
        base = settings_of(config["methods"]["ddgm_50"])
        assert [sweep.settings(point) for point in sweep.points] == [
            base | {"K": 5, "sigma_1": 1},
            base | {"K": 10, "sigma_1": 3},
        ]
        assert sweep.method == "ddgm"
        assert not {"label", "method", "images", "select"} & set(base)

    @pytest.mark.parametrize(
        ("all_", "base", "expected"), [(None, None, None), (7, None, 7), (None, 5, 5), (7, 5, 5)]
    )
    def test_the_fewer_images_count(self, config, table, all_, base, expected):
        config["sweeps"]["images"] = all_
        if base is not None:
            config["sweeps"]["tables"]["sigma1"]["images"] = base
        assert sweeps_of(config)["sigma1"].images == expected

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("K\n0\n", ["line 2: K = 0", "at least 1"]),
            ("K\n5\n\n2.5\n", ["line 4: K = 2.5", "int"]),
            ("sigma_1\n1\n50\n", ["line 3: sigma_1 = 50", "30"]),
            ("step_size\n0.9\n", ["line 2: step_size = 0.9", "2/σ_max²"]),
            ("eta\n1\n", ["line 2: eta = 1", "is unknown; ddgm takes N, K"]),
            ("K\tN\tsigma_1\tstep_size\n5\t5\t3\t0.00005\n", ["4 parameters", "at most 3"]),
            ("K\nmany\n", ["line 2: K = 'many'", "plain decimal"]),
        ],
    )
    def test_a_point_that_would_not_run_is_named_with_its_line(self, config, table, text, named):
        table.write_text(text)
        message = complaint(config)
        assert message.startswith(f"{table}")
        for word in named:
            assert word in message

    @pytest.mark.parametrize(
        ("key", "value", "named"),
        [
            ("sweeps.tables.sigma1.base", "ddgn", "sweeps.tables.sigma1.base = 'ddgn'"),
            ("sweeps.blind.sweeps", ["K"], "sweeps.blind.sweeps names 'K'"),
            ("sweeps.blind.views", 6, "sweeps.blind.views = 6"),
            ("methods.ddgm.select", {"sweeps": ["x"]}, "methods.ddgm.select.sweeps names 'x'"),
            ("methods.ddrm.select", {"sweeps": ["sigma1"]}, "a sweep of ddgm"),
            ("methods.ddgm_50.select.network_evals", 40, "take at least 50"),
        ],
    )
    def test_what_does_not_fit_together_is_named(self, config, table, key, value, named):
        put(config, key, value)
        assert named in complaint(config)

    def test_rows_take_what_is_left_of_the_sweeps_they_name(self, config, table):
        assert selections_of(config) == {
            "ddgm": Selection(("sigma1",), None),
            "ddgm_50": Selection(("sigma1",), 50),
        }
        config["methods"]["ddgm"]["select"] = None
        check(config)
        assert list(selections_of(config)) == ["ddgm_50"]
        config["sweeps"]["select"] = False
        assert selections_of(config) == {}

    def test_no_views_are_held_out_where_no_sweep_asks_for_it(self, config, table):
        assert held_out_views(config) is not None
        config["sweeps"]["tables"]["sigma1"] = None
        assert held_out_views(config) is None
        check(config)
