# make demo   demonstrations of a composed problem and a video; an agent, trained, measured and filmed; from a clean clone
# make test   everything that a change must pass
# make clean  removes what the two have made

PYTHON ?= $(shell for name in python3.11 python3; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
CONSTRAINTS := requirements/constraints.txt
# Built packages stay inside the clone.
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip
# What is built from source sees the pinned packages of $(VENV): pybullet only supports numpy if it finds it then.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test clean

demo: $(VENV)/installed
	$(BIN)/python -m multiravens.demos problem=chaining-placing split=train episodes=4 workers=2 data=$(DEMO)/data
	$(BIN)/python -m multiravens.render problem=chaining-placing seed=7 out=$(DEMO)/chaining-placing.mp4
	$(BIN)/python -m multiravens data inspect $(DEMO)/data/chaining-placing/train --out $(DEMO)/contact_sheet.png
	$(BIN)/python -m multiravens.demos problem=placing split=train episodes=100 workers=2 data=$(DEMO)/data
	$(BIN)/python -m multiravens.train agent=sctn problems=[placing] demos=100 steps=1000 run=$(DEMO)/agent data=$(DEMO)/data
	$(BIN)/python -m multiravens.evaluate run=$(DEMO)/agent episodes=20 workers=2
	$(BIN)/python -m multiravens.render run=$(DEMO)/agent problem=placing seed=100000 out=$(DEMO)/agent.mp4
	@echo
	@echo "demonstrations  $(DEMO)/data/chaining-placing/train"
	@echo "video           $(DEMO)/chaining-placing.mp4"
	@echo "contact sheet   $(DEMO)/contact_sheet.png"
	@echo "agent           $(DEMO)/agent, measured in $(DEMO)/agent/evaluation/placing.json"
	@echo "agent's video   $(DEMO)/agent.mp4"

test: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q

clean:
	rm -rf $(VENV) $(DEMO) .cache build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/tools: $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer with venv is needed: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) numpy setuptools hatchling editables
	@touch $@

$(VENV)/installed: $(VENV)/tools pyproject.toml
	$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(PIP_INSTALL) --no-build-isolation --editable '.[dev]'
	@touch $@
