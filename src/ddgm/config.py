"""Checks of the workflow's configuration, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from jsonschema.exceptions import ValidationError, best_match

from ddgm.errors import DdgmError, SettingError
from ddgm.pretrained import network_path
from ddgm.schema import StrictValidator
from ddgm.sweep_tables import Sweep, read_table

if TYPE_CHECKING:
    from ddgm.cluster import ClusterSettings
    from ddgm.denoiser import DenoiserCard
    from ddgm.geometry import TiltGeometry
    from ddgm.methods import Method
    from ddgm.network import Architecture
    from ddgm.volume import Box

T = TypeVar("T")

SYNTHETIC = "synthetic"
SWEEP_TABLES = Path("config/sweeps")
DATA_DIR_VARIABLE = "DDGM_DATA_DIR"


def check_schema(config: Mapping[str, Any], schema: Path | str) -> None:
    """Check types, ranges and names of all keys; quick, and loads nothing heavy.

    Parameters
    ----------
    config : mapping
        The merged configuration.
    schema : path-like
        JSON schema in YAML.

    Raises
    ------
    DdgmError
        Naming the first wrong key, its value and what is allowed.
    """
    rules = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    error = best_match(StrictValidator(rules).iter_errors(dict(config)))
    if error is not None:
        raise DdgmError(_describe(error))


def volume_names(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of the volumes that the workflow reads: of a measured slab there is none."""
    volumes: Mapping[str, Any] = config["volumes"]
    unused = "slab" if volumes["slab"] is None or config["slab"]["tilt_series"] else None
    return [name for name in volumes if name != unused]


def resolve_address(config: Mapping[str, Any], name: str) -> str:
    """Return the address of a volume with {data_dir} filled in.

    Parameters
    ----------
    config : mapping
        The configuration.
    name : str
        Key of the volume.

    Raises
    ------
    DdgmError
        If the address needs a data folder and none is given, or no volume is there.
    """
    address: str = config["volumes"][name]["address"]
    key = f"volumes.{name}.address"
    if "{data_dir}" in address:
        folder = config["data_dir"] or os.environ.get(DATA_DIR_VARIABLE)
        if not folder:
            raise DdgmError(
                f"config: {key} = {address} needs a data folder; give it with "
                f"--config data_dir=/path/to/volumes or in the environment as {DATA_DIR_VARIABLE}"
            )
        address = address.replace("{data_dir}", str(Path(folder).expanduser().absolute()))
    path = address.removeprefix("precomputed://")
    if path.startswith("file://") and not (Path(path.removeprefix("file://")) / "info").is_file():
        raise DdgmError(f"config: {key}: no precomputed volume at {path} (it has no file `info`)")
    return address


def check_meaning(config: Mapping[str, Any]) -> None:
    """Check what a schema cannot: boxes against volumes, patches, networks and step sizes.

    Asks a source for its size where the configuration does not give it, and computes the norm of
    the projector: some seconds.

    Parameters
    ----------
    config : mapping
        A configuration that passed `check_schema`.

    Raises
    ------
    DdgmError
        Naming the first wrong key, its value and what is allowed.
    """
    size = config["patches"]["size"]
    evaluation = _part(config, "eval")
    sections, rows, columns = evaluation.shape
    _check_patch("patches.size", size, rows, columns, "eval")
    gap = config["patches"]["gap"]
    if sections - gap < 2:
        raise DdgmError(
            f"config: patches.gap = {gap}: volumes.eval has {sections} sections, so at most "
            f"{sections - 2} can be left out between the validation and the test set"
        )
    shown, test = config["comparison"]["images"], config["patches"]["test"]
    if shown > test:
        raise DdgmError(f"config: comparison.images = {shown}: at most patches.test = {test}")
    for name, row in config["methods"].items():
        if row.get("images", test) > test:
            raise DdgmError(
                f"config: methods.{name}.images = {row['images']}: at most patches.test = {test}"
            )
        if name in config["comparison"]["methods"] and row.get("images", test) < shown:
            raise DdgmError(
                f"config: comparison.images = {shown}, but methods.{name}.images = {row['images']}"
            )
    _check_names(config)
    _check_prior(config)
    _check_network(config, evaluation)
    check = _method_check(config)
    _check_methods(config, check)
    _check_uncertainty(config)
    _check_sweeps(config, check)
    _check_slab(config, evaluation)


