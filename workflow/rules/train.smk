if GIVEN_NETWORK is None:

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
            **training_nodes(config["training"]),
            runtime=more(2880),
        params:
            # Checkpoints lie where Snakemake does not know them: it wipes declared outputs.
            directory=f"{RESULTS}/network/training",
            network={k: v for k, v in config["network"].items() if k not in ("path", "about")},
            # Settings of the machine (devices, workers, …) change no result and retrain nothing.
            training={k: v for k, v in config["training"].items() if k not in INCIDENTAL},
            library=code_of("denoiser", "network", "noise", "patches", "training", script="train"),
        script:
            "../scripts/train.py"

    rule training_curve:
        """The course of the losses, and the validation loss by noise level at the end."""
        input:
            f"{RESULTS}/network/losses.csv",
        output:
            **drawn("training", "Training", shows="Losses"),
        log:
            f"{RESULTS}/logs/training_curve.log",
        localrule: True
        conda:
            "../../envs/ddgm.yaml"
        params:
            library=code_of(
                "figures/style", "figures/training", "training_settings", script="training_curve"
            ),
        script:
            "../scripts/training_curve.py"
