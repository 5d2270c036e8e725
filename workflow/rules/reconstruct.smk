rule reconstruct:
    """Reconstruct a set of tilt series with one method."""
    input:
        sinograms=f"{RESULTS}/sinograms/{{set}}.npz",
        network=lambda wildcards: network_of(wildcards.method),
    output:
        f"{RESULTS}/reconstructions/{{set}}/{{method}}.npz",
    log:
        f"{RESULTS}/logs/reconstruct/{{set}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/reconstruct/{{set}}/{{method}}.tsv"
    conda:
        "../../envs/ddgm.yaml"
    threads: 16
    resources:
        mem_mb=8000,
        runtime=480,
        gpu=0 if config["reconstruction"]["device"] == "cpu" else 1,
    params:
        method=lambda wildcards: settings_of(wildcards.method),
        device=config["reconstruction"]["device"],
        batch=config["reconstruction"]["batch"],
        seed=config["reconstruction"]["seed"],
    script:
        "../scripts/reconstruct.py"