@dataclass(frozen=True)
class _Part:
    """The part of a source that is used.

    Attributes
    ----------
    box : Box
        In x, y, z voxels.
    shape : (int, int, int)
        Sections, rows and columns.
    pixel_size : float or None
        In nanometres; None where the source has not been asked.
    """

    box: Box
    shape: tuple[int, int, int]
    pixel_size: float | None


def _part(config: Mapping[str, Any], name: str) -> _Part:
    from ddgm.volume import Box, square_pixel

    volume, key = config["volumes"][name], f"volumes.{name}"
    bounds, voxel_size = _source(config, name)
    box = bounds
    if volume["box"] is not None:
        box = _renamed(
            f"{key}.box", lambda: Box(tuple(volume["box"]["start"]), tuple(volume["box"]["stop"]))
        )
        if not bounds.contains(box):
            raise DdgmError(
                f"config: {key}.box = {box} is outside the volume, which at mip {volume['mip']} "
                f"is {bounds} (x, y, z in voxels, stop excluded)"
            )
    order = ["xyz".index(axis) for axis in volume["axes"]]
    sections, rows, columns = (box.shape[axis] for axis in order)
    pixel_size = None
    if voxel_size is not None:
        depth, detector = (voxel_size[axis] for axis in order[1:])
        pixel_size = _renamed(
            f"{key}.axes = {volume['axes']}", lambda: square_pixel(depth, detector)
        )
    return _Part(box, (sections, rows, columns), pixel_size)


def _source(config: Mapping[str, Any], name: str) -> tuple[Box, tuple[float, float, float] | None]:
    """Return all of a volume and, where the source had to be asked, its voxel size."""
    volume, key = config["volumes"][name], f"volumes.{name}"
    if volume["address"] == SYNTHETIC:
        if "synthetic" not in volume:
            raise DdgmError(f"config: {key}.address = synthetic needs the key {key}.synthetic")
        if volume["mip"] != 0:
            raise DdgmError(f"config: {key}.mip = {volume['mip']}: a synthetic volume has mip 0")
        return _whole(f"{key}.synthetic.size", volume["synthetic"]["size"]), None
    address = resolve_address(config, name)
    if volume["size"] is not None:
        return _whole(f"{key}.size", volume["size"]), None
    from ddgm.precomputed import read_info

    try:
        info = read_info(address, volume["mip"])
    except SettingError as error:
        raise DdgmError(f"config: {key}.{error}") from error
    except DdgmError as error:
        raise DdgmError(f"config: {key}.address: {error}") from error
    return info.bounds, info.voxel_size


def _check_apart(
    config: Mapping[str, Any], train: _Part, evaluation: _Part, name: str = "eval"
) -> None:
    """Refuse to evaluate on what the network was trained on."""
    first, second = (config["volumes"][volume] for volume in ("train", name))
    same = all(first.get(key) == second.get(key) for key in ("address", "mip", "synthetic"))
    if same and train.box.intersects(evaluation.box):
        raise DdgmError(
            f"config: volumes.train.box = {train.box} and volumes.{name}.box = {evaluation.box} "
            "overlap: what a network was trained on cannot test it; choose boxes apart"
        )


def _check_pixel_sizes(
    what: str, trained: float | None, evaluated: float | None, name: str = "eval"
) -> None:
    if trained is None or evaluated is None or abs(trained - evaluated) <= 0.01 * evaluated:
        return
    raise DdgmError(
        f"config: {what} has pixels of {trained:g} nm, volumes.{name} of {evaluated:g} nm: a "
        "network knows images of one pixel size; choose another mip or volume"
    )


