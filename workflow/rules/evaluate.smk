rule metrics:
    """Compare the test images of every row of Table 1 with the truth, one row an image."""
    input:
        reconstructions=expand(
            f"{RESULTS}/reconstructions/test/{{method}}.npz", method=config["table_1"]
        ),
        patches=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        f"{RESULTS}/metrics/test.csv",
    log:
        f"{RESULTS}/logs/metrics.log",
    conda:
        "../../envs/ddgm.yaml"
    resources:
        mem_mb=more(4000),
        runtime=more(30),
    params:
        methods=config["table_1"],
        library=code_of("evaluation", "metrics", script="metrics"),
    script:
        "../scripts/metrics.py"


rule table_1:
    """Table 1: accuracy and work of the methods on the test set."""
    input:
        f"{RESULTS}/metrics/test.csv",
    output:
        csv=f"{RESULTS}/tables/table_1.csv",
        markdown=f"{RESULTS}/tables/table_1.md",
        latex=f"{RESULTS}/tables/table_1.tex",
    log:
        f"{RESULTS}/logs/table_1.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        rows=[
            (name, config["methods"][name]["label"], config["methods"][name]["method"])
            for name in config["table_1"]
        ],
        library=code_of("tables", script="table_1"),
    script:
        "../scripts/table_1.py"


rule comparison:
    """Test images beside their tilt series and reconstructions."""
    input:
        patches=f"{RESULTS}/patches/test.npz",
        sinograms=f"{RESULTS}/sinograms/test.npz",
        statistics=f"{RESULTS}/statistics.json",
        reconstructions=expand(
            f"{RESULTS}/reconstructions/test/{{method}}.npz",
            method=config["comparison"]["methods"],
        ),
    output:
        pdf=f"{RESULTS}/figures/comparison.pdf",
        png=f"{RESULTS}/figures/comparison.png",
    log:
        f"{RESULTS}/logs/comparison.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        labels=[config["methods"][name]["label"] for name in config["comparison"]["methods"]],
        images=config["comparison"]["images"],
        library=code_of("figures/images", "figures/style", script="comparison"),
    script:
        "../scripts/comparison.py"


rule prior:
    """Images from the prior alone beside real ones, and their statistics as numbers (Fig. 2)."""
    input:
        samples=f"{RESULTS}/reconstructions/validation/{config['prior']['method']}.npz",
        patches=f"{RESULTS}/patches/validation.npz",
        others=f"{RESULTS}/patches/test.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        csv=f"{RESULTS}/tables/prior.csv",
        pdf=f"{RESULTS}/figures/prior.pdf",
        png=f"{RESULTS}/figures/prior.png",
    log:
        f"{RESULTS}/logs/prior.log",
    localrule: True
    conda:
        "../../envs/ddgm.yaml"
    params:
        images=config["prior"]["images"],
        library=code_of("figures/prior", "figures/style", "image_statistics", script="prior"),
    script:
        "../scripts/prior.py"
