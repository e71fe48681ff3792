# Every target works on a bare checkout: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The tested versions. The newest of everything: make test CONSTRAINTS=
CONSTRAINTS ?= --constraint constraints.txt
# One test process per core, four at most: each takes 1.5 GB. None: make test WORKERS=
WORKERS ?= -n auto --maxprocesses 4 --dist worksteal

.PHONY: demo test test-all lint docs dist clean
PIP = $(BIN)/python -m pip install --disable-pip-version-check $(CONSTRAINTS) --editable

# What users install.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing scfusionttt and PyTorch into $(VENV); this takes minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) .
	touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) '.[test,lint]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/scfusionttt demo --out demo

# Once for all workers, which would each compile it; Numba keeps the result beside the sources.
$(VENV)/.compiled: $(VENV)/.tools $(wildcard src/scfusionttt/loops/*.py src/scfusionttt/ttt/cpu/*.py src/scfusionttt/nn/fused*.py)
	$(BIN)/python -c "from scfusionttt.ttt import parity, ttt_linear; parity.difference(ttt_linear, 'cpu', cells=2, tokens=37, head=16)"
	$(BIN)/python -c "import torch; from scfusionttt.nn import fused; x = torch.ones(2, 8, requires_grad=True); \
		fused.add_dropped(fused.RMSNorm(8)(x), x, 0.5).sum().backward()"
	$(BIN)/python -c "from scfusionttt import differential, simulate; differential(simulate(60, 40, 4, 2), 'cell_type')"
	touch $@

test: $(VENV)/.compiled
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

test-all: $(VENV)/.compiled
	$(BIN)/python -m pytest $(WORKERS)

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going docs docs/_build/html

# Links of the README are absolute with REPOSITORY_URL=https://host/owner/name
dist: $(VENV)/.tools
	$(BIN)/python -m pip install --disable-pip-version-check build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) demo dist docs/_build .pytest_cache .ruff_cache .mypy_cache
