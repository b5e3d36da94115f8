# What happens in the cases of real users that once went wrong. Included by the Makefile.

.PHONY: faults

faults: release venv $(MODELS)/nv-embed-mini-fp32/nvembed.json ## The cases of real users that once went wrong, as a table
	$(PYTHON) tests/faults/faults.py --nvembed $(TARGET)/release/nvembed --model $(MODELS)/nv-embed-mini-fp32 \
	    --exporter $(BIN)/nvembed-export --checkpoint $(MINI)
