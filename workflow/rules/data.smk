rule synthesize:
    """Make an EM-like volume from a seed, as a Neuroglancer precomputed volume."""
    output:
        directory(f"{RESULTS}/source/{{volume}}"),
    log:
        f"{RESULTS}/logs/synthesize/{{volume}}.log",
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=more(4000),
        runtime=more(30),
    params:
        synthetic=lambda wildcards: config["volumes"][wildcards.volume]["synthetic"],
        library=code_of("synthetic", script="synthesize"),
    script:
        "../scripts/synthesize.py"


rule download:
    """Copy a box of a precomputed volume into a Zarr array; goes on where it was interrupted."""
    input:
        made_source,
    output:
        directory(f"{RESULTS}/volumes/{{volume}}.zarr"),
    log:
        f"{RESULTS}/logs/download/{{volume}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/download/{{volume}}.tsv"
    conda:
        "../../envs/ddgm.yaml"
    threads: 4
    resources:
        mem_mb=more(8000),
        runtime=more(1440),
        cpus_per_task=4,
    params:
        # As it is written: another way to the same data fetches nothing again.
        address=lambda wildcards: config["volumes"][wildcards.volume]["address"],
        mip=lambda wildcards: config["volumes"][wildcards.volume]["mip"],
        size=lambda wildcards: config["volumes"][wildcards.volume]["size"],
        box=lambda wildcards: config["volumes"][wildcards.volume]["box"],
        axes=lambda wildcards: config["volumes"][wildcards.volume]["axes"],
        fill_missing=config["download"]["fill_missing"],
    script:
        "../scripts/download.py"


if GIVEN_NETWORK is None:

    rule statistics:
        """Mean and standard deviation over all training voxels."""
        input:
            volume=f"{RESULTS}/volumes/train.zarr",
        output:
            f"{RESULTS}/statistics.json",
        log:
            f"{RESULTS}/logs/statistics.log",
        benchmark:
            f"{RESULTS}/benchmarks/statistics.tsv"
        group:
            "prepare"
        conda:
            "../../envs/ddgm.yaml"
        resources:
            mem_mb=more(2000),
            runtime=more(240),
        script:
            "../scripts/statistics.py"

else:

    rule statistics_of_network:
        """The normalisation that the given network was trained with, if it suits the images."""
        input:
            network=NETWORK,
            patches=f"{RESULTS}/patches/validation.npz",
        output:
            f"{RESULTS}/statistics.json",
        log:
            f"{RESULTS}/logs/statistics.log",
        group:
            "prepare"
        conda:
            "../../envs/ddgm.yaml"
        resources:
            mem_mb=more(2000),
            runtime=more(10),
        params:
            library=code_of("denoiser", "statistics", script="statistics_of_network"),
        script:
            "../scripts/statistics_of_network.py"


rule patches:
    """Random image patches of the evaluation volume: the validation or the test set."""
    input:
        volume=f"{RESULTS}/volumes/eval.zarr",
    output:
        f"{RESULTS}/patches/{{set}}.npz",
    log:
        f"{RESULTS}/logs/patches/{{set}}.log",
    group:
        "prepare"
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=more(4000),
        runtime=more(60),
    params:
        size=config["patches"]["size"],
        images=lambda wildcards: config["patches"][wildcards.set],
        gap=config["patches"]["gap"],
        seed=config["patches"]["seed"],
        library=code_of("patches", script="patches"),
    script:
        "../scripts/patches.py"
