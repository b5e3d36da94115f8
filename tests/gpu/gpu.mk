# What is tested without a GPU, against CUDA's and TensorRT's libraries, and the acceptance on a machine that has one.
# What these prove and what they do not: docs/testing.md. The libraries exist for x86-64 Linux only.

GPU_VENV := .venv-gpu
GPU_MODELS := build/gpu-graph
GPU_FORMS := any-fp16-fused any-fp16-direct any-fp32-fused any-fp32-direct tensorrt-fp16-fused tensorrt-fp16-direct tensorrt-bf16-fused \
    cuda-fp16-fused cuda-bf16-fused cuda-int8-fused cuda-int4-fused
GPU_MINI := $(GPU_FORMS:%=$(GPU_MODELS)/nv-embed-mini-%/nvembed.json)
GPU_WIDE := any tensorrt cuda
# $(call form_options,TARGET-PRECISION-POOLER)
form_options = --target $(word 1,$(subst -, ,$(1))) --precision $(word 2,$(subst -, ,$(1))) --pooler $(word 3,$(subst -, ,$(1)))
GPU_LIBRARY = "$$(echo $(GPU_VENV)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*)"
# The models of the acceptance. All layers of the 7B model: LAYERS='2 32', 35 GB for each form.
LAYERS := 2
ACCEPTANCE_FORMS := fp32 fp16 bf16 cuda-fp16 cuda-bf16 cuda-int8 cuda-int4 tensorrt-bf16
LARGE_FORMS := fp16 cuda-fp16 cuda-int8
ACCEPTANCE_MODELS := $(ACCEPTANCE_FORMS:%=$(GPU_MODELS)/outliers-%/nvembed.json) \
    $(foreach layers,$(LAYERS),$(patsubst %,$(GPU_MODELS)/wide-$(layers)-%/nvembed.json,$(if $(filter 2,$(layers)),$(ACCEPTANCE_FORMS),$(LARGE_FORMS))))
# A driver that sees no GPU counts as none.
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep '^GPU')

.PHONY: test-gpu test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b gpu-acceptance cuda-shim

ifeq ($(shell uname -sm),Linux x86_64)
test-gpu: cuda-shim models ## The runtime's GPU path on stand-ins for the CUDA libraries
	NVEMBED_REQUIRE_SHIM=1 cargo test --locked --workspace --lib --test gpu -- provider:: device_rows:: runs:: failures:: graphs:: packed::
	NVEMBED_REQUIRE_SHIM=1 cargo test --locked --workspace --test cli gpu::
	$(BUILD)
	$(GPU_VENV)/bin/python tests/gpu/acceptance/acceptance.py --nvembed $(TARGET)/debug/nvembed --library $(GPU_LIBRARY) \
	    --shim build/cuda-shim --out build/gpu-acceptance/shim.md --batch 1,8 --length 16,32 \
	    --device-tests 'cargo test --locked --quiet --workspace --test device --'

test-gpu-graph: test-gpu-graph-mini test-gpu-graph-7b ## Exported graphs against CUDA's and TensorRT's libraries, without a GPU

test-gpu-graph-mini: $(GPU_VENV)/.rtx cuda-shim $(GPU_MINI) ## The same with the mini model only
	$(BUILD)
	$(GPU_VENV)/bin/python -m pytest tests/gpu/graph -q -m 'not full_width'

test-gpu-graph-7b: $(GPU_VENV)/.rtx cuda-shim $(GPU_MODELS)/7b-widths.done ## The same at the 7B widths only
	$(BUILD)
	$(GPU_VENV)/bin/python -m pytest tests/gpu/graph -q -m full_width
else
test-gpu test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b:
	@echo 'SKIPPED $@: onnxruntime-gpu and tensorrt-rtx are tested on x86-64 Linux, and this is $(shell uname -sm)'
endif

