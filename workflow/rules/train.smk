if config["network"]["path"] is None:

    rule train:
        """Train the noise-prediction network; goes on from its last checkpoint."""
        input:
            volume=f"{RESULTS}/volumes/train.zarr",
            statistics=f"{RESULTS}/statistics.json",
            validation=f"{RESULTS}/patches/validation.npz",
        output:
            network=NETWORK,
            losses=f"{RESULTS}/network/losses.csv",
        log:
            f"{RESULTS}/logs/train.log",
        benchmark:
            f"{RESULTS}/benchmarks/train.tsv"
        conda:
            "../../envs/ddgm.yaml"
        threads: 16
        resources:
            mem_mb=32000,
            runtime=2880,
            gpu=0 if config["training"]["accelerator"] == "cpu" else 1,
        params:
            # Checkpoints lie where Snakemake does not know them: it wipes declared outputs.
            directory=f"{RESULTS}/network/training",
            network={k: v for k, v in config["network"].items() if k != "path"},
            training=config["training"],
        script:
            "../scripts/train.py"
