# Everything works from a bare Python 3.11 to 3.14: no service, no Docker. `make demo` and `make test` set up by themselves.
# PYTHON=/path/to/python chooses the interpreter, ARGS="..." is passed on to the command.
SHELL := /bin/bash
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PYTHON ?=
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready$(subst /,-,$(PYTHON))
TYPED := src tests/typing
# Two runs: the shop is a project of its own, with a schema and settings of its own.
SUITES := tests examples/shop/tests
# The programs of another PostgreSQL than the wheel's, for tests/: make test POSTGRES=/usr/lib/postgresql/15/bin
POSTGRES ?=
# One test that may take an hour.
LONG := -o faulthandler_timeout=3600
export PYTHON ARGS
export VERDIGRIS_TEST_PROGRAMS := $(POSTGRES)

.PHONY: demo test faults fuzz suite sequences check fix docs bench bench-reads equivalence lock clean help bench-faults

help:
	@echo "make demo    serve, drive and prove the shop: the 41 boxes of a real service on a real PostgreSQL"
	@echo "make test    run the tests"
	@echo "make faults  run the fault tests, the slow ones too: frozen, killed and promoted servers, lost answers"
	@echo "make fuzz    requests made up by schemathesis before the shop: no answer may be a 5xx"
	@echo "make suite   SQLAlchemy's own tests of asyncio and of the ORM, with our sessions, engines and lean reads"
	@echo "make sequences   a thousand generated sequences of operations, on our session and on SQLAlchemy's"
	@echo "make check   lint, format, types, documentation"
	@echo "make fix     repair what lint and format can repair"
	@echo "make docs    check the documentation alone"
	@echo "make equivalence   the JSON read against Pydantic, over 20,000 generated pairs"
	@echo "make bench   run the benchmarks"
	@echo "make bench-faults the same faults before every peer, over HTTP"
	@echo "make bench-reads  reads behind FastAPI, beside every peer (ARGS=--smoke: a minute)"
	@echo "make lock    resolve the constraints files anew"

demo: $(READY)
	@$(BIN)/verdigris demo $(ARGS)

test: $(READY)
	@status=0; for suite in $(SUITES); do \
	  $(BIN)/python -m pytest -n 2 $$suite $(ARGS); code=$$?; \
	  [ $$code -eq 0 ] || { [ $$code -eq 5 ] && [ -n "$$ARGS" ]; } || status=1; \
	done; exit $$status

faults: $(READY)
	@$(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/faults $(ARGS)

# Two minutes; ARGS="--examples 500 --seed 7" for longer and other requests.
fuzz: $(READY)
	@VENV=$(VENV) tests/fuzz/run $(ARGS)

# SQLAlchemy's own tests, with our classes for theirs; its source is fetched once. MODES chooses of plain, database, orm.
MODES ?=
suite: $(READY)
	@$(BIN)/python tools/sqlalchemy_suite.py $(MODES) -- $(ARGS)

# A thousand generated sequences of session operations, on a Database's session and on SQLAlchemy's; a failure names
# its SEED and FIRST: make sequences SEED=7 FIRST=31 SEQUENCES=1
SEQUENCES ?= 1000
sequences: $(READY)
	@VERDIGRIS_EXAMPLES=$(SEQUENCES) VERDIGRIS_FIRST=$(FIRST) VERDIGRIS_SEED=$(SEED) $(BIN)/python -m pytest $(LONG) -q -vv tests/library/session/generated $(ARGS)

check: $(READY) docs
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy --strict $(TYPED)

fix: $(READY)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: $(READY)
	@$(BIN)/python tools/check_docs.py

bench: $(READY)
	@if ls benchmarks/bench_*.py >/dev/null 2>&1; then \
	  for script in benchmarks/bench_*.py; do $(BIN)/python $$script $(ARGS) || exit 1; done; \
	else echo "There is no benchmark yet: benchmarks/bench_*.py"; fi

bench-reads:
	@benchmarks/reads/run $(ARGS)

# Some minutes. WORLDS is how many sets of mapped classes are made, of 480 pairs each at most; SEED repeats a run, and
# FIRST leaves out the worlds before it: SEED=7 WORLDS=30 and SEED=7 FIRST=30 WORLDS=60 are SEED=7 WORLDS=60 in two parts.
WORLDS ?= 60
FIRST ?= 0
SEED ?=
equivalence: $(READY)
	@VERDIGRIS_EXAMPLES=$(WORLDS) VERDIGRIS_FIRST=$(FIRST) $(if $(SEED),VERDIGRIS_SEED=$(SEED)) $(BIN)/python -m pytest $(LONG) -q -s tests/library/loading/json/test_equivalence.py tests/library/loading/json/test_types.py $(ARGS)

bench-faults:
	@benchmarks/faults/run $(ARGS)

lock:
	@python=$$(tools/find-python) && tools/lock "$$python"

clean:
	@rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache build dist

$(READY): $(CONSTRAINTS) pyproject.toml tools/set-up
	@tools/set-up $(VENV) $(CONSTRAINTS)
	@touch $@
