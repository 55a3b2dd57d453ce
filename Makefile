# make setup | demo | test | test-fast | test-oldest | mutants | lint | bench | gpu | audit    (needs only Python 3.11 or newer)
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
CONSTRAINTS := constraints.txt
BRIEF  := --rounds 3 --seconds 15
FAST   := tests/models tests/decoding tests/training/test_schedules.py tests/utils/test_metrics.py
SAMPLE := 10
SEED   := 0

.PHONY: setup demo test test-fast test-oldest mutants lint bench gpu audit
.DELETE_ON_ERROR:

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-dev.txt $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into $(VENV): about 5 GB, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c $(CONSTRAINTS)
	@touch $@

demo: setup        ## synthetic speech -> trained model -> attention maps -> submission.csv
	$(RUN) -m corpora.demo data/demo
	$(RUN) train.py --config configs/demo.yaml
	$(RUN) test.py --config configs/demo.yaml

test: setup        ## everything
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile

test-fast: setup   ## models, decoding, schedules, metrics
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --dist loadfile -m "not slow" $(FAST)

test-oldest:       ## everything, with the lowest versions that requirements.txt allows
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt

mutants: setup     ## small faults put into a copy of the code: do the tests notice? SAMPLE of them a room, drawn with SEED; ROOMS
	$(RUN) -m tests.mutants --sample $(SAMPLE) --seed $(SEED) $(ROOMS)

lint: setup        ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: setup       ## in minutes: speed beside other ways to write it, on whatever device is there; no data needed
	$(RUN) -m benchmarks.data $(BRIEF)
	$(RUN) -m benchmarks.decode --shape an4 $(BRIEF)
	$(RUN) -m benchmarks.train --shape an4 $(BRIEF)
	$(RUN) -m benchmarks.train $(BRIEF) --only project,other,padded,speechbrain,limit,listener,lstms

gpu:               ## what only a GPU can say, in 8 minutes, with the python that is there: gpu-results/gpu.md
	python -m benchmarks.gpu

audit: setup       ## secrets in what git tracks; known vulnerabilities of what is installed (asks PyPI; fails where it cannot)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check detect-secrets==1.5.* pip-audit==2.*
	git ls-files -z | xargs -0 $(VENV)/audit/bin/detect-secrets-hook --no-verify
	$(VENV)/audit/bin/pip-audit --strict --progress-spinner off --path $$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
