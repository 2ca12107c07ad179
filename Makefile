# Every target sets itself up in .venv; all it takes is Python 3.11 or newer, and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint check docs bench tricks zoo measures modes detection rebuilding slow clean

demo: $(READY)  ## train the default GAN on real digits and leave a sheet of samples
	$(BIN)/poise train

test: $(READY)  ## every test, in minutes
	$(BIN)/python -m pytest -n 2

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check

check: lint test  ## what must be green before a commit lands

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY)  ## the documentation as a site in site/, with every broken link or docstring an error
	$(BIN)/mkdocs build --strict --quiet

bench: $(READY)  ## how fast it is, beside loops written by hand
	$(BIN)/python benchmarks/throughput.py

tricks: $(READY)  ## what each trick costs, and two direct comparisons on toys
	$(BIN)/python benchmarks/tricks.py
	$(BIN)/python benchmarks/direct.py packing
	$(BIN)/python benchmarks/direct.py noise

zoo: $(READY)  ## every picture recipe on the same number of digits: a table, a sheet each
	$(BIN)/python benchmarks/zoo.py zoo

measures: $(READY)  ## what each measure sees, and the Frechet distance beside two other ways
	$(BIN)/python benchmarks/measures.py order
	$(BIN)/python benchmarks/measures.py frechet

modes: $(READY)  ## modes found on the ring and the grid over ten seeds, beside the published rows: an hour of one core
	$(BIN)/python benchmarks/modes.py ring
	$(BIN)/python benchmarks/modes.py grid

detection: $(READY)  ## a hundred small trainings, healthy and failing, and what the monitor says of them: an hour of one core
	$(BIN)/python benchmarks/detection.py train detection
	$(BIN)/python benchmarks/detection.py table detection
	$(BIN)/python benchmarks/monitoring.py

rebuilding: $(READY)  ## an autoencoder beside PCA, and a VAE's bound on the complete MNIST in data/: half an hour of one core
	$(BIN)/python benchmarks/rebuilding.py pca
	$(BIN)/python benchmarks/rebuilding.py elbo --data-root data

slow: $(READY)  ## the rigs that take longer than a test may
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv site

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "poise needs Python 3.11 or newer; say which: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
