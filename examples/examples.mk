# The examples that need packages of their own: stores of vectors, and engines for many machines. Slow, so not part of `make test`.

STORES_VENV := .venv-stores
CLUSTERS_VENV := .venv-clusters
NVEMBED_DEBUG := $(abspath $(TARGET))/debug/nvembed

.PHONY: test-stores test-clusters

test-stores: $(STORES_VENV)/.done models ## Every vector store of docs/guides/stores.md finds what exact search finds, 2 minutes
	$(BUILD)
	NVEMBED=$(NVEMBED_DEBUG) VIRTUAL_ENV=$(abspath $(VENV)) $(STORES_VENV)/bin/python -m pytest examples/stores -q

# sqlite-vec needs a Python whose sqlite3 loads extensions, which Debian's is.
$(STORES_VENV)/.done: examples/stores/requirements.txt | prerequisites
	$$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || echo $(PYTHON)) -m venv $(STORES_VENV)
	$(call install,$(STORES_VENV),$<,the vector stores)
	@touch $@

test-clusters: $(CLUSTERS_VENV)/.done models python-package ## Ray, Daft and the Kubernetes manifest give what one process gives, 3 minutes
	$(BUILD)
	NVEMBED=$(NVEMBED_DEBUG) VIRTUAL_ENV=$(abspath $(VENV)) PYTHONPATH=$(abspath build/python) \
	    $(CLUSTERS_VENV)/bin/python -m pytest examples/clusters -q

$(CLUSTERS_VENV)/.done: examples/clusters/requirements.txt | prerequisites
	$(PYTHON) -m venv $(CLUSTERS_VENV)
	$(call install,$(CLUSTERS_VENV),$<,Ray and Daft)
	@touch $@
