rule paper:
    """Table 1 and the paper's figures, as far as the configuration has what they show."""
    default_target: True
    input:
        RESULTS_OF_PAPER,
        PAGES,
