rule posterior:
    """Several runs of a method on each tilt series of a set: mean, deviation, data consistency."""
    input:
        sinograms=f"{RESULTS}/sinograms/{{set}}.npz",
        settings=lambda wildcards: decided_by(wildcards.method),
        network=NETWORK,
        eigenbasis=EIGENBASIS,
    output:
        f"{RESULTS}/uncertainty/{{set}}/{{method}}.npz",
    log:
        f"{RESULTS}/logs/posterior/{{set}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/posterior/{{set}}/{{method}}.tsv"
    conda:
        "../../envs/ddgm.yaml"
    threads: 16
    resources:
        mem_mb=more(8000),
        runtime=more(480),
        cpus_per_task=16,
        gpu=gpus(config["reconstruction"]["device"]),
    params:
        method=lambda wildcards: given_settings(wildcards.method),
        images=lambda wildcards: UNCERTAINTY[wildcards.set],
        samples=UNCERTAINTY["samples"],
        kept=UNCERTAINTY["runs"],
        precision=config["reconstruction"]["precision"],
        seed=config["reconstruction"]["seed"],
        library=lambda wildcards: reconstruction_code(
            config["methods"][wildcards.method]["method"],
            "data_consistency",
            "posterior",
            script="posterior",
        ),
    script:
        "../scripts/posterior.py"


rule calibration:
    """How far the deviation of runs foretells their error, and what a mean of runs gains."""
    input:
        test=posteriors_of("test"),
        validation=posteriors_of("validation"),
        test_patches=f"{RESULTS}/patches/test.npz",
        validation_patches=f"{RESULTS}/patches/validation.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **drawn("calibration", "Uncertainty", shows="Calibration", form="figure"),
        csv=f"{RESULTS}/tables/calibration.csv",
        markdown=f"{RESULTS}/tables/calibration.md",
        html=page_of("calibration", "Uncertainty", shows="Calibration", form="table"),
        curve=f"{RESULTS}/tables/calibration_curve.csv",
        shares=f"{RESULTS}/tables/calibration_shares.csv",
        means=f"{RESULTS}/tables/mean_of_runs.csv",
    log:
        f"{RESULTS}/logs/calibration.log",
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=more(8000),
        runtime=more(30),
    params:
        labels=[config["methods"][name]["label"] for name in UNCERTAINTY["methods"]],
        library=code_of(
            "calibration",
            "figures/style",
            "figures/uncertainty",
            "pages",
            "tables",
            script="calibration",
        ),
    script:
        "../scripts/calibration.py"


rule figure_3:
    """Several runs of a clear measurement and of an ambiguous one."""
    input:
        posterior=posteriors_of("test")[0],
        algebraic=f"{RESULTS}/reconstructions/test/{UNCERTAINTY['beside']}.npz",
        patches=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **figure(3, "Several runs of one measurement"),
    log:
        f"{RESULTS}/logs/figure_3.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        library=code_of("disagreement", "figures/style", "figures/uncertainty", script="figure_3"),
    script:
        "../scripts/figure_3.py"


rule uncertainty_maps:
    """The mean of runs beside its error, the predicted deviation and the data's objections."""
    input:
        posterior=posteriors_of("test")[0],
        patches=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        **drawn("uncertainty", "Uncertainty", shows="Maps", form="figure"),
    log:
        f"{RESULTS}/logs/uncertainty_maps.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        images=UNCERTAINTY["shown"],
        library=code_of(
            "calibration",
            "disagreement",
            "figures/style",
            "figures/uncertainty",
            script="uncertainty_maps",
        ),
    script:
        "../scripts/uncertainty_maps.py"


rule uncertainty:
    """Everything about the spread of runs: Fig. 3, maps, calibration and tables."""
    input:
        rules.calibration.output,
        rules.figure_3.output,
        rules.uncertainty_maps.output,
