# What a maintainer types. Only python3 (3.10 or later) with venv, a C compiler and make are presumed.
#
#   make demo     an example app on all cores, and the even split of 400 connections
#   make test     the whole test suite
#   make accept   the promises at full size (many minutes)
#   make chaos    workers, dispatcher and primary killed, stopped, starved: short, with the mutants
#   make soak     the same at full length; its table goes into docs/reliability.md (up to an hour)
#   make matrix   real servers, unmodified; its table goes into docs/unmodified.md (PYTHON_SERVERS=... has them)
#   make quick    the suite without its bulk runs
#   make check    ruff, mypy --strict, the lock file
#   make san      the C core's tests: plain, on poll(2), under ASan + UBSan, under TSan (cmake, ninja)
#   make san-dispatch   real processes and chaos on a dispatcher with sanitizers
#   make fuzz     the C core's fuzzers, each for FUZZ seconds (60; needs clang)
#   make bench    CPU of the dispatching process per connection
#   make load     rrdispatch beside other servers, quickly: a table and a report (three minutes)
#   make wheel    dist/*.whl by this machine's compiler, installed and tried in a new environment
#   make wheels   those to hand out: manylinux and musllinux, x86_64 and aarch64, without a container
#   make docs     the tables of docs/ that are made from code
#   make docs-site    the documentation as a website, build/site; a link that leads nowhere fails it
#   make lock     pylock.toml anew

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.c csrc/*.h csrc/*.inc) setup.py

.PHONY: demo test accept chaos soak matrix quick check san san-dispatch fuzz bench load wheel wheels docs docs-site lock fetch clean

# The locked versions where the lock was made for this interpreter, else what pyproject.toml admits.
$(VENV)/installed: pyproject.toml pylock.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	if $(BIN)/python tools/lock.py fits; then \
	    $(BIN)/python tools/lock.py requirements > $(VENV)/locked.txt && \
	    $(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/locked.txt; \
	else \
	    $(BIN)/python -m pip install --quiet --group dev -e ".[all]"; \
	fi
	touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

demo: $(VENV)/built
	$(BIN)/python tools/demo.py

# Side by side: most of them wait for something. `make accept` runs what counts and measures alone.
test: $(VENV)/built
	$(BIN)/python -m pytest -n 6 -m "not chaos and not alone"
	$(BIN)/python -m pytest -m alone tests/acceptance

accept: $(VENV)/built
	RRDISPATCH_FULL=1 $(BIN)/python -m pytest tests/acceptance tests/cli/test_shells.py --timeout 900

chaos: $(VENV)/built
	$(BIN)/python -m tests.chaos --together --mutants

soak: $(VENV)/built
	$(BIN)/python -m tests.chaos --full --mutants --markdown docs/reliability.md

# pip install uvloop uvicorn gunicorn granian hypercorn waitress daphne cheroot aiohttp tornado twisted sanic \
#     gevent flask django; apt-get install nodejs nginx-light redis-server. What is not there is told as such.
PYTHON_SERVERS ?= $(abspath $(BIN)/python)
matrix: $(VENV)/built
	$(BIN)/python -m tests.matrix --python $(PYTHON_SERVERS) --markdown docs/unmodified.md

quick: $(VENV)/built
	$(BIN)/python -m pytest -n 4 -m "not slow and not chaos and not alone"

check: $(VENV)/built
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python tools/lock.py check

san:
	for preset in c poll asan tsan; do \
	    cmake --preset $$preset && cmake --build --preset $$preset && ctest --preset $$preset || exit 1; \
	done

san-dispatch: $(VENV)/built
	$(BIN)/python tools/sanitized.py

# What is found is kept in build/fuzz/corpus, what breaks it in build/fuzz; the small corpora beside the
# targets are replayed by `make san`.
FUZZ ?= 60
fuzz:
	@if ! clang --version > /dev/null 2>&1; then \
	    echo "skipped: the fuzzers need clang with libFuzzer (Debian: apt-get install clang libclang-rt-14-dev)"; \
	    exit 0; \
	fi; \
	cmake --preset fuzz && cmake --build --preset fuzz || exit 1; \
	cd build/fuzz || exit 1; \
	for target in control channel heir policy; do \
	    mkdir -p corpus/$$target && \
	    ./fuzz_$$target -max_total_time=$(FUZZ) -max_len=2048 -len_control=0 -print_final_stats=1 \
	        corpus/$$target $(CURDIR)/csrc/fuzz/corpus/$$target || exit 1; \
	done

bench: $(VENV)/built
	$(BIN)/python -m loadtests.bench

load: $(VENV)/built
	$(BIN)/python -m loadtests.compare --quick

wheel: $(VENV)/installed
	$(BIN)/python tools/wheel.py

# An environment of its own, as for the site. WHEELS=manylinux_2_17_x86_64 makes that one alone.
WHEELS ?=
WHEELS_VENV ?= .venv-wheels
wheels:
	test -x $(WHEELS_VENV)/bin/abi3audit || { $(PYTHON) -m venv $(WHEELS_VENV) && \
	    $(WHEELS_VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1" && \
	    $(WHEELS_VENV)/bin/python -m pip install --quiet --group wheels; }
	$(WHEELS_VENV)/bin/python tools/wheels.py $(WHEELS)

docs: $(VENV)/built
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/lifecycle.py

# An environment of its own: the newest of what is not locked.
SITE_VENV ?= .venv-docs
docs-site:
	test -x $(SITE_VENV)/bin/mkdocs || { $(PYTHON) -m venv $(SITE_VENV) && \
	    $(SITE_VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1" && \
	    $(SITE_VENV)/bin/python -m pip install --quiet --group docs; }
	NO_MKDOCS_2_WARNING=1 $(SITE_VENV)/bin/python -m mkdocs build --strict

lock: $(VENV)/installed
	$(BIN)/python tools/lock.py make

# The files that pylock.toml names, by name from whatever index pip is set to.
fetch: $(VENV)/installed
	$(BIN)/python -m pip download --quiet --require-hashes -r $(VENV)/locked.txt -d wheels

clean:
	rm -rf $(VENV) .venv-docs .venv-wheels build build-* dist wheels *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
