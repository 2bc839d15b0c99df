# Everything a developer runs. Needs Python 3.11 or newer with PyPI in reach, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test check bench clean install
.DEFAULT_GOAL := test

# The stamp is newer than pyproject.toml when what it lists is installed; a half-made environment has no stamp.
$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/mirror demo $(ARGS)

# A later -m in ARGS wins over this one: make test ARGS='-m sql'
test: $(INSTALLED)
	$(BIN)/pytest --cov -m 'not compose' $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mirror tests $(wildcard bench)
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf .venv build dist reports .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
