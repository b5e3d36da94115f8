# The exporter: its environments, its tests, the models it writes, and the references that tests compare with. Included by
# the Makefile.

VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
MINI := models/nv-embed-mini
MODELS := build/models
PRECISIONS := fp32 fp16 bf16 int8 int4 w8a8 cpu-fp32 openvino-fp32 openvino-bf16 cuda-fp32 cuda-fp16 cuda-int8 cuda-int4 tensorrt-fp16
REFERENCE := build/reference
EXPORTER := $(shell find export/nvembed_export -name '*.py' 2>/dev/null) export/pyproject.toml

.PHONY: models reference references test-export test-torch venv venv-test venv-torch downloads

# $(call install,VENV,LIST,WHAT,OPTIONS): says how much is downloaded, which was measured and stands in the list; installs.
# pip would warn of mistral-common, of which only the data is used and whose dependencies are left out.
define install
@echo '$(1): installing $(3): $(shell sed -n 's/^# Size: //p' $(2))'
@$(1)/bin/pip install --quiet --disable-pip-version-check --no-warn-conflicts $(4) --requirement $(2)
endef

# $(call sees,VENV,OTHER): VENV finds what OTHER has, so that nothing large is installed twice.
define sees
@{ $(2)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; echo '$(CURDIR)/export'; } \
    >"$$(echo $(1)/lib/python3*/site-packages)/sees$(notdir $(2)).pth"
endef

downloads: ## What each environment downloads and leaves on the disk
	@grep -rH '^# Size: ' --include='requirements*.txt' export docs tests benches examples | sed 's/:# Size: /: /' | sort

venv: $(VENV)/.exporter
venv-test: $(VENV)/.test
venv-torch: $(TORCH_VENV)/.done

$(VENV)/.exporter: export/requirements.txt export/pyproject.toml | prerequisites
	$(PYTHON) -m venv $(VENV)
	$(call install,$(VENV),$<,the exporter and ONNX Runtime)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable export
	@touch $@

$(VENV)/.test: export/requirements-test.txt $(VENV)/.exporter
	$(call install,$(VENV),$<,the tests,--no-deps)
	@touch $@

$(VENV)/.lint: export/requirements-lint.txt $(VENV)/.exporter
	$(call install,$(VENV),$<,the linter)
	@touch $@

$(VENV)/.figures: docs/figures/requirements.txt $(VENV)/.exporter
	$(call install,$(VENV),$<,what draws figures)
	@touch $@

$(TORCH_VENV)/.done: export/requirements-torch.txt $(VENV)/.test
	$(PYTHON) -m venv $(TORCH_VENV)
	$(call sees,$(TORCH_VENV),$(VENV))
	$(call install,$(TORCH_VENV),$<,PyTorch and transformers)
	@touch $@

test-export: venv-test ## Tests of the exporter, against the committed answers of PyTorch and transformers
	$(BIN)/python -m pytest export/tests -q

# The committed answers are computed again; then the tests that use them ask PyTorch itself.
test-torch: venv-torch models install-for-tests ## What needs PyTorch: the committed references again, the exporter's numbers, the peers
	$(TORCH_VENV)/bin/python tests/reference/tokens.py --check
	$(TORCH_VENV)/bin/python tests/reference/embeddings.py --check
	$(TORCH_VENV)/bin/python -m pytest export/tests/test_numerics.py export/tests/test_golden.py -q --live
	$(TORCH_VENV)/bin/python -m pytest benches/peers -q -m torch

references: venv-torch ## Write the committed references anew, with PyTorch and transformers
	$(TORCH_VENV)/bin/python tests/reference/tokens.py
	$(TORCH_VENV)/bin/python tests/reference/embeddings.py

reference: $(REFERENCE)/.done ## The committed references and the models they belong to, as the runtime's tests read them

$(REFERENCE)/.done: $(wildcard tests/reference/* export/tests/*.py) $(EXPORTER) | venv
	$(BIN)/python tests/reference/for_rust.py $(REFERENCE)
	@touch $@

models: $(PRECISIONS:%=$(MODELS)/nv-embed-mini-%/nvembed.json) ## Export the mini model in every precision

$(MODELS)/nv-embed-mini-%/nvembed.json: $(MINI)/config.json $(MINI)/model.safetensors $(MINI)/tokenizer.json $(EXPORTER) | venv
	@mkdir -p $(MODELS)
	$(BIN)/nvembed-export $(MINI) $(MODELS)/nv-embed-mini-$* --precision $(lastword $(subst -, ,$*)) \
	    $(foreach target,cpu openvino cuda tensorrt,$(if $(filter $(target)-%,$*),--target $(target))) \
	    $(if $(filter w8a8,$*),--target cpu) --force
