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
WIDE := fp32 fp16 bf16 cuda-fp16 cuda-int8 cuda-int4
HAS_GPU := $(shell command -v nvidia-smi)

.PHONY: test-gpu test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b gpu-acceptance cuda-shim

ifeq ($(shell uname -sm),Linux x86_64)
test-gpu: cuda-shim models ## The runtime's GPU path on stand-ins for the CUDA libraries
	NVEMBED_REQUIRE_SHIM=1 cargo test --locked -p nvembed --lib --test gpu -- provider:: runs:: failures:: graphs:: packed::
	NVEMBED_REQUIRE_SHIM=1 cargo test --locked -p nvembed-cli --test cli gpu::
	cargo build --locked --quiet -p nvembed-cli
	$(GPU_VENV)/bin/python tests/gpu/acceptance/acceptance.py --nvembed $(TARGET)/debug/nvembed --library $(GPU_LIBRARY) \
	    --shim build/cuda-shim --out build/gpu-acceptance/shim.md --batch 1,8 --length 16,32

test-gpu-graph: test-gpu-graph-mini test-gpu-graph-7b ## Exported graphs against CUDA's and TensorRT's libraries, without a GPU

test-gpu-graph-mini: $(GPU_VENV)/.rtx cuda-shim $(GPU_MINI) ## The same with the mini model only
	cargo build --locked --quiet -p nvembed-cli
	$(GPU_VENV)/bin/python -m pytest tests/gpu/graph -q -m 'not full_width'

test-gpu-graph-7b: $(GPU_VENV)/.rtx cuda-shim $(GPU_MODELS)/7b-widths.done ## The same at the 7B widths only
	cargo build --locked --quiet -p nvembed-cli
	$(GPU_VENV)/bin/python -m pytest tests/gpu/graph -q -m full_width
else
test-gpu test-gpu-graph test-gpu-graph-mini test-gpu-graph-7b:
	@echo 'SKIPPED $@: onnxruntime-gpu and tensorrt-rtx are tested on x86-64 Linux, and this is $(shell uname -sm)'
endif

# Without a GPU it runs on the shim, as far as that means anything.
ifneq ($(HAS_GPU),)
ACCEPTANCE_NEEDS := $(GPU_VENV)/.cuda $(WIDE:%=$(GPU_MODELS)/wide-%/nvembed.json)
else
ACCEPTANCE_NEEDS := cuda-shim
endif
gpu-acceptance: $(GPU_VENV)/.done models release $(ACCEPTANCE_NEEDS) ## Parity, CUDA graphs and speed on this machine's GPU, in one report
	$(GPU_VENV)/bin/python tests/gpu/acceptance/acceptance.py --nvembed $(TARGET)/release/nvembed --library $(GPU_LIBRARY) \
	    $(if $(HAS_GPU),,--shim build/cuda-shim)

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
	$(call install,$(GPU_VENV),$<,CUDA and TensorRT)
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

# The same for the acceptance, in more precisions: 12 GB.
$(GPU_MODELS)/wide-checkpoint/config.json: export/tools/random_checkpoint.py export/tests/seeded_checkpoint.py | venv
	@mkdir -p $(GPU_MODELS)
	rm -rf $(@D)
	$(BIN)/python export/tools/random_checkpoint.py $(@D) --layers 2

$(GPU_MODELS)/wide-%/nvembed.json: $(GPU_MODELS)/wide-checkpoint/config.json $(EXPORTER) | venv
	$(BIN)/nvembed-export $(GPU_MODELS)/wide-checkpoint $(@D) --precision $(lastword $(subst -, ,$*)) \
	    $(if $(filter cuda-%,$*),--target cuda) --no-golden --force --quiet
