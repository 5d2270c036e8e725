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
        html=page_of("table_1", "Table 1", shows="Accuracy and work of the methods"),
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
        library=code_of("pages", "tables", script="table_1"),
    script:
        "../scripts/table_1.py"
