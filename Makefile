# Genesys lifecycle: one word a task. Needs Linux, Python 3.11 to 3.13, and make; everything else comes as packages.
#
#   PYTHON=/path/to/python3   another interpreter        UV=/path/to/uv   another uv
#   TEST_ARGS="-k saga"       passed on to pytest        LIFECYCLE_REQUIRE_ALL=1   a missing optional tool fails the tests
#   BENCH_ARGS="--rounds 3"   passed on to the benchmarks   BOARDS_ARGS="--no-pictures" to `make boards`   ALERTS_ARGS="--only Kafka"
#   DRILL=FOLDER              what `make drill` shows, a folder a fault

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST_ARGS ?=
BENCH_ARGS ?=
DRILL ?= drill
# Three on two cores: a test of a distributed system mostly waits (239 s instead of 336).
WORKERS ?= 3
# A file runs in one worker, so that what it starts is started once; files in order, the long ones come first
# (tests/conftest.py).
# (loadgroup does nothing here: pytest-xdist 3.8 names groups by an attribute that pytest 9.2 no longer has.)
BY_FILE := --dist loadfile --no-loadscope-reorder
export UV_PYTHON_DOWNLOADS := never
# Whom the machine trusts, uv trusts: also where it reads no pyproject.toml (uv tool run).
export UV_SYSTEM_CERTS := true

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-long check fmt schemas plan-page logs-page metrics-page alerts boards-json boards alerts-fire drill demo-picture kafka-jars quick faults wheel bench bench-latency bench-tables bench-sagas bench-reconcile clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name text; \
		do printf '  make %-13s %s\n' "$$name" "$$text"; done

setup: $(READY) ## make the environment in .venv (every other target does it when needed)

# The machine's own Python, and a uv that works: one on the machine, or one of our own.
define set_up
set -eu
python=$${PYTHON:-}
for name in $$python python3 python3.13 python3.12 python3.11; do
  if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then python=$$name; break; fi
  python=
done
if [ -z "$$python" ]; then
  echo "Python 3.11, 3.12 or 3.13 is needed; python3 here is: $$(python3 --version 2>&1 || echo absent). Name one with PYTHON=..." >&2
  exit 2
