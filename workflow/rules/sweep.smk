# Two rules a sweep: `snakemake sweep_sigma1 -R sweep_sigma1_point` computes one anew.
for sweep in SWEEPS:

    rule:
        """Reconstruct the validation set at some points of a sweep, and compare with the truth."""
        name:
            f"sweep_{sweep}_point"
        input:
            sinograms=f"{RESULTS}/sinograms/validation.npz",
            patches=f"{RESULTS}/patches/validation.npz",
            statistics=f"{RESULTS}/statistics.json",
            network=network_of(SWEEPS[sweep].method),
            eigenbasis=EIGENBASIS,
            held_out=KEPT_EIGENBASIS if sweep in BLIND_SWEEPS else [],
        output:
            parquet=f"{RESULTS}/sweeps/{sweep}/points/{{points}}.parquet",
            csv=f"{RESULTS}/sweeps/{sweep}/points/{{points}}.csv",
        log:
            f"{RESULTS}/logs/sweeps/{sweep}/{{points}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/sweeps/{sweep}/{{points}}.tsv"
        group:
            "sweep"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            mem_mb=more(16000),
            runtime=more(180),
            cpus_per_task=16,
            # A group computes them in turn (profile slurm), with what one needs.
            sweep_slot=1,
            gpu=gpus(config["reconstruction"]["device"]),
        params:
            sweep=sweep,
            method=SWEEPS[sweep].method,
            points=values_of_points(sweep),
            images=SWEEPS[sweep].images,
            blind=(
                {key: BLIND[key] for key in ("views", "images")} if sweep in BLIND_SWEEPS else None
            ),
            precision=config["reconstruction"]["precision"],
            seed=config["reconstruction"]["seed"],
            # Finished points lie where Snakemake does not know them: it wipes declared outputs.
            directory=finished_points_of(sweep),
            library=reconstruction_code(
                SWEEPS[sweep].method,
                "evaluation",
                "geometry",
                "held_out",
                "metrics",
                "noise_level",
                "noise_splitting",
                "sweep_points",
                script="sweep_point",
            ),
        script:
            "../scripts/sweep_point.py"

    rule:
        """Draw the figure of a sweep, and name the points that are missing."""
        name:
            f"sweep_{sweep}"
        input:
            rows=f"{RESULTS}/sweeps/{sweep}.parquet",
            points=points_of(sweep),
        output:
            **drawn(f"sweep_{sweep}", "Sweeps", "sweep", shows=f"Sweep {sweep}"),
        log:
            f"{RESULTS}/logs/sweeps/{sweep}.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            parameters=SWEEPS[sweep].parameters,
            noise_std=config["measurement"]["noise_std"],
            library=code_of("figures/style", "figures/sweeps", "selection", script="sweep"),
        script:
            "../scripts/sweep.py"


# Apart from the figures, whose style is nothing to Table 1.
rule gather_rows:
    """Gather the points of a sweep in one table."""
    input:
        lambda wildcards: points_of(wildcards.sweep),
    output:
        parquet=f"{RESULTS}/sweeps/{{sweep}}.parquet",
        csv=f"{RESULTS}/sweeps/{{sweep}}.csv",
    log:
        f"{RESULTS}/logs/gather_rows/{{sweep}}.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        library=code_of(script="gather_rows"),
    script:
        "../scripts/gather_rows.py"


# One job a row: a sweep more does nothing to the rows that do not ask for it.
rule select_settings:
    """The settings with the lowest validation MSE, for a row of Table 1 that asks for them."""
    input:
        lambda wildcards: expand(
            f"{RESULTS}/sweeps/{{sweep}}.parquet", sweep=SELECTIONS[wildcards.method].sweeps
        ),
    output:
        f"{RESULTS}/selected/{{method}}.json",
    log:
        f"{RESULTS}/logs/select/{{method}}.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        network_evals=lambda wildcards: SELECTIONS[wildcards.method].network_evals,
        library=code_of("selection", script="select_settings"),
    script:
        "../scripts/select_settings.py"


if SELECTIONS:

    rule select:
        """The settings of all rows of Table 1 that sweeps decide, for reading."""
        input:
            expand(f"{RESULTS}/selected/{{method}}.json", method=SELECTIONS),
        output:
            csv=f"{RESULTS}/tables/selected.csv",
            markdown=f"{RESULTS}/tables/selected.md",
            html=page_of("selected", "Sweeps", shows="Settings that the sweeps choose"),
        log:
            f"{RESULTS}/logs/select.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            rows=list(SELECTIONS),
            library=code_of("pages", "tables", script="selected"),
        script:
            "../scripts/selected.py"


if BLIND_SWEEPS:

    rule blind:
        """Settings chosen from the measured tilt views alone, and what the truth says of them."""
        input:
            sweeps=expand(f"{RESULTS}/sweeps/{{sweep}}.parquet", sweep=BLIND_SWEEPS),
            sinograms=f"{RESULTS}/sinograms/validation.npz",
            eigenbasis=EIGENBASIS,
        output:
            **drawn("blind", "Sweeps", "blind_scores", shows="Scores without the truth"),
            csv=f"{RESULTS}/tables/blind.csv",
            markdown=f"{RESULTS}/tables/blind.md",
            html=page_of("blind", "Sweeps", shows="Settings chosen without the truth"),
        log:
            f"{RESULTS}/logs/blind.log",
        conda:
            "../../envs/ddgm.yaml"
        threads: 4
        resources:
            mem_mb=more(8000),
            runtime=more(10),
            cpus_per_task=4,
        params:
            sweeps=BLIND_SWEEPS,
            library=code_of(
                "blind",
                "figures/blind",
                "figures/style",
                "noise_level",
                "pages",
                "selection",
                "tables",
                script="blind",
            ),
        script:
            "../scripts/blind.py"


rule sweeps:
    """All sweeps with their figures, the settings they select, and those chosen blindly."""
    input:
        expand(f"{RESULTS}/figures/sweep_{{sweep}}.{{ending}}", sweep=SWEEPS, ending=["pdf", "png"]),
        rules.select.output if SELECTIONS else [],
        rules.blind.output if BLIND_SWEEPS else [],
