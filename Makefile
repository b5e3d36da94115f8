# Two commands matter: `make demo` and `make test`. Each sets up all it needs.

PYTHON ?= python3
PREFIX ?= /usr/local
WIDE := fp32 fp16 bf16 int8 int4
OPENVINO_VENV := .venv-openvino
GPU_VENV := .venv-gpu
GPU_MODELS := build/gpu-graph
GPU_MINI := $(foreach form,fp16-fused fp16-direct fp32-fused fp32-direct,$(GPU_MODELS)/nv-embed-mini-$(form)/nvembed.json)
# The rows of `nvembed bench` say which commit was built.
RELEASE := NVEMBED_COMMIT="$${NVEMBED_COMMIT:-$$(git describe --always --dirty --exclude='*' 2>/dev/null)}" cargo build --locked --release
PEERS_VENV := .venv-peers
PEERS := build/peers

.DEFAULT_GOAL := help
include export/export.mk

.PHONY: gpu-acceptance test-peers peers peers-wide candle-peer help demo install install-for-tests header test-c-api fuzz-c-api test test-rust test-openvino test-gpu test-eval test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b cuda-shim lint format figures performance-tables release prerequisites clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

demo: release $(MODELS)/nv-embed-mini-fp32/nvembed.json ## Export the mini model and score the model card's example
	target/release/nvembed score --model $(MODELS)/nv-embed-mini-fp32 \
	    --queries examples/model-card/queries.txt --passages examples/model-card/passages.txt

test: test-export test-rust test-openvino test-gpu test-eval test-c-api test-peers ## Everything that is tested without a GPU, except the extra suites test-torch and test-gpu-graph

test-rust: models reference ## Unit and integration tests of the runtime
	cargo test --locked --features capi,steps

install: prerequisites ## The libraries for C and C++, under PREFIX (/usr/local)
	$(MAKE) --no-print-directory -C packaging install PREFIX='$(abspath $(PREFIX))' DESTDIR='$(DESTDIR)'

test-c-api: venv-test models install-for-tests ## The libraries for C and C++, as programs use them; without a tool: SKIPPED
	$(BIN)/python -m pytest tests/c-api -q -rs

SECONDS ?= 600
fuzz-c-api: venv-test models install-for-tests ## Random calls of the C interface for SECONDS=600; NVEMBED_FUZZ_SEED=N repeats
	NVEMBED_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/c-api/test_programs.py -k noise -q -rs -s

install-for-tests: prerequisites
	rm -rf build/capi/prefix
	@$(MAKE) --no-print-directory -C packaging install PREFIX='$(CURDIR)/build/capi/prefix' DESTDIR= >build/capi.log 2>&1 || { cat build/capi.log; exit 1; }
	cargo build --locked --quiet

header: ## Write include/nvembed.h from the sources
	NVEMBED_WRITE_HEADER=1 cargo test --locked --quiet --test c_header

test-eval: venv-test models ## The mini model's retrieval and similarity figures, through the runtime
	cargo build --locked --quiet
	$(BIN)/python tests/eval/score.py --check --nvembed target/debug/nvembed --model $(MODELS)/nv-embed-mini-fp32

# What these prove and do not: docs/gpu.md and docs/gpu-graph.md. They need no GPU, and libraries that exist for one platform only.
ifeq ($(shell uname -sm),Linux x86_64)
test-gpu-graph: test-gpu-graph-mini test-gpu-graph-7b ## The exported graph against CUDA's and TensorRT's libraries, without a GPU

# The tests of test-rust that skip where there is no library.
test-openvino: $(OPENVINO_VENV)/.done models reference ## The OpenVINO provider on this processor
	NVEMBED_REQUIRE_OPENVINO=1 cargo test --locked --test openvino

# The tests of test-rust that skip where there is no shim.
test-gpu: cuda-shim models ## The runtime's GPU path on stand-ins for the CUDA libraries
	cargo test --locked --test gpu --test gpu_failures --test gpu_program
	cargo build --locked --quiet --bin nvembed
	$(GPU_VENV)/bin/python tests/gpu-acceptance/acceptance.py --nvembed target/debug/nvembed \
	    --shim build/cuda-shim --out build/gpu-acceptance/shim.md --batch 1,8 --length 16,32 \
	    --library "$$(echo $(GPU_VENV)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*)"

test-gpu-graph-mini: $(GPU_VENV)/.rtx cuda-shim $(GPU_MINI)
	$(GPU_VENV)/bin/python -m pytest tests/gpu-graph -q -m 'not full_width'

test-gpu-graph-7b: $(GPU_VENV)/.rtx cuda-shim $(GPU_MODELS)/7b-widths-fp16-fused/nvembed.json
	$(GPU_VENV)/bin/python -m pytest tests/gpu-graph -q -m full_width
