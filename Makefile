# make demo     from nothing to a served recommendation; stays up until Ctrl-C
# make demo ONCE=1 [EVENTS=FILE]     the same in a temporary home, then stops; the result is the last line
# make check    style, types, import contracts, the pages, and the quick tests that need neither a server nor Spark
# make test     the same, the slower ones, and the tests on real servers and on Spark
# make proofs   what takes hours more: the longest tests; ten months of a real shop; a simulated month in one run, day by
#               day and shuffled; ten kills of the streams; the faults that take minutes; the pages of two demos in a
#               browser; and all that is served, computed on a cluster
# make faults   servers, disks and processes that hang, fill up or are killed under load: a table of each with what a
#               person sees, the time until healthy, and what is lost or doubled; also as Markdown, in FAULTS_TABLE.
#               `make test` runs those of them that take seconds, `make proofs` the others
# make image    builds the container image and runs the Compose file's containers of ours from it, as root on Debian
# make requirements     what the image installs, with hashes, after a change of pyproject.toml or constraints.txt
# make lint     style, types and import contracts alone, and secrets in the commits
# make helm     Helm, for the tests of the chart; they are skipped where there is no Go to build it with
# make caddy    Caddy, for the tests of the login before Dagster's pages; they are skipped where there is no Go
# make prometheus     Prometheus and Alertmanager, for the tests of the alerts; skipped where there is no apt-get
# make browser     Chromium, for the tests of the pages; skipped where there is no apt-get, or not for root
# make object-storage     versitygw, for the proofs of a lake on S3; they are skipped where there is no Go to build it with
# All of them set up what is missing first: Java, OpenMP, a venv, the packages and the servers' jars.

PYTHON ?= python3
VENV ?= .venv
# One of them has a Spark, and each has servers of its own, which a fourth would cost more than it gains: 7 GB in all.
TEST_PROCESSES ?= 3
BIN := $(VENV)/bin
FAULTS_TABLE ?= $(VENV)/faults.md
# Images set it, and each of the hundreds of processes of our tests would compile our modules anew.
export PYTHONDONTWRITEBYTECODE :=
HELM := v3.22.0
CADDY := v2.11.8
GITLEAKS := v8.30.1
VERSITYGW := v1.8.0
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
WATCHED = $(PYTHON) clickstream_assets/engine/run_watched.py
DEMO_ARGS := $(if $(ONCE),--once) $(if $(EVENTS),--events "$(EVENTS)") $(ARGS)

# Measured, with two cores on a fast line: 880 MB of packages, and 4 min 20 s in all.
define SETTING_UP
Setting up, once; what is there already is not fetched again:
  Python packages into $(VENV): about 900 MB to fetch, 2.1 GB on disk
  Kafka, Elasticsearch and Spark's jars into ~/.cache/clickstream-assets: 180 MB to fetch
  Java and OpenMP, where they are missing: about 120 MB to fetch
Five minutes on two cores and a line of 100 Mbit/s, most of them for the packages.
endef
export SETTING_UP

.PHONY: setup demo lint style types secrets pages check test helm caddy prometheus browser object-storage proofs faults \
	requirements image clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml hatch_build.py constraints.txt clickstream_assets/engine/ivy.xml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one with make PYTHON=…" >&2; exit 1; }
	@echo "$$SETTING_UP" >&2
	@sh clickstream_assets/engine/install_openmp.sh $(PYTHON) >&2
	@sh clickstream_assets/engine/install_java.sh >&2
	@sh clickstream_assets/engine/make_venv.sh $(PYTHON) $(VENV)
	@# Python's own pip may be one that shows nothing while it unpacks, which takes a minute.
	@$(PIP_INSTALL) --quiet pip >&2
	@if [ -t 2 ]; then $(PIP_INSTALL) --editable '.[dev]' >&2; \
		else $(WATCHED) --folder $(VENV) Packages $(PIP_INSTALL) --progress-bar off --editable '.[dev]' >&2; fi
	@$(BIN)/clickstream fetch-jars >&2
	@echo "Set up." >&2
	@touch $@

demo: setup
	@$(BIN)/clickstream demo $(DEMO_ARGS)

lint: style types secrets

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Not after `setup`, so that it runs where there is nothing else.
secrets: $(VENV)/.gitleaks-$(GITLEAKS)
	@if [ -x $(BIN)/gitleaks ]; then $(BIN)/gitleaks git --no-banner --redact --log-level warn .; fi

