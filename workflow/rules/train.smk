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
            gpu=gpus(config["training"]["accelerator"], config["training"]["devices"]),
        params:
            # Checkpoints lie where Snakemake does not know them: it wipes declared outputs.
            directory=f"{RESULTS}/network/training",
            network={k: v for k, v in config["network"].items() if k not in ("path", "about")},
            # Settings of the machine (devices, workers, …) change no result and retrain nothing.
            training={k: v for k, v in config["training"].items() if k not in INCIDENTAL},
            library=code_of("denoiser", "network", "noise", "patches", "training"),
        script:
            "../scripts/train.py"
