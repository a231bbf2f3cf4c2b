# make demo    install everything, pull the bundled model, hold a conversation
# make test    the same, then lint, types and the whole test suite
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install dev check vocabularies sources peers reference bench bench-engine bench-convert bench-download faults docs clean

demo: install
	$(BIN)/python tools/demo.py

install:
	$(PYTHON) tools/setup.py

dev:
	$(PYTHON) tools/setup.py dev

# pytest comes last, so that its closing line is the last line printed. One process a
# core, and a file's tests in one of them: they share what is slow to make.
test: dev vocabularies check
	$(BIN)/python -m pytest -n auto --dist loadfile

check: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The real vocabularies that the golden prompts are checked against, where they are
# not beside the checkout already.
vocabularies: dev
	$(BIN)/python tools/sources.py --if-needed

# llama.cpp's sources: the same vocabularies, and its converter for references.
sources: dev
	$(BIN)/python tools/sources.py

# llama.cpp's own programs, for `make bench-engine` and tests/reference: minutes.
PEERS ?= .sources/build
peers: sources
	$(BIN)/python -m tools.peers --build $(PEERS)

# Recomputes the stored golden numbers with torch, transformers and llama.cpp's own
# converter; heavy, so never part of the test suite.
reference:
	$(PYTHON) tools/setup.py dev reference
	$(BIN)/python tools/sources.py
	$(BIN)/python -m pytest tests/reference

bench: dev
	$(BIN)/python -m tests.benchmarks.startup --program $(BIN)/wizard-edge
	$(BIN)/python -m tests.benchmarks.gguf
	$(BIN)/python -m tests.benchmarks.store --program $(BIN)/wizard-edge
	$(BIN)/python -m tests.benchmarks.settings
	$(BIN)/python -m tests.benchmarks.fit

# The engine beside llama.cpp's own programs, row by row: most of an hour, and the
# machine to itself. `python -m tests.benchmarks.engine --help` for single rows.
bench-engine: peers
	LLAMA_CPP_BIN=$(PEERS)/bin $(BIN)/python -m tests.benchmarks.engine

# The converter beside llama.cpp's two steps: needs torch in ORACLE, takes ten minutes.
ORACLE ?= $(BIN)/python
bench-convert: dev sources
	$(BIN)/python -m tests.benchmarks.convert --python $(ORACLE)

# `pull` beside curl, on loopback: writes 20 GiB, takes some minutes.
bench-download: dev
	$(BIN)/python -m tests.benchmarks.download

# The fault campaigns in full, of which the test suite runs a small part: minutes each.
faults: dev
	$(BIN)/python -m tests.faults.converter_inputs --full
	$(BIN)/python -m tests.faults.gguf_inputs --full
	$(BIN)/python -m tests.faults.conversion_kills --points 50
	$(BIN)/python -m tests.faults.streamed_kills --kills 100
	$(BIN)/python -m tests.faults.pull_kills --kills 200
	$(BIN)/python -m tests.faults.pull_network
	$(BIN)/python -m tests.faults.pull_together
	$(BIN)/python -m tests.faults.pull_disk
	$(BIN)/python -m tests.faults.pull_hostile

# Writes what is generated: the command reference.
docs: dev
	$(BIN)/python tools/cli_docs.py

clean:
	rm -rf .venv .sources build dist .pytest_cache .mypy_cache .ruff_cache