def _check_slab(config: Mapping[str, Any], evaluation: _Part) -> None:
    slab = config["slab"]
    if slab["tilt_series"] is None and config["volumes"]["slab"] is None:
        return
    methods = config["methods"]
    for name in slab["methods"]:
        _check_name("slab.methods", name, "methods", methods)
        kind = _method_class(methods[name]["method"])
        if kind.needs_svd:
            raise DdgmError(
                f"config: slab.methods names {name!r}: {methods[name]['method']} needs the "
                "eigenbasis of the projector, which a slab is too large for"
            )
    _renamed("slab.cluster", lambda: cluster_settings(config))
    _renamed("slab.blending", lambda: _check_blending(config))
    if not (slab["ome_zarr"] or slab["precomputed"]):
        raise DdgmError("config: slab.ome_zarr and slab.precomputed are both false: nothing to do")
    if slab["tilt_series"] is not None:
        from ddgm.tilt_series import open_tilt_series

        series = _renamed("slab.tilt_series", lambda: open_tilt_series(slab["tilt_series"]))
        sections = series.sections
        pixel_size: float | None = series.pixel_size
    else:
        part = _part(config, "slab")
        sections, pixel_size = part.shape[0], part.pixel_size
        if given_network(config) is None:
            _check_apart(config, _part(config, "train"), part, "slab")
    if slab["section"] >= sections:
        raise DdgmError(
            f"config: slab.section = {slab['section']}: the slab has sections 0 to {sections - 1}"
        )
    if given_network(config) is not None:
        key = f"network.path = {config['network']['path']}"
        _check_pixel_sizes(key, _card(config["network"]["path"]).voxel_size, pixel_size, "slab")
    else:
        _check_pixel_sizes("volumes.eval", evaluation.pixel_size, pixel_size, "slab")


def _method_class(name: str) -> type[Any]:
    from ddgm.methods import METHODS

    return METHODS[name]


def _check_blending(config: Mapping[str, Any]) -> None:
    from ddgm.blending import BlendedDenoiser

    if given_network(config) is None:
        stride = architecture_of(config["network"]).stride
    else:
        stride = _card(config["network"]["path"]).architecture.stride
    BlendedDenoiser(lambda image: image, multiple=stride, **config["slab"]["blending"])


def cluster_settings(config: Mapping[str, Any]) -> ClusterSettings:
    """Return where the workers of a volume run."""
    from ddgm.cluster import ClusterSettings

    values = dict(config["slab"]["cluster"])
    if "directives" in values:
        values["directives"] = tuple(values["directives"])
    return ClusterSettings(**values)


def _whole(key: str, size: list[int]) -> Box:
    """Return the box of a volume whose size is given."""
    from ddgm.volume import Box

    if min(size) < 1:
        raise DdgmError(f"config: {key} = {size}: every length must be at least 1")
    return Box((0, 0, 0), (size[0], size[1], size[2]))


def _check_patch(key: str, size: int, rows: int, columns: int, volume: str) -> None:
    if size > min(rows, columns):
        raise DdgmError(
            f"config: {key} = {size} is larger than the sections of volumes.{volume}, "
            f"{rows} × {columns} voxels; at most {min(rows, columns)}"
        )


def _check_names(config: Mapping[str, Any]) -> None:
    methods = config["methods"]
    for key, names in (
        ("table_1", config["table_1"]),
        ("comparison.methods", config["comparison"]["methods"]),
        ("prior.method", [config["prior"]["method"]]),
        ("more.method", [config["more"]["method"]]),
    ):
        for name in names:
            _check_name(key, name, "methods", methods)


def _check_name(key: str, name: str, table: str, entries: Mapping[str, Any]) -> None:
    if name not in entries:
        raise DdgmError(f"config: {key} names {name!r}; `{table}` has {', '.join(sorted(entries))}")


def _check_prior(config: Mapping[str, Any]) -> None:
    name = config["prior"]["method"]
    row, validation = config["methods"][name], config["patches"]["validation"]
    if row["method"] != "generation":
        raise DdgmError(
            f"config: prior.method = {name}: methods.{name}.method is {row['method']}; only "
            "generation draws from the prior alone"
        )
    for key, shown, method in (
        ("prior.images", config["prior"]["images"], name),
        ("more.images", config["more"]["images"], name),
        ("more.images", config["more"]["images"], config["more"]["method"]),
    ):
        made = min(config["methods"][method].get("images", validation), validation)
        if shown > made:
            raise DdgmError(
                f"config: {key} = {shown}: only {made} are made (patches.validation, "
                f"methods.{method}.images)"
            )


