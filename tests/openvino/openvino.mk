# Tests of the OpenVINO provider. Included by the Makefile at the top, whose variables it uses; paths are relative to the repository.

OPENVINO_VENV := .venv-openvino

.PHONY: test-openvino

# The tests of test-rust that are skipped where there is no library.
ifeq ($(shell uname -sm),Linux x86_64)
test-openvino: $(OPENVINO_VENV)/.done models reference ## The OpenVINO provider on this processor
	NVEMBED_REQUIRE_OPENVINO=1 cargo test --locked --workspace --test openvino
	NVEMBED_REQUIRE_OPENVINO=1 cargo test --locked --workspace --test cli openvino::
else
test-openvino:
	@echo 'SKIPPED $@: onnxruntime-openvino is tested on x86-64 Linux, and this is $(shell uname -sm)'
endif

# Its shared libraries are all that is used of the package.
$(OPENVINO_VENV)/.done: tests/openvino/requirements.txt | prerequisites
	$(PYTHON) -m venv $(OPENVINO_VENV)
	$(call install,$(OPENVINO_VENV),$<,ONNX Runtime with OpenVINO,--no-deps)
	@touch $@
