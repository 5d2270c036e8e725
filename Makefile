# make install  set up: an environment in .venv
# make demo   set up and run the whole chain on a synthetic volume (minutes)
# make test   set up and run every test that needs no cluster, GPU or network
# make bench  set up and time the library on an idle machine: docs/benchmark.md (10 minutes)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# A job is mostly imports, three times as long where no bytecode is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-slow test-slurm test-slurm-short test-gpu bench bench-volumes plan docs check check-types check-code format recover clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ddgm needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (choose another with make PYTHON=...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[workflow,cluster,dev]"
	@touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/snakemake --cores all --rerun-incomplete \
		--report results/demo/report.html --report-after-run --configfile config/demo.yaml
	@echo; cat results/demo/tables/table_1.md
	@echo; echo "table:  results/demo/tables/table_1.md (.csv, .tex)"
	@echo "figure: results/demo/figures/figure_4.png (.pdf)"
	@echo "all of it, for a browser: results/demo/report.html"
	@echo "images under a slider:    results/demo/viewer.html"

# Several at a time, each on one core: most of them wait for something else than the processor.
# Those that take longest come first.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not gpu and not cluster" \
		--numprocesses auto --maxprocesses 4 --dist loadgroup tests/workflow tests/workers tests/browser tests/unit

test-slow: $(STAMP)
	$(BIN)/pytest -m "slow and not gpu and not cluster"

# Starts a SLURM of its own and stops it; needs root and its programs (Debian: slurm-wlm, munge; with
# slurmdbd and mariadb-server also one that keeps account of jobs).
# An hour and a half; the short form takes minutes, and is part of CI.
test-slurm: $(STAMP)
	$(BIN)/pytest -m cluster

test-slurm-short: $(STAMP)
	$(BIN)/pytest -m "cluster and not slow"

test-gpu: $(STAMP)
	$(BIN)/pytest -m gpu

# Each candidate against another in the same run, since times alone say little on a shared machine.
bench: $(STAMP)
	$(BIN)/pytest benchmarks -o python_files="bench_*.py" --verbose --capture=no --durations=0 --timeout=1800 \
		--benchmark-json=docs/benchmark.json --benchmark-columns=min,median,rounds
	$(BIN)/python benchmarks/report.py docs/benchmark.json docs/benchmark.md

# What dividing a slab costs and changes; goes on where it was interrupted (40 minutes).
bench-volumes: $(STAMP)
	$(BIN)/python benchmarks/volumes.py results/benchmark_volumes

# What the paper asks a cluster for: docs/cluster_plan.md.
plan: $(STAMP)
	$(BIN)/python benchmarks/plan.py docs/cluster_plan.md

# The site of README, guides and library: docs/_build/html/docs/index.html. Needs no network.
docs: $(STAMP)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . docs/_build/html

# After Snakemake itself was killed: cancels its jobs of SLURM, if any, and takes its lock away.
recover:
	$(BIN)/python -m ddgm.slurm_jobs
	$(BIN)/snakemake --unlock

# What CI checks before the tests.
check: check-types check-code

check-types: $(STAMP)
	$(BIN)/mypy

check-code: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/ruff check .
	$(BIN)/snakemake --lint

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow

# Removes the environment and all results.
clean:
	rm -rf .venv .snakemake results
