rule sinograms:
    """Simulate the noisy tilt series of a set of images (Eq. 3)."""
    input:
        patches=f"{RESULTS}/patches/{{set}}.npz",
        statistics=f"{RESULTS}/statistics.json",
    output:
        f"{RESULTS}/sinograms/{{set}}.npz",
    log:
        f"{RESULTS}/logs/sinograms/{{set}}.log",
    group:
        "prepare"
    conda:
        "../../envs/ddgm.yaml"
    threads: 4
    resources:
        mem_mb=more(4000),
        runtime=more(30),
        cpus_per_task=4,
    params:
        geometry=GEOMETRY.as_dict(),
        noise_std=config["measurement"]["noise_std"],
        seed=config["measurement"]["seed"],
        library=code_of("geometry", "noise", "projector", "sinograms", script="sinograms"),
    script:
        "../scripts/sinograms.py"
