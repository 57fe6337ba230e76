# make demo     from nothing to a served recommendation; stays up until Ctrl-C
# make demo ONCE=1 [EVENTS=FILE]     the same in a temporary home, then stops; the result is the last line
# make test     everything that is checked, on real servers
# make lint     style, types and import contracts alone
# All of them set up what is missing first: Java, a venv, the packages and the servers' jars.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS := $(if $(ONCE),--once) $(if $(EVENTS),--events "$(EVENTS)") $(ARGS)

.PHONY: setup demo test lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt clickstream_assets/local/ivy.xml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one with make PYTHON=…" >&2; exit 1; }
	@sh clickstream_assets/local/install_java.sh >&2
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
		{ echo "python3 -m venv failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing packages into $(VENV)" >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' >&2
	@$(BIN)/clickstream fetch-jars >&2
	@touch $@

demo: setup
	@$(BIN)/clickstream demo $(DEMO_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/pytest

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
