# What one does here. `make` alone lists it.
#
# Each task installs what it needs and this machine lacks, and says so first: see .ci/setup.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-all check fuzz release bench bench-guard bench-node fmt clean

# The debug build: a newcomer sees Bowline within minutes of a clone, while the release build optimises the whole
# program at once and takes several times as long. Libraries are optimised either way. `make demo RELEASE=1` for speed.
BUILD := $(if $(RELEASE),--release)
TARGET := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET)/$(if $(RELEASE),release,debug)/bowline
# The benchmark's own load generator, a package apart.
LOAD := --manifest-path bench/load/Cargo.toml --target-dir $(TARGET)/load
# The program as it is installed.
SHIPPED := $(TARGET)/shipped/bowline
# And the fuzzer.
FUZZ := --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
MACHINE ?= $(shell uname -m)-$(shell nproc)-cores

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: export BOWLINE_DEMO_PYTHON ?= $(CURDIR)/.venv/bin/python
demo: ## build, and show packages and real Shiny apps: R=1 for R too, ARGS="--nodes 3" for more
	@.ci/setup demo $(if $(filter 1,$(R)),R=1)
	cargo build $(BUILD) --bin bowline
	@exec $(BINARY) demo $(ARGS)

test: ## build and run all tests; the last line sums up
	@.ci/setup test
	@.ci/test

test-all: check test ## checks, then all tests, the long ones too: half an hour more
	@.ci/setup test-all
	@.ci/test long

check: ## formatting, lints, documentation links; licences and sources where cargo-deny is installed
	cargo fmt --check
	cargo fmt --check --manifest-path bench/load/Cargo.toml
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets $(LOAD) -- -D warnings
	cargo clippy --all-targets $(FUZZ) -- -D warnings
	cargo doc --no-deps --document-private-items --quiet
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny check bans licenses sources; \
	else \
		echo 'cargo-deny is not installed: licences and sources are not checked'; \
	fi

fuzz: ## demand the same of the proxy on every way through it, for valid bytes and hostile: ARGS="--minutes 30 --seed 7"
	cargo build $(BUILD) --bin bowline
	cargo test --release --quiet $(FUZZ)
	cargo build --release $(FUZZ)
	$(TARGET)/fuzz/release/fuzz --bowline $(BINARY) --cases fuzz/cases --out $(TARGET)/fuzz/findings $(ARGS)

release: ## build the program to install, optimised by a profile of its own work: target/shipped/bowline
	@.ci/setup release
	cargo build --release $(LOAD)
	@bench/release.sh $(TARGET) $(TARGET)/load/release/load

bench: ## measure against nginx, HAProxy and Envoy; results go to bench/runs/; ARGS=--quick to see it run
	@.ci/setup bench
	@$(MAKE) --no-print-directory release
	python3 bench/macro/run.py --bowline $(SHIPPED) --load $(TARGET)/load/release/load \
		--out bench/runs/$(shell date +%F)-$(MACHINE) $(ARGS)

bench-guard: ## count instructions and compare them with those in bench/guard.json; ARGS=--record records them
	@.ci/setup bench-guard
	cargo build --release --bin bowline
	cargo build --release $(LOAD)
	python3 bench/guard.py --bowline $(TARGET)/release/bowline --load $(TARGET)/load/release/load $(ARGS)

bench-node: ## measure a node against other package servers, installs a day, content; to bench/runs/ too
	@.ci/setup bench-node
	@$(MAKE) --no-print-directory release
	python3 bench/node/run.py --bowline $(SHIPPED) --venv .venv-bench \
		--out bench/runs/$(shell date +%F)-$(MACHINE)-node $(ARGS)

fmt: ## format the source
	cargo fmt
	cargo fmt --manifest-path bench/load/Cargo.toml
	cargo fmt --manifest-path fuzz/Cargo.toml

clean: ## remove what was built, the .venv folders and node_modules
	cargo clean
	rm -rf .venv .venv-clients .venv-bench node_modules .cache
