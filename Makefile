# MindBus: everything that a checkout can do. `make` alone lists it.
# ARGS passes flags on: make serve ARGS="--grpc-port 5501", make test ARGS="-k broker"

SHELL       := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS   += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help setup compiled clients serve demo stop restart status test test-fast test-compiled sim soak faults check format lint types lock clean bench bench-peers

# The interpreter that makes the environment: 3.11 or 3.12, which is what MindSpore has wheels for.
# The system's own comes first: distributions build theirs with profile-guided optimization, others
# often do not, and a request then takes a third more of the processor.
CAN_MAKE_ENVIRONMENTS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for python in /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3 \
		python3.11 python3.12 python3; do \
	"$$python" -c '$(CAN_MAKE_ENVIRONMENTS)' 2>/dev/null && { echo "$$python"; exit; }; done; \
	command -v python3.11 || command -v python3.12 || command -v python3 || true)
VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS  ?=

# Clients of other houses, which the tests run; in an environment of their own.
CLIENTS       := build/clients
CLIENTS_STAMP := $(CLIENTS)/.installed
# The last release whose wheel has the program perf_analyzer.
PERF_ANALYZER := tritonclient==2.41.1
MINUTES ?= 5
# Tests mostly wait for processes, so more of them than cores run at a time.
TEST_PROCESSES ?= 3

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS passes flags on:  make serve ARGS="--grpc-port 0 --rest-port 0", make test ARGS="-k broker"'
	@echo '  A second server beside the first has ports and MINDBUS_RUN_DIRECTORY of its own.'
	@echo '  By hand: .venv/bin/mindbus --help'

setup: $(STAMP) compiled ## make the environment .venv from requirements.lock, and compile the hot path

serve: setup ## serve the demo models until Ctrl-C; ARGS: see `mindbus serve --help`
	@$(BIN)/python -m examples.prepare_demo
	@exec $(BIN)/mindbus serve --servable-directory build/servables $(ARGS)

demo: $(STAMP) ## send handwritten digits through every door of the running server
	@exec $(BIN)/python -m examples.demo $(ARGS)

stop: $(STAMP) ## drain and stop the running server
	@exec $(BIN)/mindbus stop $(ARGS)

restart: $(STAMP) ## replace every worker, one at a time, while everything keeps answering
	@exec $(BIN)/mindbus restart $(ARGS)

status: $(STAMP) ## show the running server's processes, doors and queues
	@exec $(BIN)/mindbus status $(ARGS)

clients: $(STAMP) $(CLIENTS_STAMP) ## make the environment of tests/clients: tritonclient, kserve, perf_analyzer

test: setup ## run all tests
	@$(CHECK_TOOLS)
	@$(MAKE) clients
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

test-fast: $(STAMP) ## run the tests that start no process and need no MindSpore, in seconds
	@exec $(BIN)/python -m pytest -m "not process and not mindspore and not long" $(ARGS)

test-compiled: $(STAMP) ## run the tests of test-fast against the compiled hot path
	@MINDBUS_COMPILED=1 $(BIN)/python -m compiled
	@MINDBUS_COMPILED=1 exec $(BIN)/python -m pytest \
		-m "not process and not mindspore and not long and not pure" $(ARGS)

sim: $(STAMP) ## run 10,000 seeds of the broker's simulator; ARGS="COUNT FIRST" for others
	@exec $(BIN)/python -m tests.sim $(ARGS)