else
test-openvino test-gpu test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b:
	@echo 'SKIPPED $@: onnxruntime-gpu, onnxruntime-openvino and tensorrt-rtx are tested for x86-64 Linux, and this is $(shell uname -sm)'
endif

# One command for a machine with a GPU. Without one: on the shim, as far as that means anything.
HAS_GPU := $(shell command -v nvidia-smi)
ifneq ($(HAS_GPU),)
ACCEPTANCE_NEEDS := $(GPU_VENV)/.cuda $(WIDE:%=$(GPU_MODELS)/wide-%/nvembed.json)
else
ACCEPTANCE_NEEDS := cuda-shim
endif
gpu-acceptance: $(GPU_VENV)/.done models $(ACCEPTANCE_NEEDS) ## Parity, CUDA graphs, TensorRT and speed on this machine's GPU, in one report
	$(RELEASE) --bin nvembed
	$(GPU_VENV)/bin/python tests/gpu-acceptance/acceptance.py --nvembed target/release/nvembed \
	    $(if $(HAS_GPU),,--shim build/cuda-shim) \
	    --library "$$(echo $(GPU_VENV)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*)"

$(GPU_VENV)/.cuda: tests/gpu-acceptance/requirements.txt $(GPU_VENV)/.done
	$(call install,$(GPU_VENV),$<,CUDA and TensorRT)
	@touch $@

cuda-shim: $(GPU_VENV)/.done ## Stand-ins for the CUDA libraries, see tests/cuda-shim/README.md
	@$(MAKE) --no-print-directory -C tests/cuda-shim OUT=$(CURDIR)/build/cuda-shim \
	    INCLUDE="$$(echo $(CURDIR)/$(GPU_VENV)/lib/python3*/site-packages/nvidia/cu13/include)"

# Its shared libraries are all that is used of the package.
$(OPENVINO_VENV)/.done: tests/openvino/requirements.txt | prerequisites
	$(PYTHON) -m venv $(OPENVINO_VENV)
	$(call install,$(OPENVINO_VENV),$<,ONNX Runtime with OpenVINO,--no-deps)
	@touch $@

$(GPU_VENV)/.done: tests/cuda-shim/requirements.txt $(VENV)/.test
	$(PYTHON) -m venv $(GPU_VENV)
	$(call sees,$(GPU_VENV),$(VENV))
	$(call install,$(GPU_VENV),$<,ONNX Runtime with CUDA)
	@touch $@

$(GPU_VENV)/.rtx: tests/gpu-graph/requirements.txt $(GPU_VENV)/.done
	$(call install,$(GPU_VENV),$<,TensorRT for RTX)
	@touch $@

# nv-embed-mini-PRECISION-POOLER
$(GPU_MODELS)/nv-embed-mini-%/nvembed.json: $(MINI)/config.json $(MINI)/model.safetensors $(EXPORTER) | venv
	@mkdir -p $(GPU_MODELS)
	$(BIN)/nvembed-export $(MINI) $(@D) --precision $(word 1,$(subst -, ,$*)) --pooler $(word 2,$(subst -, ,$*)) \
	    --no-golden --force --quiet

# Two of 32 layers at the full model's widths, random weights; the checkpoint, 2.6 GB, is not kept.
$(GPU_MODELS)/7b-widths-fp16-fused/nvembed.json: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py $(EXPORTER) | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(GPU_MODELS)/checkpoint
	$(BIN)/python export/tools/random_checkpoint.py $(GPU_MODELS)/checkpoint --layers 2
	$(BIN)/nvembed-export $(GPU_MODELS)/checkpoint $(@D) --precision fp16 --pooler fused --no-golden --force --quiet
	rm -rf $(GPU_MODELS)/checkpoint

# The same for the acceptance test, in more precisions: 12 GB.
$(GPU_MODELS)/wide-checkpoint/config.json: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(@D)
	$(BIN)/python export/tools/random_checkpoint.py $(@D) --layers 2

$(GPU_MODELS)/wide-%/nvembed.json: $(GPU_MODELS)/wide-checkpoint/config.json $(EXPORTER) | venv
	$(BIN)/nvembed-export $(GPU_MODELS)/wide-checkpoint $(@D) --precision $* --no-golden --force --quiet

# The model and its peers, side by side: benches/peers/README.md. WORDS='--peers candle' and the like go to compare.py.
peers: $(PEERS_VENV)/.done $(OPENVINO_VENV)/.done candle-peer install-for-tests $(PEERS)/mini/.exported ## Speed of nvembed and of its peers on the mini model, 10 minutes
	$(PEERS_VENV)/bin/python benches/peers/compare.py $(MINI) $(PEERS)/mini -o $(PEERS)/mini.jsonl \
	    --rounds 5 --min-calls 5 --write benches/peers/README.md mini $(WORDS)

