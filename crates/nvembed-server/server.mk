# The server against the clients of others. Included by the Makefile at the top, whose variables it uses; paths are relative to
# the repository. Not part of `make test`: the clients are 700 MB.

.PHONY: test-clients

CLIENTS := crates/nvembed-server/tests/clients

test-clients: models .venv-clients/.done build/clients-node/.done ## nvembed serve against the clients of OpenAI, NIM, TEI and Cohere
	$(BUILD)
	.venv-clients/bin/python $(CLIENTS)/clients.py --nvembed $(TARGET)/debug/nvembed --model $(MODELS)/nv-embed-mini-fp32 \
	    --require all $(ARGUMENTS)

.venv-clients/.done: $(CLIENTS)/requirements.txt | prerequisites
	$(PYTHON) -m venv .venv-clients
	$(call install,.venv-clients,$<,the clients,--no-deps)
	@touch $@

# npm must be there; what it installs is pinned and checked by the lock file.
build/clients-node/.done: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	mkdir -p $(@D) && cp $^ $(@D) && npm ci --prefix $(@D) --no-audit --no-fund
	@touch $@
