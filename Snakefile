# `snakemake` in the root of a checkout runs the workflow in workflow/.
include: "workflow/Snakefile"


workflow.default_target = "paper"
