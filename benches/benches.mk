# The comparison with peers, and the tables and pictures of the documents.

PEERS_VENV := .venv-peers
PEERS := build/peers
CHECKPOINT_mini := $(MINI)
CHECKPOINT_wide := $(PEERS)/wide/checkpoint

.PHONY: peers peers-wide test-peers candle-peer figures performance-tables

# WORDS='--peers candle' and the like go to compare.py: benches/peers/README.md.
peers: $(PEERS_VENV)/.done $(OPENVINO_VENV)/.done candle-peer install-for-tests $(PEERS)/mini/.exported ## Speed of nvembed and its peers on the mini model, 15 minutes
	$(PEERS_VENV)/bin/python benches/peers/compare.py $(MINI) $(PEERS)/mini -o $(PEERS)/mini.jsonl \
	    --rounds 5 --min-calls 5 --write benches/peers/README.md mini $(WORDS)

# Nothing else fits into memory beside it; PyTorch's code is compiled anew in each round.
peers-wide: $(PEERS_VENV)/.done $(OPENVINO_VENV)/.done candle-peer install-for-tests $(PEERS)/wide/.exported ## The same at the 7B widths, 2 layers; 19 GB of disk, 16 GB of memory
	$(PEERS_VENV)/bin/python benches/peers/compare.py $(PEERS)/wide/checkpoint $(PEERS)/wide -o $(PEERS)/wide.jsonl \
	    --rounds 3 --write benches/peers/README.md wide $(WORDS)

test-peers: venv-test ## The comparison with peers: its parts; with a peer to compare, it is tested by test-torch
	$(BIN)/python -m pytest benches/peers -q -m 'not torch'

$(PEERS_VENV)/.done: benches/peers/requirements.txt $(TORCH_VENV)/.done
	$(PYTHON) -m venv $(PEERS_VENV)
	$(call sees,$(PEERS_VENV),$(TORCH_VENV))
	$(call sees,$(PEERS_VENV),$(VENV))
	$(call install,$(PEERS_VENV),$<,the peers)
	@touch $@

candle-peer: prerequisites
	cd benches/peers/candle && cargo build --locked --release

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

figures: $(VENV)/.figures ## Draw the pictures of the documents from their tables
	$(BIN)/python docs/figures/draw.py

performance-tables: venv ## Write the tables of the documents from benches/results, and the computed one
	$(BIN)/python docs/figures/roofline.py
	$(BIN)/python docs/figures/corpora.py
	NVEMBED_WRITE_TABLES=1 cargo test --locked --quiet --workspace --test cli performance_tables
