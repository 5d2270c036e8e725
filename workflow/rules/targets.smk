rule all:
    """Everything this workflow makes so far."""
    default_target: True
    input:
        rules.sweeps.input,
        rules.table_1.output,
        rules.comparison.output,
        rules.prior.output,
        rules.training_curve.output if GIVEN_NETWORK is None else [],
        rules.volume.input if HAS_SLAB else [],
        PAGES,
