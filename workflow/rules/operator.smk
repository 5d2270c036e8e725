if EIGENBASIS:

    rule eigenbasis:
        """The eigenvectors of AᵀA, in which all steps towards the data are two products."""
        output:
            EIGENBASIS,
        log:
            f"{RESULTS}/logs/eigenbasis.log",
        benchmark:
            f"{RESULTS}/benchmarks/eigenbasis.tsv"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            mem_mb=8000,
            runtime=60,
            gpu=gpus(config["reconstruction"]["device"]),
        params:
            geometry=GEOMETRY.as_dict(),
            library=code_of("eigenbasis", "geometry", "projector"),
        script:
            "../scripts/eigenbasis.py"