def _check_uncertainty(config: Mapping[str, Any]) -> None:
    wanted, methods = config["uncertainty"], config["methods"]
    for key in ("methods", "beside"):
        for name in wanted["methods"] if key == "methods" else [wanted["beside"]]:
            _check_name(f"uncertainty.{key}", name, "methods", methods)
    for name in wanted["methods"]:
        kind = methods[name]["method"]
        if kind == "generation" or not _method_class(kind).needs_network:
            raise DdgmError(
                f"config: uncertainty.methods names {name!r}: runs of {kind} on one measurement "
                "tell nothing of it; take a random method that reconstructs"
            )
    besides, test = methods[wanted["beside"]].get("images"), config["patches"]["test"]
    for key, limit, why in (
        ("test", test, "patches.test"),
        ("test", besides or test, f"methods.{wanted['beside']}.images"),
        ("validation", config["patches"]["validation"], "patches.validation"),
        ("runs", wanted["samples"], "uncertainty.samples"),
        ("shown", wanted["test"], "uncertainty.test"),
    ):
        if wanted[key] > limit:
            raise DdgmError(f"config: uncertainty.{key} = {wanted[key]}: at most {why} = {limit}")


def _check_network(config: Mapping[str, Any], evaluation: _Part) -> None:
    network, training, size = config["network"], config["training"], config["patches"]["size"]
    if given_network(config) is not None:
        card = _card(network["path"])
        key = f"network.path = {network['path']}"
        _check_stride("patches.size", size, card.architecture, key)
        _check_pixel_sizes(key, card.voxel_size, evaluation.pixel_size)
        return
    if network["sigma_min"] >= network["sigma_max"]:
        raise DdgmError(
            f"config: network.sigma_min = {network['sigma_min']:g} must be below "
            f"network.sigma_max = {network['sigma_max']:g}"
        )
    architecture = _renamed("network", lambda: architecture_of(network))
    _check_stride("training.patch_size", training["patch_size"], architecture, "network.widths")
    _check_stride("patches.size", size, architecture, "network.widths")
    if training["devices"] != "auto":
        processes = training["devices"] * training["nodes"]
        if training["batch"] % processes:
            raise DdgmError(
                f"config: training.batch = {training['batch']} cannot be divided evenly among "
                f"training.devices × training.nodes = {processes} processes"
            )
        if config["patches"]["validation"] < processes:
            raise DdgmError(
                f"config: patches.validation = {config['patches']['validation']}: fewer images "
                f"than training.devices × training.nodes = {processes} processes"
            )
    if training["validate_every"] > training["steps"]:
        raise DdgmError(
            f"config: training.validate_every = {training['validate_every']}: more than "
            f"training.steps = {training['steps']}, so that nothing would be validated"
        )
    train = _part(config, "train")
    _check_patch("training.patch_size", training["patch_size"], *train.shape[1:], "train")
    _check_pixel_sizes("volumes.train", train.pixel_size, evaluation.pixel_size)
    _check_apart(config, train, evaluation)


def architecture_of(network: Mapping[str, Any]) -> Architecture:
    """Return the architecture that the configuration of a network describes."""
    from ddgm.network import Architecture

    keys = ("widths", "convolutions", "packing", "normalise")
    return Architecture(**{key: network[key] for key in keys})


def _check_stride(key: str, size: int, architecture: Architecture, source: str) -> None:
    if size % architecture.stride:
        raise DdgmError(
            f"config: {key} = {size} must be a multiple of {architecture.stride} for the "
            f"{len(architecture.widths)} levels and packing {architecture.packing} of {source}"
        )


MethodCheck = Callable[[str, Mapping[str, Any]], "Method"]


def _check_methods(config: Mapping[str, Any], check: MethodCheck) -> None:
    for name, row in config["methods"].items():
        key = f"methods.{name}"
        method = _renamed(key, partial(check, row["method"], settings_of(row)))
        if method.needs_noise_std and not config["measurement"]["noise_std"] > 0:
            raise DdgmError(
                f"config: {key} needs noise: measurement.noise_std must be positive, or the row go"
            )


