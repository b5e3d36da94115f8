# The Python package. Included by the Makefile at the top, whose variables it uses; paths are relative to the repository.

PACKAGE := crates/nvembed-python
WHEEL_VENV := .venv-wheel

.PHONY: wheel test-python python-package test-wheel

# What a wheel would install, without one: the package and the module of the development profile.
python-package: prerequisites
	$(BUILD)
	@rm -rf build/python && mkdir -p build/python
	@cp -rL $(PACKAGE)/python/nvembed export/nvembed_export build/python/
	@cp $(TARGET)/debug/lib_nvembed.so build/python/nvembed/_nvembed.abi3.so

test-python: venv-test models python-package ## The Python package, against the program
	PYTHONPATH=build/python $(BIN)/python -m pytest $(PACKAGE)/tests -q -rs -m 'not wheel'

# The exporter is another folder's package, and maturin takes packages from one folder: so both are put into one.
wheel: $(WHEEL_VENV)/.done ## build/wheel/nvembed-*.whl, optimized
	@rm -rf build/wheel build/wheel-source && mkdir -p build/wheel-source/python
	@cp -r $(PACKAGE)/README.md build/wheel-source
	@cp -r $(PACKAGE)/python/nvembed export/nvembed_export build/wheel-source/python
	@sed 's#^\[tool.maturin\]#&\nmanifest-path = "../../$(PACKAGE)/Cargo.toml"#' $(PACKAGE)/pyproject.toml >build/wheel-source/pyproject.toml
	cd build/wheel-source && $(abspath $(WHEEL_VENV))/bin/maturin build --locked --release -o ../wheel

# In an environment of its own, with what the other Pythons and the frameworks need; not part of `make test`.
test-wheel: wheel models ## The wheel, installed; its stubs, MTEB, LangChain, sentence-transformers
	$(WHEEL_VENV)/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps build/wheel/nvembed-*.whl
	$(BUILD)
	$(WHEEL_VENV)/bin/python -m pytest $(PACKAGE)/tests -q -rs -o asyncio_mode=auto
	$(WHEEL_VENV)/bin/python -m mypy.stubtest nvembed._nvembed

$(WHEEL_VENV)/.done: $(PACKAGE)/requirements-wheel.txt | prerequisites
	$(PYTHON) -m venv $(WHEEL_VENV)
	$(call install,$(WHEEL_VENV),$<,what builds and tests the wheel)
	@touch $@
