# Two commands on a fresh machine: make demo, make test. Everything goes into .venv, at the versions of requirements.lock.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
CONFIG ?= nuclei2d

.PHONY: demo test test-slow test-gpu fuzz test-pyqt oracles lint docs train clean

demo: $(READY)
	$(BIN)/medseg demo

test: $(READY)
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# 20,000 damaged files of every kind; FIRST=20000 takes the next ones, and what is found is kept in runs/fuzz
FIRST ?= 0
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m medseg.testing.fuzz 20000 --first $(FIRST) --keep runs/fuzz

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu

# the viewer's tests with the other Qt binding, which stays out of the environment
test-pyqt: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --target .pyqt6 PyQt6
	QT_API=pyqt6 PYTEST_QT_API=pyqt6 PYTHONPATH=.pyqt6 $(BIN)/python -m pytest tests/napari

# other people's programs as judges of what we write and of our scores, in environments of their own
oracles: $(READY)
	$(PYTHON) -m venv .oracles
	.oracles/bin/python -m pip install --quiet --disable-pip-version-check -r tests/peers/requirements.txt
	MEDSEG_DCMQI=$(CURDIR)/.oracles/bin/segimage2itkimage $(BIN)/python -m pytest tests/io/test_dicomseg.py tests/io/test_sr.py
	$(PYTHON) -m venv .oracles-scorers
	.oracles-scorers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/peers/requirements-scorers.txt
	.oracles-scorers/bin/python tests/peers/scorers/freeze.py --check tests/metrics/fixtures
	MEDSEG_PEERS=$(CURDIR)/.oracles-scorers/bin/python $(BIN)/python -m pytest tests/metrics/test_metrics_oracles.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python docs/make_models_page.py
	$(BIN)/python docs/make_numbers_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# make train CONFIG=nuclei3d: goes on from its last checkpoint when run again
train: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/medseg train $(CONFIG)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("medseg needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) .pyqt6 .oracles .oracles-scorers .oracles-stardist build dist site medseg-demo
