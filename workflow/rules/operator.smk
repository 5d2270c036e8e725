if EIGENBASES:

    rule eigenbasis:
        """The eigenvectors of AᵀA, in which all steps towards the data are two products."""
        output:
            f"{OPERATORS}/eigenbasis-{{geometry}}.safetensors",
        log:
            f"{RESULTS}/logs/eigenbasis/{{geometry}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/eigenbasis/{{geometry}}.tsv"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            mem_mb=more(8000),
            runtime=more(60),
            cpus_per_task=16,
            gpu=gpus(config["reconstruction"]["device"]),
        params:
            geometry=lambda wildcards: EIGENBASES[wildcards.geometry].as_dict(),
            library=code_of("eigenbasis", "geometry", "projector", script="eigenbasis"),
        script:
            "../scripts/eigenbasis.py"