fi
python=$$("$$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
for uv in $${UV:-} uv $(BIN)/uv; do if "$$uv" --version >/dev/null 2>&1; then break; fi; uv=; done
if [ -z "$$uv" ]; then
  echo "no uv on this machine: it goes into $(VENV)"
  "$$python" -m venv --clear $(VENV) || { echo "python3 -m venv failed (Debian: apt install python3-venv); or name a uv with UV=..." >&2; exit 2; }
  $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13.9'
  uv=$(BIN)/uv
fi
"$$uv" sync --quiet --locked --python "$$python"
touch $(READY)
endef
export set_up

$(READY): pyproject.toml uv.lock
	@echo "setting up $(VENV) ..."
	@sh -c "$$set_up"

demo: $(READY) ## start everything, play the guide's stories on the real engines, check each
	@$(BIN)/lifecycle demo

up: $(READY) ## start everything and keep it running; Ctrl-C stops it
	@$(BIN)/lifecycle up

test: $(READY) ## the whole suite on the real engines, but for what takes long
	@$(BIN)/python -m pytest -p tests.skips -n $(WORKERS) $(BY_FILE) -m "not long" $(TEST_ARGS)

test-long: $(READY) ## the rest of it: the compiled ingress, every command in trouble, fuzzing, more kills, seeds and restores
	@$(BIN)/python -m pytest -p tests.skips -n $(WORKERS) $(BY_FILE) -m long $(TEST_ARGS)

check: $(READY) ## format, lint, types, import, house and metric rules, drift of what is generated, lock; changes nothing
	@set -e; run() { echo "+ $$*"; "$(BIN)/$$@"; }; trap wait EXIT; \
	run mypy & types=$$!; \
	run ruff format --check --quiet . ; \
	run ruff check --quiet . ; \
	run lint-imports --no-cache --no-logo ; \
	run python -m tests.house_rules ; \
	run python -m tests.prose_rules ; \
	run python -m schemas.export --check ; \
	run python -m services.provisioner.plan_page --check ; \
	run python -m deploy.boards.grafana --check ; \
	run python -m tests.metric_rules ; \
	run python -m services.adapters.process.metrics_page --check ; \
	run python -m tests.support.alert_files --check ; \
	run python -m tests.log_lines --check ; \
	run uv lock --check --quiet ; \
	wait $$types  # the longest part, beside the others

fmt: $(READY) ## format, and fix what can be fixed
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

schemas: $(READY) ## write schemas/json from the models
	@$(BIN)/python -m schemas.export

plan-page: $(READY) ## write docs/plan.md from the tables of a plan's keys
	@$(BIN)/python -m services.provisioner.plan_page

boards-json: $(READY) ## write deploy/grafana/boards from the tables in deploy/boards
	@$(BIN)/python -m deploy.boards.grafana

boards: $(READY) ## run a day with faults, ask a real Prometheus for every panel, draw docs/boards (needs prometheus)
	@$(BIN)/python -m deploy.boards $(BOARDS_ARGS)

alerts-fire: $(READY) ## fire every alert by its fault, at an hour a minute, into docs/observability.md (needs prometheus, alertmanager)
	@$(BIN)/python -m deploy.boards --alerts $(ALERTS_ARGS)

drill: $(READY) ## make ten faults for somebody on call who does not know which, into DRILL=FOLDER (needs root, prometheus, alertmanager)
	@$(BIN)/python -m deploy.boards --drill $(DRILL) $(DRILL_ARGS)

metrics-page: $(READY) ## write docs/metrics.md from the tables of metrics
	@$(BIN)/python -m services.adapters.process.metrics_page

alerts: $(READY) ## write the PrometheusRule, Alertmanager's file of the composition and the tables of alerts
	@$(BIN)/python -m tests.support.alert_files

logs-page: $(READY) ## write docs/logs.md from the log calls and their meanings
	@$(BIN)/python -m tests.log_lines

demo-picture: $(READY) ## run a part of the demo and draw docs/demo.svg
	@$(BIN)/python -m tests.support.demo_picture

kafka-jars: $(READY) ## write the list of Kafka's jars by Maven, for KAFKA=4.3.1
	@$(BIN)/python -m services.engines.pin_jars $(KAFKA)

quick: check ## the loop of a contributor: check, quick unit and property tests, in a minute
	@LIFECYCLE_QUICK=1 $(BIN)/python -m pytest -q -n 2 $(BY_FILE) -m "not slow and not long and not engines" tests/unit tests/property $(TEST_ARGS)

faults: test-long ## the long form of the fault tests, five hours: kills of every service, chaos of the ledger, sagas, days of lives, fuzzing
	@$(BIN)/python -m tests.faults.journey --seeds 10 --orgs 500
	@$(BIN)/python -m tests.faults.ingress_kills --cycles 200
	@$(BIN)/python -m tests.faults.chaos --subject ledger --n 16000 --seed 614 620 $$(seq -s' ' 201 220)
	@$(BIN)/python -m tests.faults.chaos --subject ledger --n 16000 --workers 3 --brokers 3 --broker-kills 1 --seed $$(seq -s' ' 301 305)
	@$(BIN)/python -m tests.faults.sagas
	@$(BIN)/python -m tests.faults.outages
	@$(BIN)/python -m tests.faults.lives --seeds 1-50
	@$(BIN)/python -m tests.faults.sources
	@$(BIN)/python -m tests.faults.silences
	@$(BIN)/python -m tests.faults.vanishing
	@$(BIN)/python -m tests.faults.adoption --tenants 2000
	@$(BIN)/pytest -q tests/faults/test_rivals.py
	@$(BIN)/python -m deploy.boards --alerts
	@$(BIN)/python -m tests.faults.commands
	@LIFECYCLE_ALL_MARKS=1 $(BIN)/pytest -q -k killed tests/integration/test_provisioner_generic.py
	@LIFECYCLE_ALL_MARKS=1 $(BIN)/pytest -q tests/integration/test_acls.py
	@LIFECYCLE_WHOLE=1 $(BIN)/pytest -q tests/property
	@$(BIN)/python -m tests.faults.histories --count 100000
	@$(BIN)/python -m tests.faults.fuzz --seconds 600
	@$(BIN)/python -m tests.faults.fuzz_timing

wheel: $(READY) ## the package with the ingress compiled, into dist (needs a C compiler and Python's headers)
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/uv build --no-build-isolation --python $(BIN)/python --out-dir dist

bench: $(READY) ## throughput beside bare servers and the guide's design, into docs/performance.md (needs wrk)
	@$(BIN)/python -m tests.bench.throughput $(BENCH_ARGS)

bench-latency: $(READY) ## how long senders wait, in storms and while Kafka stands still, into docs/performance.md
	@$(BIN)/python -m tests.bench.latency $(BENCH_ARGS)

bench-tables: $(READY) ## the ledger's durable tables beside Faust as it comes, into docs/performance.md
	@$(BIN)/python -m tests.bench.tables $(BENCH_ARGS)

bench-sagas: $(READY) ## sagas a second by one worker and two, and what they ask of the registry, into docs/performance.md
	@$(BIN)/python -m tests.bench.sagas $(BENCH_ARGS)

bench-reconcile: $(READY) ## whole runs over 1,000 organisations: requests, seconds, memory, budgets, into docs/performance.md
	@$(BIN)/python -m tests.bench.reconcile $(BENCH_ARGS)

clean: ## remove caches and what `make up` left; the environment stays
	@rm -rf .lifecycle .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