$(VENV)/.gitleaks-$(GITLEAKS):
	@if ! command -v go >/dev/null; then \
		echo "Go is not there, so gitleaks is not built, and nobody looks for secrets in the commits" >&2; \
	else \
		echo "Building gitleaks $(GITLEAKS), once: some 2 minutes on two cores" >&2; \
		mkdir -p $(BIN); \
		if GOBIN="$(abspath $(BIN))" $(WATCHED) gitleaks go install github.com/zricethezav/gitleaks/v8@$(GITLEAKS) >&2; then touch $@; else \
			echo "GITLEAKS WAS NOT BUILT (Go says why, above): nobody looks for secrets in the commits" >&2; fi; \
	fi

pages: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Runs tests, and makes other targets meanwhile, for which the tests leave a minute of a core free. What is wrong with these
# is shown below what the tests say, and fails the target as they do.
define TESTS_BESIDE
@$(MAKE) --no-print-directory --keep-going $(1) >$(VENV)/beside.log 2>&1 & beside=$$!; \
	echo '$(2)'; $(2); failed=$$?; \
	if wait $$beside; then echo "Beside the tests: $(1), nothing wrong"; else failed=1; cat $(VENV)/beside.log >&2; fi; \
	exit $$failed
endef

check: style
	$(call TESTS_BESIDE,types pages,$(BIN)/pytest --numprocesses logical --dist worksteal -m "not server and not spark and not slow and not long")

helm: $(VENV)/.helm-$(HELM)

$(VENV)/.helm-$(HELM): | $(VENV)/.ready
	@if ! command -v go >/dev/null; then \
		echo "Go is not there, so Helm is not built, and the tests of the chart are skipped" >&2; \
	else \
		echo "Building Helm $(HELM), once: Go fetches about 150 MB, then compiles for some 3 minutes on two cores" >&2; \
		if GOBIN="$(abspath $(BIN))" $(WATCHED) Helm go install helm.sh/helm/v3/cmd/helm@$(HELM) >&2; then touch $@; else \
			echo "HELM WAS NOT BUILT (Go says why, above): the tests of the chart are skipped" >&2; fi; \
	fi

caddy: $(VENV)/.caddy-$(CADDY)

$(VENV)/.caddy-$(CADDY): | $(VENV)/.ready
	@if ! command -v go >/dev/null; then \
		echo "Go is not there, so Caddy is not built, and the tests of Dagster's login are skipped" >&2; \
	else \
		echo "Building Caddy $(CADDY), once: Go fetches about 100 MB, then compiles for some 3 minutes on two cores" >&2; \
		if GOBIN="$(abspath $(BIN))" $(WATCHED) Caddy go install github.com/caddyserver/caddy/v2/cmd/caddy@$(CADDY) >&2; then touch $@; else \
			echo "CADDY WAS NOT BUILT (Go says why, above): the tests of Dagster's login are skipped" >&2; fi; \
	fi

prometheus: setup
	@sh clickstream_assets_tests/deploy/fetch_prometheus.sh "$(abspath $(BIN))"

browser: setup
	@sh clickstream_assets_tests/api/install_browser.sh

test: style helm caddy prometheus browser
	$(call TESTS_BESIDE,types secrets,$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadgroup)

object-storage: $(VENV)/.versitygw-$(VERSITYGW)

$(VENV)/.versitygw-$(VERSITYGW): | $(VENV)/.ready
	@if ! command -v go >/dev/null; then \
		echo "Go is not there, so versitygw is not built, and a lake on S3 is not tried" >&2; \
	else \
		echo "Building versitygw $(VERSITYGW), once: a server of S3's interface, some 3 minutes on two cores" >&2; \
		if GOBIN="$(abspath $(BIN))" $(WATCHED) versitygw go install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW) >&2; then touch $@; else \
			echo "VERSITYGW WAS NOT BUILT (Go says why, above): a lake on S3 is not tried" >&2; fi; \
	fi

proofs: setup prometheus browser object-storage
	$(BIN)/pytest -m long

faults: setup object-storage
	$(BIN)/pytest -m fault --faults-table $(FAULTS_TABLE)

requirements: setup
	@sh deploy/image/lock.sh $(BIN)/uv

image: setup
	@sh clickstream_assets_tests/deploy/install_podman.sh
	@$(BIN)/python -m clickstream_assets_tests.deploy.image

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
