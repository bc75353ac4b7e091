# `make quickstart` and `make test` are all a new machine needs: python3 and make, nothing else.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
RUN := $(VENV)/bin/python

.PHONY: quickstart test test-slow check lowest docs clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

quickstart: $(VENV)/installed  ## train and score SegFormer on drawn pets
	rm -rf runs/quickstart
	$(RUN) scripts/run_seg.py --config configs/quickstart.yaml

test: $(VENV)/installed  ## the whole test suite but the slow tests
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile -m 'not slow'

test-slow: $(VENV)/installed  ## tests that train for minutes
	$(RUN) -m pytest -m slow

check: $(VENV)/installed  ## lint and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The lower bounds of pyproject.toml, tried for real.
$(LOWEST)/installed: pyproject.toml tests/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c tests/lowest.txt
	touch $@

lowest: $(LOWEST)/installed  ## the tests on the lowest supported versions
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile -m 'not slow'

docs: $(VENV)/installed  ## the site, into site/; a dead link is an error
	$(RUN) -m mkdocs build --strict

clean:
	rm -rf $(VENV) $(LOWEST) runs build site *.egg-info
