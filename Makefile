# The verbs of this repository. Each runs a standard tool in .venv; what is already done is not done again.
#   make PYTHON=python3.12 install    another Python (3.11 or newer)
#   make ARGS="-k starter" test       arguments for the tool

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
BLAS := $(BIN)/python -m manent.adapters.inference.openblas
APT := DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=60 -o Acquire::http::Timeout=30
APT_OPENBLAS := $(APT) install --no-install-recommends libopenblas0-pthread
COMPILE := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url
LOCK := $(COMPILE) --group build
PACKAGES := adapters app domain migrations

NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --silent

# $(call once,FILE,COMMAND): run COMMAND unless FILE still says what it said when COMMAND last succeeded.
once = cmp -s $(1) $(VENV)/$(notdir $(1)) || { $(2) && cp $(1) $(VENV)/$(notdir $(1)); }

# $(call separate,NAME): make the environment .venv/NAME of what requirements/NAME.txt pins.
separate = $(call once,requirements/$(1).txt,echo "Installing the clients of requirements/$(1).txt in $(VENV)/$(1)" && $(BIN)/python -m venv --clear --without-pip $(VENV)/$(1) && { $(BIN)/uv pip install -q --no-config --python $(VENV)/$(1) --no-deps --require-hashes -r requirements/$(1).txt || $(PIP) --python $(VENV)/$(1) install --no-deps --require-hashes -r requirements/$(1).txt; })

# What was compiled once is not compiled again by each of a hundred processes, wherever an image of a container says so.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install vision serve test test-long test-clients check format bench fuzz soak docs clean lock environment development clients openblas
.NOTPARALLEL:

help: ## say what there is
	@awk -F ":.*## " "/^[a-z-]+:.*## / { printf \"  make %-12s %s\\n\", \$$1, \$$2 }" Makefile

install: environment openblas ## make .venv with the pinned requirements, and fetch the starter model
	@$(BIN)/manent models install

vision: install ## add what models that read images need
	@$(call once,requirements/vision.txt,echo "Installing what images need in $(VENV)" && $(PIP) install --no-deps --require-hashes -r requirements/vision.txt)

serve: install ## install what is missing, and serve on MANENT_HOST:MANENT_PORT
	@exec $(BIN)/manent serve $(ARGS)

test: install development clients ## run the tests but the long ones, two files at a time
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long" $(ARGS) || { [ $$? = 1 ] && echo "Again, one at a time: what failed" && $(BIN)/python -m pytest --last-failed --maxfail 3 -m "not long" $(ARGS); }

test-long: install development ## run the long tests, one at a time
	@$(BIN)/python -m pytest -m long $(ARGS)

test-clients: install development clients ## run all tests of real clients, of which `make test` runs the main ones
	@TEST_CLIENTS=all $(BIN)/python -m pytest -rP tests/clients $(ARGS)

check: development ## formatting, lint, types, and who may import whom
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(PACKAGES:%=-p manent.%)
	@$(BIN)/mypy tests
	@PYTHONPATH=.typing $(BIN)/lint-imports

format: development ## format, and mend what lint can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: install development ## measure, and print ratios
	@$(BIN)/python -m tests.benchmarks $(ARGS)

fuzz: install development ## send what the API's description allows, and what it does not (ARGS="--max-examples 500")
	@$(BIN)/python -m tests.support.fuzzing $(ARGS)

soak: install development ## load and hurt a real server for ten minutes, and report what was lost
	@$(BIN)/python -m tests.soak $(ARGS)

docs: install development ## check that the documents say what the code does
	@$(BIN)/python -m pytest -k docs $(ARGS)

clean: ## remove what make and the tools made here (never MANENT_HOME)
	@rm -rf $(VENV) .typing .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

lock: development ## compile requirements/ anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(LOCK) $(ARGS) pyproject.toml -o requirements/runtime.txt
	@$(LOCK) $(ARGS) pyproject.toml --extra vision -c requirements/runtime.txt -o requirements/vision.txt
	@$(LOCK) $(ARGS) pyproject.toml --extra tracing -c requirements/runtime.txt -o requirements/tracing.txt
	@$(LOCK) $(ARGS) pyproject.toml --extra dev -c requirements/runtime.txt -o requirements/dev.txt
	@$(COMPILE) $(ARGS) --no-config --python-version 3.11 requirements/clients.in -o requirements/clients.txt
	@$(COMPILE) $(ARGS) --no-config --python-version 3.11 requirements/llamaindex.in -o requirements/llamaindex.txt

$(VENV)/created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit("Manent needs Python 3.11 or newer, and $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12" % v[:2] if v < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

environment: $(VENV)/created
	@$(call once,requirements/runtime.txt,echo "Installing the pinned requirements in $(VENV)" && $(PIP) install --require-hashes -r requirements/runtime.txt)
	@$(call once,pyproject.toml,$(PIP) install --no-deps --no-build-isolation -e .)
	@mkdir -p .typing/manent && for package in $(PACKAGES); do [ .typing/manent/$$package -ef $$package ] || ln -sfn ../../$$package .typing/manent/$$package; done

# The requirements are complete, less what pyproject.toml leaves out on purpose: pip is not to look for it.
development: environment
	@$(call once,requirements/dev.txt,echo "Installing the development requirements in $(VENV)" && $(PIP) install --no-deps --require-hashes -r requirements/dev.txt)

# Clients in environments of their own; Node comes with those of Python, its packages are looked for beside the link to the tests.
clients: development
	@$(call separate,clients)
	@$(call separate,llamaindex)
	@$(call once,tests/clients/node/package-lock.json,echo "Installing the clients of Node in $(VENV)/node" && mkdir -p $(VENV)/node && cp tests/clients/node/package.json tests/clients/node/package-lock.json tests/clients/node/.npmrc $(VENV)/node && ln -sfn ../../tests/clients/node $(VENV)/node/tests && (cd $(VENV)/node && PATH="$(CURDIR)/$(VENV)/clients/bin:$$PATH" $(NPM_CI)))

# The wheel of mlx for Linux brings a BLAS that is twenty times slower (docs/decisions).
openblas: environment
	@$(BLAS) >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "Installing OpenBLAS" && { $(APT_OPENBLAS) || { $(APT) update && $(APT_OPENBLAS); }; } </dev/null >/dev/null 2>&1; } || echo "Without OpenBLAS answers are slow here. $$($(BLAS))"
