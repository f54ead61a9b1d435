# The commands of this repository. `make` alone lists them.

RANKS  ?= 2
CORPUS ?=
# Embeddings of a whole crawl take minutes to hours: configs/similarity.toml has them.
CONFIG ?= configs/$(if $(CORPUS),full-corpus,sample).toml

BINARY  := target/release/stratigraph
# Results of different corpora do not share a directory.
OUT     ?= results/demo$(if $(CORPUS),-$(firstword $(subst ., ,$(notdir $(CORPUS:/=)))))
# In the foreground Ctrl-C reaches the tests; elsewhere the limit ends all of them, not only cargo.
TIMEOUT := timeout --kill-after=30 $(if $(CI),,--foreground)

# OpenMPI: more ranks than cores are welcome, and threads are placed by the program, not by mpirun.
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_hwloc_base_binding_policy := none
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: help setup setup-test build demo reference test bench lint clean

help:
	@echo 'make demo [CORPUS=PATH] [RANKS=2]  the whole chain on the sample, or on the corpus at PATH'
	@echo 'make test                          all tests'
	@echo 'make reference                     results/reference anew, after a deliberate change of results'
	@echo 'make bench                         side by side with Python: the ratios'
	@echo 'make lint                          format, clippy, documentation'
	@echo 'make setup                         install what is missing to build (the others do it too)'
	@echo 'make clean                         remove what was built (results stay)'

setup:
	@.ci/setup.sh build

setup-test:
	@.ci/setup.sh test

build: setup
	cargo build --release --locked

demo: build
	mpirun -n $(RANKS) $(BINARY) run $(CONFIG) $(if $(CORPUS),--source '$(CORPUS)') --out '$(OUT)'

reference: build
	@rm -rf target/reference
	$(BINARY) --quiet run configs/sample.toml --out target/reference
	@mkdir -p results/reference
	cp target/reference/summary.txt target/reference/summary.json results/reference/

# The limit is for a hang, not a target; single tests have limits of their own.
test: setup-test
	$(TIMEOUT) 2700 cargo test --release --locked --no-fail-fast

bench: setup-test
	cargo build --release --locked
	benches/run.sh

lint: setup
	cargo fmt --check
	cargo clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --release --locked --no-deps

clean:
	cargo clean