# Nothing else fits into memory beside it; PyTorch's code is compiled anew for each round.
peers-wide: $(PEERS_VENV)/.done $(OPENVINO_VENV)/.done candle-peer install-for-tests $(PEERS)/wide/.exported ## The same at the 7B widths, 2 layers; 20 GB of disk, 16 GB of memory
	$(PEERS_VENV)/bin/python benches/peers/compare.py $(PEERS)/wide/checkpoint $(PEERS)/wide -o $(PEERS)/wide.jsonl \
	    --rounds 3 --write benches/peers/README.md wide $(WORDS)

test-peers: venv-test ## The comparison with peers: its parts; with a peer to compare, it is tested by test-torch
	$(BIN)/python -m pytest benches/peers -q -m 'not torch'

candle-peer: prerequisites
	cd benches/peers/candle && cargo build --locked --release

$(PEERS_VENV)/.done: benches/peers/requirements.txt $(TORCH_VENV)/.done
	$(PYTHON) -m venv $(PEERS_VENV)
	$(call sees,$(PEERS_VENV),$(TORCH_VENV))
	$(call sees,$(PEERS_VENV),$(VENV))
	$(call install,$(PEERS_VENV),$<,the peers)
	@touch $@

CHECKPOINT_mini := $(MINI)
CHECKPOINT_wide := $(PEERS)/wide/checkpoint
$(PEERS)/mini/.exported: $(MINI)/config.json $(MINI)/model.safetensors
$(PEERS)/wide/.exported: $(PEERS)/wide/checkpoint/config.json
$(PEERS)/%/.exported: $(EXPORTER) benches/peers/export_direct.py benches/peers/direct.py $(PEERS_VENV)/.done
	@for precision in fp32 int8 w8a8; do $(BIN)/nvembed-export $(CHECKPOINT_$*) $(@D)/nvembed-$$precision \
	    --precision $$precision --target cpu --no-golden --force --quiet || exit 1; done
	@for precision in fp32 bf16; do $(BIN)/nvembed-export $(CHECKPOINT_$*) $(@D)/nvembed-openvino-$$precision \
	    --precision $$precision --target openvino --no-golden --force --quiet || exit 1; done
	$(PEERS_VENV)/bin/python benches/peers/export_direct.py $(CHECKPOINT_$*) $(@D)/direct/model.onnx
	@touch $@

$(PEERS)/wide/checkpoint/config.json: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py | venv
	@mkdir -p $(PEERS)/wide
	rm -rf $(@D)
	$(BIN)/python export/tools/random_checkpoint.py $(@D) --layers 2

lint: $(VENV)/.lint ## Formatting, clippy, rustdoc, ruff; warnings are errors
	cargo fmt --check
	cargo fmt --check --manifest-path benches/peers/candle/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features capi,steps -- -D warnings
	cargo check --locked --quiet --no-default-features --lib
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet --features capi
	$(BIN)/ruff format --check export tests docs benches
	$(BIN)/ruff check export tests docs benches
	$(BIN)/python docs/figures/roofline.py --check

format: $(VENV)/.lint ## Apply the formatting
	cargo fmt
	cargo fmt --manifest-path benches/peers/candle/Cargo.toml
	$(BIN)/ruff format export tests docs benches
	$(BIN)/ruff check --fix export tests docs benches

figures: $(VENV)/.figures ## Draw the documentation's pictures from its tables
	$(BIN)/python docs/figures/draw.py

performance-tables: venv ## Write the tables of README.md and docs/performance.md from benches/results, and the computed one
	$(BIN)/python docs/figures/roofline.py
	NVEMBED_WRITE_TABLES=1 cargo test --locked --quiet --test performance_tables

release: prerequisites
	$(RELEASE)

prerequisites:
	@command -v cargo >/dev/null || { echo 'nvembed needs Rust (cargo), see https://rustup.rs' >&2; exit 1; }
	@command -v cc >/dev/null || { echo 'nvembed needs a C compiler for linking (cc, for example from gcc)' >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo 'nvembed needs Python 3.11 or newer ($(PYTHON) not found; name one with make PYTHON=...)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nvembed needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'nvembed needs Python with venv (on Debian: apt install python3-venv)' >&2; exit 1; }

clean: ## Remove all that was made
	rm -rf target build benches/peers/candle/target $(VENV) $(GPU_VENV) $(OPENVINO_VENV) $(PEERS_VENV) $(TORCH_VENV)
