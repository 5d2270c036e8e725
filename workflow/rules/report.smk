# What `snakemake --report` shows beside tables and figures: where the results come from. Its
# page shows HTML and images in place, other files for download.
# All that the target `paper` makes, less the pages about it.
RESULTS_OF_PAPER = [
    rules.table_1.output,
    expand(
        f"{RESULTS}/figures/figure_{{number}}.{{ending}}", number=FIGURES, ending=["pdf", "png"]
    ),
    rules.sweeps.input,
    rules.uncertainty.input,
    rules.training_curve.output if GIVEN_NETWORK is None else [],
    rules.volume.input if HAS_SLAB else [],
]


rule configuration:
    """The configuration of the run, to read and to run again."""
    output:
        html=shown_of_run(f"{RESULTS}/report/configuration.html", "Configuration", "page"),
        yaml=shown_of_run(f"{RESULTS}/report/configuration.yaml", "Configuration", "text"),
    log:
        f"{RESULTS}/logs/configuration.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        digest=hashlib.sha256(json.dumps(config).encode()).hexdigest()[:16],
        library=code_of("pages", "provenance", script="configuration"),
    script:
        "../scripts/configuration.py"


# A job like those that reconstruct, so that it sees the machine that they see.
rule versions:
    """Versions and machine, as they were when the test images were last compared with the truth."""
    input:
        f"{RESULTS}/metrics/test.csv",
    output:
        html=shown_of_run(f"{RESULTS}/report/versions.html", "Versions and machine", "page"),
        csv=shown_of_run(f"{RESULTS}/report/versions.csv", "Versions and machine", "text"),
    log:
        f"{RESULTS}/logs/versions.log",
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=more(2000),
        runtime=more(10),
        gpu=gpus(config["reconstruction"]["device"]),
    params:
        snakemake=snakemake.__version__,
        library=code_of("pages", "provenance", script="versions"),
    script:
        "../scripts/versions.py"


rule run_times:
    """Time and memory of the run's steps, and the time that each method takes an image."""
    input:
        metrics=f"{RESULTS}/metrics/test.csv",
        # A job that ran again has measured itself again.
        results=RESULTS_OF_PAPER,
    output:
        html=shown_of_run(f"{RESULTS}/report/run_times.html", "Run times", "page"),
        csv=shown_of_run(f"{RESULTS}/report/run_times.csv", "Run times", "text"),
    log:
        f"{RESULTS}/logs/run_times.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        directory=f"{RESULTS}/benchmarks",
        labels=[(name, config["methods"][name]["label"]) for name in config["table_1"]],
        library=code_of("pages", "provenance", script="run_times"),
    script:
        "../scripts/run_times.py"


# No part of the report, which holds pages as addresses, and Chromium takes none above 2 MB.
rule viewer:
    """A page to look at test images: truth and methods under one slider, error and uncertainty."""
    input:
        patches=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
        reconstructions=expand(
            f"{RESULTS}/reconstructions/test/{{method}}.npz",
            method=config["comparison"]["methods"],
        ),
        posteriors=posteriors_of("test"),
    output:
        f"{RESULTS}/viewer.html",
    log:
        f"{RESULTS}/logs/viewer.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        title=f"{config['run']}: test images",
        labels=[config["methods"][name]["label"] for name in config["comparison"]["methods"]],
        sampled=[config["methods"][name]["label"] for name in UNCERTAINTY["methods"]],
        images=config["viewer"]["images"],
        library=code_of(
            "calibration", "evaluation", "metrics", "posterior", "viewer", script="viewer"
        ),
    script:
        "../scripts/viewer.py"


PAGES = [
    rules.viewer.output,
    rules.configuration.output,
    rules.versions.output,
    rules.run_times.output,
]