def _method_check(config: Mapping[str, Any]) -> MethodCheck:
    """Return a function that builds a method, and complains if its settings will not do."""
    from ddgm.engine import is_fused
    from ddgm.methods import check_noise_levels, make_method
    from ddgm.projector import Projector

    levels = _noise_levels(config)
    geometry = image_geometry(config)
    operator = Projector(geometry)

    def check(name: str, settings: Mapping[str, Any]) -> Method:
        method = make_method(name, dict(settings))
        # Here the operator has no eigenbasis; whether it will have one, its size decides.
        if not (method.needs_svd and is_fused(geometry)):
            method.check(operator)
        check_noise_levels(method, *levels)
        return method

    return check


def _check_sweeps(config: Mapping[str, Any], check: MethodCheck) -> None:
    sweeps = sweeps_of(config)
    fewest_evals: dict[str, int] = {}
    for name, sweep in sweeps.items():
        if len(sweep.parameters) > 3:
            raise DdgmError(
                f"{sweep.table}: {len(sweep.parameters)} parameters; a figure can show at most 3"
            )
        evals = []
        for point in sweep.points:
            try:
                method = check(sweep.method, sweep.settings(point))
            except DdgmError as error:
                raise DdgmError(f"{sweep.table}, line {point.line}: {error}") from error
            evals.append(len(method.schedule()))  # one evaluation of the network a noise level
        fewest_evals[name] = min(evals)
    tables, blind = config["sweeps"]["tables"], config["sweeps"]["blind"]
    for name in blind["sweeps"]:
        _check_name("sweeps.blind.sweeps", name, "sweeps.tables", tables)
    _renamed("sweeps.blind", partial(held_out_views, config))
    for name, row in config["methods"].items():
        for swept in (row.get("select") or {}).get("sweeps", []):
            key = f"methods.{name}.select.sweeps"
            _check_name(key, swept, "sweeps.tables", tables)
            if swept in sweeps and sweeps[swept].method != row["method"]:
                raise DdgmError(
                    f"config: {key} names {swept!r}, a sweep of {sweeps[swept].method}; "
                    f"methods.{name}.method is {row['method']}"
                )
    for name, wanted in selections_of(config).items():
        fewest = min(fewest_evals[swept] for swept in wanted.sweeps)
        if wanted.network_evals is not None and fewest > wanted.network_evals:
            raise DdgmError(
                f"config: methods.{name}.select.network_evals = {wanted.network_evals}: the points "
                f"of {', '.join(wanted.sweeps)} take at least {fewest}"
            )


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the method among the keys of a row of `methods`."""
    return {key: row[key] for key in row if key not in ("label", "method", "images", "select")}


def sweeps_of(config: Mapping[str, Any]) -> dict[str, Sweep]:
    """Return the sweeps that the configuration has, by name.

    Raises
    ------
    DdgmError
        If a table cannot be read, or a sweep names a method that the configuration has not.
    """
    found = {}
    for name, entry in config["sweeps"]["tables"].items():
        if entry is None:  # switched off by an overlay
            continue
        base = entry["base"]
        if base not in config["methods"]:
            raise DdgmError(
                f"config: sweeps.tables.{name}.base = {base!r}; `methods` has "
                f"{', '.join(sorted(config['methods']))}"
            )
        row = config["methods"][base]
        limits = [limit for limit in (config["sweeps"]["images"], entry.get("images")) if limit]
        table = Path(entry.get("table") or SWEEP_TABLES / f"{name}.tsv")
        found[name] = Sweep(
            table,
            row["method"],
            settings_of(row),
            min(limits) if limits else None,
            tuple(read_table(table, config["sweeps"]["grid"])),
        )
    return found


@dataclass(frozen=True)
class Selection:
    """Where a row of `methods` takes its settings from.

    Attributes
    ----------
    sweeps : tuple of str
        Names of sweeps.
    network_evals : int or None
        Most evaluations of the network an image.
    """

    sweeps: tuple[str, ...]
    network_evals: int | None


def selections_of(config: Mapping[str, Any]) -> dict[str, Selection]:
    """Return the rows of `methods` whose settings sweeps decide; the others have their own."""
    if not config["sweeps"]["select"]:
        return {}
    tables, found = config["sweeps"]["tables"], {}
    for name, row in config["methods"].items():
        wanted = row.get("select") or {}
        enabled = tuple(each for each in wanted.get("sweeps", []) if tables[each] is not None)
        if enabled:
            found[name] = Selection(enabled, wanted.get("network_evals"))
    return found


def held_out_views(config: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the views kept and held out in the choice without the truth; None where there is none.

    Raises
    ------
    SettingError
        If so many views cannot be held out.
    """
    from ddgm.geometry import divide_views

    wanted, tables = config["sweeps"]["blind"], config["sweeps"]["tables"]
    if not any(tables.get(name) for name in wanted["sweeps"]):
        return None
    return divide_views(config["geometry"]["views"], wanted["views"])


