# The only commands to remember. Each sets up .venv when it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test quick check format bench evidence trackers

demo: $(READY)  ## train GCT on strong views and both supervised baselines on the built-in data, write runs/demo/index.html
	$(BIN)/semipix demo --out runs/demo

test: $(READY)  ## the whole test suite, two workers of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

quick: $(READY)  ## every few minutes: the tests that run no command, no process and no training; a minute or so
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(READY)  ## cost of a step of GCT and of every method, and how it grows; an hour and a half on two cores
	$(BIN)/python -m benchmarks.speed.step --case unet --methods all --compile --json benchmarks/results/step.json
	$(BIN)/python -m benchmarks.speed.step --case unet --size 96 --methods all --no-memory --json benchmarks/results/step.json
	$(BIN)/python -m benchmarks.speed.step --case dhdn --methods all --json benchmarks/results/step.json
	$(BIN)/python -m benchmarks.speed.step --case deeplab_v2 --methods all --json benchmarks/results/step.json
	$(BIN)/python -m benchmarks.speed.scaling --json benchmarks/results/scaling.json
	$(BIN)/python -m benchmarks.tables

evidence: $(READY)  ## compare each table of the docs with its records; TRAIN="portrait gates" DATA="PORTRAIT=FOLDER" OUT=FOLDER measures again
	$(BIN)/python -m benchmarks.evidence $(if $(TRAIN),--train $(TRAIN)) $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

trackers: $(READY)  ## trainer.logger=wandb and mlflow with the real packages, offline, in .trackers; not a part of make test
	test -d .trackers || $(BIN)/python -m venv .trackers
	ls -d $(CURDIR)/.venv/lib/python*/site-packages > $$(ls -d .trackers/lib/python*/site-packages)/shared.pth
	.trackers/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[wandb,mlflow]'
	OMP_NUM_THREADS=1 .trackers/bin/python -m pytest -q tests/training/test_loggers_offline.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("semipix needs Python 3.11 or newer, found " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)