# Without a GPU it runs on the shim, as far as that means anything.
ifneq ($(HAS_GPU),)
ACCEPTANCE_NEEDS := $(GPU_VENV)/.cuda $(GPU_VENV)/.tensorrt $(ACCEPTANCE_MODELS)
else
ACCEPTANCE_NEEDS := cuda-shim
endif
gpu-acceptance: $(GPU_VENV)/.done models release $(ACCEPTANCE_NEEDS) ## Parity, CUDA graphs and speed on this machine's GPU, in one report
	$(GPU_VENV)/bin/python tests/gpu/acceptance/acceptance.py --nvembed $(TARGET)/release/nvembed --library $(GPU_LIBRARY) \
	    --layers '$(LAYERS)' $(if $(HAS_GPU),,--shim build/cuda-shim)

cuda-shim: $(GPU_VENV)/.done ## Stand-ins for the CUDA libraries, see tests/gpu/shim/README.md
	@$(MAKE) --no-print-directory -C tests/gpu/shim OUT=$(CURDIR)/build/cuda-shim \
	    INCLUDE="$$(echo $(CURDIR)/$(GPU_VENV)/lib/python3*/site-packages/nvidia/cu13/include)"

$(GPU_VENV)/.done: tests/gpu/shim/requirements.txt $(VENV)/.test
	$(PYTHON) -m venv $(GPU_VENV)
	$(call sees,$(GPU_VENV),$(VENV))
	$(call install,$(GPU_VENV),$<,ONNX Runtime with CUDA)
	@touch $@

$(GPU_VENV)/.rtx: tests/gpu/graph/requirements.txt $(GPU_VENV)/.done
	$(call install,$(GPU_VENV),$<,TensorRT for RTX)
	@touch $@

$(GPU_VENV)/.cuda: tests/gpu/acceptance/requirements.txt $(GPU_VENV)/.done
	$(call install,$(GPU_VENV),$<,CUDA)
	@touch $@

# Its wheels come from NVIDIA's own index, which not every network reaches. The acceptance then says what it skipped.
$(GPU_VENV)/.tensorrt: tests/gpu/acceptance/requirements-tensorrt.txt $(GPU_VENV)/.cuda
	-$(call install,$(GPU_VENV),$<,TensorRT)
	@touch $@

# nv-embed-mini-TARGET-PRECISION-POOLER
$(GPU_MODELS)/nv-embed-mini-%/nvembed.json: $(MINI)/config.json $(MINI)/model.safetensors $(EXPORTER) | venv
	@mkdir -p $(GPU_MODELS)
	$(BIN)/nvembed-export $(MINI) $(@D) $(call form_options,$*) --no-golden --force --quiet

# Two of 32 layers at the full model's widths, random weights, fp16, for each of GPU_WIDE. The checkpoint, 2.6 GB, is not kept.
$(GPU_MODELS)/7b-widths.done: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py $(EXPORTER) | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(GPU_MODELS)/checkpoint
	$(BIN)/python export/tools/random_checkpoint.py $(GPU_MODELS)/checkpoint --layers 2
	$(foreach target,$(GPU_WIDE),$(BIN)/nvembed-export $(GPU_MODELS)/checkpoint \
	    $(GPU_MODELS)/7b-widths-$(target)-fp16-fused --target $(target) --no-golden --force --quiet &&) rm -rf $(GPU_MODELS)/checkpoint
	@touch $@

# For the acceptance, whose models have golden embeddings.
$(GPU_MODELS)/outliers/config.json: tests/gpu/acceptance/outliers.py export/tests/seeded_checkpoint.py | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(@D)
	$(BIN)/python $< $(@D)

$(GPU_MODELS)/wide-%/config.json: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(@D)
	$(BIN)/python export/tools/random_checkpoint.py $(@D) --layers $*

# $(call acceptance_model,CHECKPOINT): a rule for CHECKPOINT-FORM.
define acceptance_model
$(GPU_MODELS)/$(1)-%/nvembed.json: $(GPU_MODELS)/$(1)/config.json $(EXPORTER) | venv
	$(BIN)/nvembed-export $(GPU_MODELS)/$(1) $$(@D) --precision $$(lastword $$(subst -, ,$$*)) \
	    --target $$(or $$(filter cuda tensorrt,$$(firstword $$(subst -, ,$$*))),any) --force --quiet
endef
$(foreach checkpoint,outliers $(LAYERS:%=wide-%),$(eval $(call acceptance_model,$(checkpoint))))
