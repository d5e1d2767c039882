# Two commands for a newcomer on a bare Debian 13 machine: `make demo` and `make test`.
.PHONY: help setup demo test test-all test-changed check lint types style bench soak faults mutations lock clean
.DEFAULT_GOAL := help

PYTEST := .venv/bin/pytest
# Tests that read the code and run none of it: they run beside the types, which take one core alone.
HOUSE := tests/unit/test_house.py
# Else each process that runs tests compiles all of them anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo   build and test a real project in a fresh VM (a first run makes the VM image)'
	@echo 'make test   each promise, real VMs included'
	@echo 'make test-all  all that a pull request must pass: what make test runs, and the same more widely'
	@echo 'make test-changed  tests near to what changed since main'
	@echo 'make check  lint, types, import rules and unit tests: the fast part'
	@echo 'make soak   20 builds in a row, 3 at once, 50 killed at random, an image killed half way,'
	@echo '            all that takes minutes to prove little per change, and every planted bug'
	@echo 'make faults  20,000 fault-injected builds in worlds drawn by a seed (FAULTS=all: 100,000,'
	@echo '            and every pair of faults at every crash point, over HTTP too)'
	@echo 'make mutations  planted bugs, each of which a test must notice (make test: six of them)'
	@echo 'make bench  the measured promises, each beside its reference'
	@echo 'make setup  install what the above need; make clean removes what they made here'
	@echo 'make lock   renew requirements.lock from pyproject.toml'

setup:
	@scripts/setup

demo: setup
	@examples/demo/run

test: lint
	@scripts/test-parts image plain vms

# Not `test` and then the rest: each worker would import and collect all tests twice.
test-all: lint
	@scripts/test-parts image all all-vms

test-changed: setup
	scripts/test-changed

check: lint
	$(PYTEST) -q -n 2 tests/unit --ignore $(HOUSE)

lint: setup
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target types style

types:
	.venv/bin/mypy --strict -p vmrunner -p vmrunner_localclouds -p deploy

style:
	.venv/bin/ruff check --no-cache .
	.venv/bin/ruff format --no-cache --check .
	.venv/bin/lint-imports
	scripts/short-files
	scripts/tree --check
	.venv/bin/python scripts/tables --check
	.venv/bin/python scripts/statements --check
	$(PYTEST) -q -n 0 -m 'not wide' $(HOUSE)

soak: setup
	.venv/bin/vmrunner image build
	$(PYTEST) -n 3 --dist load -m vm tests/vm/test_soak.py tests/vm/test_survival.py -rA \
	  --soak-builds 20 --soak-parallel 3 --soak-kills 50 --soak-seed $$(date +%s) --survive-turns 10 \
	  --survive-cut 60 --timeout 14400
	$(PYTEST) -m long -n 2 --dist loadfile --ignore tests/vm/test_soak.py --ignore tests/vm/test_survival.py
	.venv/bin/python bench/mutations.py

# Twenty minutes on one core; FAULTS=all takes many hours: five times as many builds, and every pair of
# faults at every crash point, over HTTP too. `make test` plays a sample of these.
faults: setup
	.venv/bin/python bench/faults.py --builds $(if $(filter all,$(FAULTS)),100000,20000) --seed 1
	$(if $(filter all,$(FAULTS)),VMRUNNER_FAULTS=all $(PYTEST) -q -n 2 --timeout 7200 tests/faults/test_points.py tests/faults/test_http.py)

mutations: setup
	.venv/bin/python bench/mutations.py

bench: setup
	.venv/bin/vmrunner image build
	.venv/bin/python bench/startup.py
	.venv/bin/python bench/engine.py
	.venv/bin/python bench/cold_start.py
	.venv/bin/python bench/sweep.py
	.venv/bin/python bench/ec2.py
	.venv/bin/python bench/gce.py
	.venv/bin/python bench/azure_vms.py
	.venv/bin/python bench/logs.py
	.venv/bin/python bench/ssh.py
	.venv/bin/python bench/boot.py
	.venv/bin/vmrunner image build gvisor
	.venv/bin/python bench/runtimes.py

lock: setup
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --all-extras --group dev \
	  --no-emit-package vmrunner --no-emit-package vmrunner-localclouds \
	  --generate-hashes --no-header --no-annotate -o requirements.lock pyproject.toml localclouds/pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.13 --python-platform linux \
	  --extra aws --extra azure --extra gcp --extra kubernetes --extra notify --extra otel --extra postgres --extra server --constraints requirements.lock \
	  --generate-hashes --no-header --no-annotate -o deploy/container/requirements.txt pyproject.toml
	.venv/bin/uv pip compile -q --python-version 3.13 --python-platform linux \
	  --generate-hashes --no-header --no-annotate \
	  -o deploy/gcp/guard/requirements.txt deploy/gcp/guard/requirements.in

clean:
	rm -rf .venv dist demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
