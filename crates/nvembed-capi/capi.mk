# The C and C++ libraries. Included by the Makefile at the top, whose variables it uses; paths are relative to the repository.

.PHONY: install install-for-tests header test-c-api fuzz-c-api

CAPI := crates/nvembed-capi

install: prerequisites ## The libraries for C and C++, under PREFIX (/usr/local)
	@$(MAKE) --no-print-directory -C $(CAPI)/packaging install PREFIX='$(abspath $(PREFIX))' DESTDIR='$(DESTDIR)'

header: ## Write nvembed.h from the sources
	NVEMBED_WRITE_HEADER=1 cargo test --locked --quiet --workspace --test header

test-c-api: venv-test models install-for-tests ## The C and C++ libraries, as programs use them; says what is SKIPPED for want of a tool
	$(BIN)/python -m pytest $(CAPI)/tests -q -rs

SECONDS ?= 600
fuzz-c-api: venv-test models install-for-tests ## Random calls of the C interface for SECONDS=600; NVEMBED_FUZZ_SEED=N repeats a run
	NVEMBED_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest $(CAPI)/tests/test_programs.py -k random_calls -q -rs -s

install-for-tests: prerequisites
	@rm -rf build/capi/prefix && mkdir -p build/capi
	@$(MAKE) --no-print-directory -C $(CAPI)/packaging install PROFILE=dev PREFIX='$(CURDIR)/build/capi/prefix' DESTDIR= \
	    >build/capi/install.log 2>&1 || { cat build/capi/install.log; exit 1; }
	$(BUILD)