soak: $(STAMP) ## let everything go wrong at random for MINUTES=5; ARGS="--seed N --mode standalone"
	@exec $(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

faults: $(STAMP) ## run every test of a fault at full length, and write docs/reliability.md
	@$(CHECK_TOOLS)
	@$(MAKE) clients
	@$(BIN)/python -m pytest tests -m shows --full --timeout 3600 \
		--figures=docs/reliability/figures.json $(ARGS)
	@$(BIN)/python -m docs.generate_reliability

bench: setup ## measure W1 to W7, which is long; ARGS="--workloads w1,w2 --rounds 5 --peers triton,mosec"
	@$(CHECK_LOADS)
	@exec $(BIN)/python -m bench.run $(ARGS)

bench-peers: setup ## install the servers that `make bench` compares with; ARGS="mosec ray"
	@exec $(BIN)/python -m bench.peers $(ARGS)

check: lint types test ## everything that decides whether a change is good

format: $(STAMP) ## rewrite the code as the formatter wants it
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lint: $(STAMP) ## check style and form
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## check the types of the pure rooms
	@$(BIN)/mypy

lock: $(STAMP) ## renew requirements.lock from pyproject.toml; ARGS=--upgrade for new versions
	@$(BIN)/pip-compile $(ARGS) pyproject.toml
	@$(BIN)/pip-compile --no-config --quiet --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--strip-extras --allow-unsafe $(ARGS) \
		--output-file tests/clients/requirements.lock tests/clients/requirements.in

clean: ## remove the environment, the demo models and all caches
	@rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache *.egg-info rank_* kernel_meta
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Says in one line if it cannot be; MINDBUS_COMPILED=0 leaves it.
compiled: $(STAMP)
	@$(BIN)/python -m compiled

# Touched last, so that an interrupted installation is repeated. The checkout itself is installed
# as a link, without asking any index: setuptools, which does it, comes from the lock.
$(STAMP): requirements.lock pyproject.toml
	@$(CHECK_PYTHON)
	@$(BIN)/python -c 'import pip' 2>/dev/null || "$(PYTHON)" -m venv --clear $(VENV)
	@echo "installing the packages of requirements.lock into $(VENV) (once; MindSpore is large) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(CLIENTS_STAMP): tests/clients/requirements.lock
	@echo "installing the clients of tests/clients/requirements.lock into $(CLIENTS) (once) …"
	@$(BIN)/python -m venv --clear $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r tests/clients/requirements.lock
	@if test "$$(uname -m)" = x86_64; then $(INSTALL_PERF_ANALYZER); else \
		echo "make clients: perf_analyzer is for x86-64, its tests are skipped" >&2; fi
	@touch $@

# It is linked with Debian's libb64.
define INSTALL_PERF_ANALYZER
$(CLIENTS)/bin/python -m pip download --quiet --disable-pip-version-check \
	--no-deps --dest $(CLIENTS)/wheels $(PERF_ANALYZER); \
$(CLIENTS)/bin/python -m zipfile -e $(CLIENTS)/wheels/*.whl $(CLIENTS)/wheels/files; \
install -m 755 $(CLIENTS)/wheels/files/*.data/data/bin/perf_analyzer $(CLIENTS)/bin/; \
PATH="$$PATH:/sbin" ldconfig -p | grep -q 'libb64\.so\.0d' || { \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get update -qq && apt-get install -y -qq libb64-0d >/dev/null; } || { \
	echo "make clients: no libb64.so.0d here; run: sudo apt-get install libb64-0d" >&2; exit 1; }
endef

# What the tests use as clients and for certificates, each with the file or command that shows it is
# there; on Debian and its kin root gets the packages installed.
# $(call NEED,target,package:sign …), a sign being a program or a file.
define NEED
for tool in $(2); do \
	package=$${tool%%:*}; sign=$${tool#*:}; \
	{ command -v "$$sign" >/dev/null || test -e "$$sign"; } && continue; \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "make $(1): no $$sign here; run: sudo apt-get install $$package" >&2; exit 1; }; \
	apt-get update -qq && apt-get install -y -qq "$$package" >/dev/null || { \
		echo "make $(1): apt-get install $$package failed" >&2; exit 1; }; \
done
endef

CHECK_TOOLS = $(call NEED,test,curl:curl openssl:openssl faketime:faketime gcc:gcc npm:npm \
	libzmq3-dev:/usr/include/zmq.h)

# The load generators of `make bench`: written in C, for a slower one would measure itself.
CHECK_LOADS = $(call NEED,bench,wrk:wrk nghttp2-client:h2load)

# One line that says what is wrong, and on Debian and its kin, run by root, the cure itself:
# there `venv` works only with a package of its own.
define CHECK_PYTHON
fail() { echo "make setup: $$1" >&2; exit 1; }; \
test -n "$(PYTHON)" || fail "no python3 on PATH; install Python 3.11 or 3.12"; \
"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	fail "$(PYTHON) is not Python 3.11 or 3.12; name one: make setup PYTHON=python3.11"; \
"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	package=$$("$(PYTHON)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null || \
		fail "$(PYTHON) cannot make environments; run: sudo apt-get install $$package"; \
	apt-get update -qq && apt-get install -y -qq "$$package" >/dev/null || \
		fail "apt-get install $$package failed"; }
endef
