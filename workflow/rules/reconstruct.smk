rule reconstruct:
    """Reconstruct a set of tilt series with one method."""
    input:
        sinograms=f"{RESULTS}/sinograms/{{set}}.npz",
        settings=lambda wildcards: decided_by(wildcards.method),
        network=lambda wildcards: network_of(config["methods"][wildcards.method]["method"]),
        eigenbasis=EIGENBASIS,
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
        mem_mb=more(8000),
        runtime=more(480),
        cpus_per_task=16,
        gpu=gpus(config["reconstruction"]["device"]),
    params:
        method=lambda wildcards: given_settings(wildcards.method),
        images=lambda wildcards: config["methods"][wildcards.method].get("images"),
        precision=config["reconstruction"]["precision"],
        seed=config["reconstruction"]["seed"],
        library=lambda wildcards: reconstruction_code(
            config["methods"][wildcards.method]["method"], script="reconstruct"
        ),
    script:
        "../scripts/reconstruct.py"
