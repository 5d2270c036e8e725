if HAS_SLAB:
    # Of a measured tilt series nobody knows the truth.
    TRUTH = [] if SLAB["tilt_series"] else [f"{RESULTS}/volumes/slab.zarr"]
    TILT_SERIES = SLAB["tilt_series"] or f"{RESULTS}/slab/tilt_series.zarr"
    EXPORTS = {
        kind: f"{RESULTS}/export/{{method}}.{suffix}"
        for kind, suffix in (("ome_zarr", "ome.zarr"), ("precomputed", "precomputed"))
        if SLAB[kind]
    }

    if TRUTH:

        rule simulate_slab:
            """Simulate the noisy tilt series of a slab; goes on where it was interrupted."""
            input:
                volume=TRUTH,
                statistics=f"{RESULTS}/statistics.json",
            output:
                directory(TILT_SERIES),
            log:
                f"{RESULTS}/logs/simulate_slab.log",
            benchmark:
                f"{RESULTS}/benchmarks/simulate_slab.tsv"
            conda:
                "../../envs/ddgm.yaml"
            threads: 16
            resources:
                mem_mb=more(4000),
                runtime=more(480),
                cpus_per_task=16,
            params:
                geometry=config["geometry"],
                noise_std=config["measurement"]["noise_std"],
                seed=config["measurement"]["seed"],
                batch=SLAB["batch"],
                library=code_of(
                    "geometry",
                    "noise",
                    "slab_simulation",
                    "strip_projector",
                    "tilt_series",
                    script="simulate_slab",
                ),
            script:
                "../scripts/simulate_slab.py"

    rule reconstruct_volume:
        """Reconstruct a slab with Dask's workers; goes on where it was interrupted."""
        input:
            series=TILT_SERIES,
            statistics=f"{RESULTS}/statistics.json",
            settings=lambda wildcards: decided_by(wildcards.method),
            network=lambda wildcards: network_of(config["methods"][wildcards.method]["method"]),
        output:
            directory(f"{RESULTS}/slab/{{method}}.zarr"),
        log:
            f"{RESULTS}/logs/reconstruct_volume/{{method}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/reconstruct_volume/{{method}}.tsv"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            **volume_workers(SLAB["cluster"], config["reconstruction"]["device"]),
            runtime=more(2880),
        params:
            method=lambda wildcards: given_settings(wildcards.method),
            blending=SLAB["blending"],
            batch=SLAB["batch"],
            dtype=SLAB["dtype"],
            precision=config["reconstruction"]["precision"],
            seed=config["reconstruction"]["seed"],
            library=lambda wildcards: reconstruction_code(
                config["methods"][wildcards.method]["method"],
                "blending",
                "noise_level",
                "sinograms",
                "tilt_series",
                "volume_reconstruction",
                script="reconstruct_volume",
            ),
        script:
            "../scripts/reconstruct_volume.py"

    rule export:
        """Write a reconstructed slab in formats that other programs open."""
        input:
            f"{RESULTS}/slab/{{method}}.zarr",
        output:
            **{kind: directory(path) for kind, path in EXPORTS.items()},
        log:
            f"{RESULTS}/logs/export/{{method}}.log",
        conda:
            "../../envs/ddgm.yaml"
        threads: 4
        resources:
            mem_mb=more(4000),
            runtime=more(480),
            cpus_per_task=4,
        params:
            label=lambda wildcards: config["methods"][wildcards.method]["label"],
            library=code_of("export", script="export"),
        script:
            "../scripts/export.py"

    if TRUTH:

        rule slab_table:
            """Accuracy and work of the methods on the slab, in the form of Table 1."""
            input:
                statistics=f"{RESULTS}/statistics.json",
                volumes=expand(f"{RESULTS}/slab/{{method}}.zarr", method=SLAB["methods"]),
                truth=TRUTH,
            output:
                metrics=f"{RESULTS}/metrics/slab.csv",
                csv=f"{RESULTS}/tables/slab.csv",
                markdown=f"{RESULTS}/tables/slab.md",
                html=page_of("slab", "Slab", shows="Accuracy and work on the slab"),
            log:
                f"{RESULTS}/logs/slab_table.log",
            conda:
                "../../envs/ddgm.yaml"
            resources:
                mem_mb=more(4000),
                runtime=more(120),
            params:
                rows=[
                    (name, config["methods"][name]["label"], config["methods"][name]["method"])
                    for name in SLAB["methods"]
                ],
                library=code_of("evaluation", "metrics", "pages", "tables", script="slab_table"),
            script:
                "../scripts/slab_table.py"

    rule volume:
        """The slab, reconstructed and exported, its figure and table."""
        input:
            expand([f"{RESULTS}/slab/{{method}}.zarr", *EXPORTS.values()], method=SLAB["methods"]),
            f"{RESULTS}/figures/figure_1.pdf",
            rules.slab_table.output if TRUTH else [],
