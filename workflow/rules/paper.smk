# The paper's figures, one rule and one target each: figure_1 to figure_16. Of these, figure_3 is in
# uncertainty.smk. What a configuration cannot draw has its rule, too, which says why.
# Sweeps by the numbers of their figures, and what is the same in all of a figure.
SWEEP_FIGURES = {
    9: ("sigma1", {"N": 50}),
    10: ("sigma1", {"N": 100}),
    11: ("sigma1", {"N": 150}),
    12: ("algebraic", {}),
    13: ("ddrm", {}),
    14: ("dps", {}),
    15: ("dps_50", {}),
    16: ("dps_1000", {}),
}

UNDRAWN = {}
if not HAS_SLAB:
    UNDRAWN[1] = "volumes.slab and slab.tilt_series are null"
if not EIGENBASIS:
    size = config["patches"]["size"]
    UNDRAWN[8] = f"images of {size} × {size} pixels are too large for an eigenbasis"
for number, (sweep, only) in SWEEP_FIGURES.items():
    if sweep not in SWEEPS:
        UNDRAWN[number] = f"sweeps.tables has no {sweep}"
    elif not has_points(sweep, only):
        values = ", ".join(f"{name} = {value}" for name, value in only.items())
        UNDRAWN[number] = (
            f"the {config['sweeps']['grid']} grid of {SWEEPS[sweep].table} has no point with {values}"
        )

for number, reason in UNDRAWN.items():

    rule:
        """A figure that this configuration cannot draw."""
        name:
            f"figure_{number}"
        input:
            impossible(f"figure_{number}", reason),


if 1 not in UNDRAWN:

    rule figure_1:
        """A section of the slab: tilt views, reconstructions and, where it is known, the truth."""
        input:
            series=TILT_SERIES,
            statistics=f"{RESULTS}/statistics.json",
            volumes=expand(f"{RESULTS}/slab/{{method}}.zarr", method=SLAB["methods"]),
            truth=TRUTH,
        output:
            **figure(1, "A section of a slab"),
        log:
            f"{RESULTS}/logs/figure_1.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            labels=[config["methods"][name]["label"] for name in SLAB["methods"]],
            section=SLAB["section"],
            library=code_of("figures/sections", "figures/style", script="figure_1"),
        script:
            "../scripts/figure_1.py"


rule figure_2:
    """Images from the network alone beside real ones, and their statistics as numbers."""
    input:
        samples=f"{RESULTS}/reconstructions/validation/{config['prior']['method']}.npz",
        patches=f"{RESULTS}/patches/validation.npz",
        others=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **figure(2, "The prior by itself"),
        csv=f"{RESULTS}/tables/prior.csv",
        html=page_of("prior", PAPER, figure=" 2", shows="Statistics of the prior's images"),
    log:
        f"{RESULTS}/logs/figure_2.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        images=config["prior"]["images"],
        library=code_of(
            "figures/prior", "figures/style", "image_statistics", "pages", script="figure_2"
        ),
    script:
        "../scripts/figure_2.py"


rule figure_4:
    """Test images beside their tilt series and the reconstructions of all methods."""
    input:
        patches=f"{RESULTS}/patches/test.npz",
        sinograms=f"{RESULTS}/sinograms/test.npz",
        statistics=f"{RESULTS}/statistics.json",
        reconstructions=expand(
            f"{RESULTS}/reconstructions/test/{{method}}.npz",
            method=config["comparison"]["methods"],
        ),
    output:
        **figure(4, "All methods on the same images"),
    log:
        f"{RESULTS}/logs/figure_4.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        labels=[config["methods"][name]["label"] for name in config["comparison"]["methods"]],
        images=config["comparison"]["images"],
        library=code_of("figures/images", "figures/style", script="figure_4"),
    script:
        "../scripts/figure_4.py"


rule figure_5:
    """More images from the network alone."""
    input:
        images=f"{RESULTS}/reconstructions/validation/{config['prior']['method']}.npz",
        patches=f"{RESULTS}/patches/validation.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **figure(5, "More images from the prior"),
    log:
        f"{RESULTS}/logs/figure_5.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        # The last ones: if there are enough, they are others than those of Figure 2.
        shown=[-config["more"]["images"], None],
        library=code_of("figures/images", "figures/style", script="image_grid"),
    script:
        "../scripts/image_grid.py"


rule figure_6:
    """More reconstructions, of validation images."""
    input:
        images=f"{RESULTS}/reconstructions/validation/{config['more']['method']}.npz",
        patches=f"{RESULTS}/patches/validation.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **figure(6, "More reconstructions"),
    log:
        f"{RESULTS}/logs/figure_6.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        shown=[0, config["more"]["images"]],
        label=config["methods"][config["more"]["method"]]["label"],
        library=code_of("figures/images", "figures/style", script="image_grid"),
    script:
        "../scripts/image_grid.py"


rule figure_7:
    """The true images of Figure 6."""
    input:
        patches=f"{RESULTS}/patches/validation.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **figure(7, "The truth of Figure 6"),
    log:
        f"{RESULTS}/logs/figure_7.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        shown=[0, config["more"]["images"]],
        library=code_of("figures/images", "figures/style", script="image_grid"),
    script:
        "../scripts/image_grid.py"


if 8 not in UNDRAWN:

    rule figure_8:
        """The singular values of the projector, beside what the paper says of them."""
        input:
            EIGENBASIS,
        output:
            **figure(8, "Singular values of the projector"),
            csv=f"{RESULTS}/tables/singular_values.csv",
        log:
            f"{RESULTS}/logs/figure_8.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            library=code_of("conditioning", "figures/spectrum", "figures/style", script="figure_8"),
        script:
            "../scripts/figure_8.py"


for number, (sweep, only) in SWEEP_FIGURES.items():
    if number in UNDRAWN:
        continue

    rule:
        """Draw a sweep, or the part of it that is one figure of the paper."""
        name:
            f"figure_{number}"
        input:
            rows=f"{RESULTS}/sweeps/{sweep}.parquet",
            points=points_of(sweep),
        output:
            **figure(number, " ".join([f"Sweep {sweep}", *(f"{k} = {v}" for k, v in only.items())])),
        log:
            f"{RESULTS}/logs/figure_{number}.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            parameters=SWEEPS[sweep].parameters,
            noise_std=config["measurement"]["noise_std"],
            only=only,
            library=code_of("figures/style", "figures/sweeps", "selection", script="sweep"),
        script:
            "../scripts/sweep.py"


FIGURES = [number for number in range(1, 17) if number not in UNDRAWN]
