rule paper:
    """Table 1 and the paper's figures, as far as the configuration has what they show."""
    default_target: True
    input:
        rules.table_1.output,
        expand(f"{RESULTS}/figures/figure_{{number}}.pdf", number=FIGURES),
        rules.sweeps.input,
        rules.uncertainty.input,
        rules.training_curve.output if GIVEN_NETWORK is None else [],
        rules.volume.input if HAS_SLAB else [],
        PAGES,