def image_geometry(config: Mapping[str, Any]) -> TiltGeometry:
    """Return the tilt geometry of the validation and test images."""
    from ddgm.geometry import TiltGeometry

    size = config["patches"]["size"]
    return TiltGeometry.limited_angle((size, size), **config["geometry"])


def given_network(config: Mapping[str, Any]) -> Path | None:
    """Return the network file that the configuration names, or None where one is to be trained."""
    path = config["network"]["path"]
    # A null given on the command line would arrive as text.
    return None if path in (None, "train") else network_path(path)


def _noise_levels(config: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and the highest noise level that the network knows."""
    network = config["network"]
    if given_network(config) is None:
        return network["sigma_min"], network["sigma_max"]
    card = _card(network["path"])
    return card.sigma_min, card.sigma_max


def _card(path: str) -> DenoiserCard:
    from ddgm.denoiser import read_card

    return _renamed(f"network.path = {path}", lambda: read_card(path))


def _renamed(key: str, action: Callable[[], T]) -> T:
    """Run a check of the library; its complaint gets the name of the configuration key."""
    try:
        return action()
    except SettingError as error:
        raise DdgmError(f"config: {key}.{error}") from error
    except DdgmError as error:
        raise DdgmError(f"config: {key}: {error}") from error


def _describe(error: ValidationError) -> str:
    """Say in one line which key is wrong, what it holds and what is allowed."""
    key = ".".join(str(part) for part in error.absolute_path)
    schema: Any = error.schema
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        allowed = sorted(schema["properties"])
        unknown = sorted(set(error.instance) - set(allowed))[0]
        where = f"{key}.{unknown}" if key else unknown
        return f"config: unknown key {where}; {key or 'the top level'} takes {', '.join(allowed)}"
    instance: Any = error.instance
    if error.validator == "required":
        missing = next(name for name in schema["required"] if name not in instance)
        return f"config: {key}.{missing} is missing" if key else f"config: {missing} is missing"
    if "propertyNames" in error.absolute_schema_path:
        return f"config: {key}.{error.instance}: names may hold only letters, digits, - and _"
    allowed_values = _allowed(schema)
    hint = _number_hint(instance)
    return f"config: {key} = {instance!r} is not allowed; it takes {allowed_values}{hint}"


def _number_hint(value: Any) -> str:
    """Explain the numbers that YAML takes for text, such as 9e-5."""
    if not isinstance(value, str) or "e" not in value.lower():
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    return f" (YAML reads {value} as text; write {number:.12f}".rstrip("0") + ")"


def _allowed(schema: Mapping[str, Any]) -> str:
    """Put a schema of one key into words."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(repr(value) for value in schema["enum"])
    if "$ref" in schema:
        return "a value as described for " + str(schema["$ref"]).rpartition("/")[2]
    kind = schema.get("type", "a value")
    words = [" or ".join(kind) if isinstance(kind, list) else str(kind)]
    for rule, phrase in (
        ("minimum", "≥ {}"),
        ("exclusiveMinimum", "> {}"),
        ("maximum", "≤ {}"),
        ("exclusiveMaximum", "< {}"),
        ("multipleOf", "a multiple of {}"),
        ("pattern", "matching {}"),
        ("minItems", "at least {} items"),
        ("maxItems", "at most {} items"),
        ("minLength", "at least {} characters"),
        ("minProperties", "at least {} keys"),
        ("uniqueItems", "all different"),
    ):
        if rule in schema:
            words.append(phrase.format(schema[rule]))
    return ", ".join(words)
