# Two rules a sweep: `snakemake sweep_sigma1 -R sweep_sigma1_point` computes one anew.
for sweep, points in SWEEP_JOBS.items():

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
            held_out=KEPT_EIGENBASIS if sweep in HELD_OUT_SWEEPS else [],
        output:
            parquet=f"{RESULTS}/sweeps/{sweep}/points/{{points}}.parquet",
            csv=f"{RESULTS}/sweeps/{sweep}/points/{{points}}.csv",
        log:
            f"{RESULTS}/logs/sweeps/{sweep}/{{points}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/sweeps/{sweep}/{{points}}.tsv"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            mem_mb=16000,
            runtime=1440,
            gpu=gpus(config["reconstruction"]["device"]),
        params:
            sweep=sweep,
            method=SWEEPS[sweep].method,
            points=values_of_points(sweep),
            images=SWEEPS[sweep].images,
            held_out=(
                {key: HELD_OUT[key] for key in ("views", "images")}
                if sweep in HELD_OUT_SWEEPS
                else None
            ),
            precision=config["reconstruction"]["precision"],
            seed=config["reconstruction"]["seed"],
            # Finished points lie where Snakemake does not know them: it wipes declared outputs.
            directory=f"{RESULTS}/sweeps/{sweep}/unfinished",
            library=code_of(
                *RECONSTRUCTION_CODE,
                "blind",
                "evaluation",
                "geometry",
                "metrics",
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
            sinograms=f"{RESULTS}/sinograms/validation.npz",
        output:
            pdf=f"{RESULTS}/figures/sweep_{sweep}.pdf",
            png=f"{RESULTS}/figures/sweep_{sweep}.png",
        log:
            f"{RESULTS}/logs/sweeps/{sweep}.log",
        conda:
            "../../envs/ddgm.yaml"
        resources:
            mem_mb=4000,
            runtime=10,
        params:
            parameters=SWEEPS[sweep].parameters,
            library=code_of("figures", "selection", script="sweep"),
        script:
            "../scripts/sweep.py"


# Apart from the figures, whose style is nothing to Table 1.
rule sweep_rows:
    """Gather the points of a sweep in one table."""
    input:
        lambda wildcards: expand(
            f"{RESULTS}/sweeps/{wildcards.sweep}/points/{{points}}.parquet",
            points=SWEEP_JOBS[wildcards.sweep],
        ),
    output:
        parquet=f"{RESULTS}/sweeps/{{sweep}}.parquet",
        csv=f"{RESULTS}/sweeps/{{sweep}}.csv",
    log:
        f"{RESULTS}/logs/sweep_rows/{{sweep}}.log",
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        library=code_of(script="sweep_rows"),
    script:
        "../scripts/sweep_rows.py"


if SELECTIONS:

    rule select:
        """The settings with the lowest validation MSE, for each row of Table 1 that asks for them."""
        input:
            expand(f"{RESULTS}/sweeps/{{sweep}}.parquet", sweep=SELECTING_SWEEPS),
        output:
            rows=expand(f"{RESULTS}/selected/{{method}}.json", method=SELECTIONS),
            table=f"{RESULTS}/tables/selected.csv",
        log:
            f"{RESULTS}/logs/select.log",
        conda:
            "../../envs/ddgm.yaml"
        resources:
            mem_mb=4000,
            runtime=10,
        params:
            sweeps=SELECTING_SWEEPS,
            rows=[
                (name, list(wanted.sweeps), wanted.network_evals)
                for name, wanted in SELECTIONS.items()
            ],
            library=code_of("selection", script="select_settings"),
        script:
            "../scripts/select_settings.py"

    rule selected_table:
        """The selected settings, for reading."""
        input:
            f"{RESULTS}/tables/selected.csv",
        output:
            f"{RESULTS}/tables/selected.md",
        log:
            f"{RESULTS}/logs/selected_table.log",
        conda:
            "../../envs/ddgm.yaml"
        resources:
            mem_mb=2000,
            runtime=10,
        params:
            library=code_of("tables", script="selected_table"),
        script:
            "../scripts/selected_table.py"


if HELD_OUT_SWEEPS:

    rule blind:
        """Settings chosen from the measured tilt views alone, and what the truth says of them."""
        input:
            sweeps=expand(f"{RESULTS}/sweeps/{{sweep}}.parquet", sweep=HELD_OUT_SWEEPS),
            sinograms=f"{RESULTS}/sinograms/validation.npz",
            eigenbasis=EIGENBASIS,
        output:
            csv=f"{RESULTS}/tables/blind.csv",
            markdown=f"{RESULTS}/tables/blind.md",
            pdf=f"{RESULTS}/figures/blind.pdf",
            png=f"{RESULTS}/figures/blind.png",
        log:
            f"{RESULTS}/logs/blind.log",
        conda:
            "../../envs/ddgm.yaml"
        threads: 4
        resources:
            mem_mb=8000,
            runtime=10,
        params:
            sweeps=HELD_OUT_SWEEPS,
            library=code_of("blind", "figures", "selection", "tables", script="blind"),
        script:
            "../scripts/blind.py"


rule sweeps:
    """All sweeps with their figures, the settings they select, and those chosen blindly."""
    input:
        expand(f"{RESULTS}/figures/sweep_{{sweep}}.pdf", sweep=SWEEPS),
        f"{RESULTS}/tables/selected.md" if SELECTIONS else [],
        f"{RESULTS}/tables/blind.md" if HELD_OUT_SWEEPS else [],


onerror:
    for sweep, jobs in SWEEP_JOBS.items():
        tried = {Path(f"{RESULTS}/logs/sweeps/{sweep}/{points}.log"): points for points in jobs}
        for record, points in tried.items():
            if (
                record.exists()
                and not Path(f"{RESULTS}/sweeps/{sweep}/points/{points}.parquet").exists()
            ):
                print(f"sweep_{sweep}: {points} is missing; see {record}", file=sys.stderr)
