# `make` lists the targets. What they need and the machine lacks is fetched into target/.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(CURDIR)/target
export CARGO_TARGET_DIR := $(TARGET)
# Tools that were installed for this tree alone.
export PATH := $(TARGET)/tools/bin:$(PATH)
WASM := $(TARGET)/latchkey.wasm
# Options for every `cargo test`: make test TEST_OPTIONS=--no-fail-fast
TEST_OPTIONS ?=
# How long each fuzz target runs.
FUZZ_SECONDS ?= 10
# What `make deny` checks; nothing means everything, and the advisories need the network.
DENY ?=
# cargo-deny, with its command and options. `bench` and `fuzz` have few of the dependencies that deny.toml speaks of.
define deny
$(CARGO) deny --locked --workspace --all-features check -A license-exception-not-encountered $(1)
for workspace in bench fuzz; do \
	$(CARGO) deny --locked --manifest-path $$workspace/Cargo.toml --workspace --all-features --config deny.toml check \
		-A unmatched-skip -A unnecessary-skip -A license-not-encountered -A license-exception-not-encountered $(1); \
done
endef

# Each target keeps all cores busy by itself, and tests measure times: `make -j` runs them one after the other as well.
.NOTPARALLEL:

# Property tests try the same cases in every run; `properties` tries others.
export PROPTEST_RNG_SEED ?= 20261130

# Options for latchkey-bench (bench/README.md).
BENCH_OPTIONS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: preflight
preflight: ## Say what this machine lacks for the other targets
	@scripts/preflight.sh demo tests fuzz

# What a target needs is looked for before anything is built.
.PHONY: needs-build needs-tests
needs-build:
	@scripts/preflight.sh

needs-tests:
	@scripts/preflight.sh tests

# With one of the tests, cargo takes the same features of the same dependencies as for all of them: `make demo` and
# `make test` build none of these twice.
.PHONY: build
build: needs-build wasm ## Build the filter, the refresher and the simulated platform
	LATCHKEY_COMMIT=$$(git describe --always --dirty --abbrev=12 2>/dev/null) \
	$(CARGO) build --locked -p refresher -p sim --bins --test program

.PHONY: wasm
wasm: needs-build ## Build the filter: target/latchkey.wasm
	scripts/wasm.sh

.PHONY: envoy
envoy: needs-build ## Find or fetch the pinned Envoy, and print its path
	@scripts/envoy.sh

.PHONY: clients
clients: needs-build ## Install the real clients that the end-to-end tests run
	@scripts/clients.sh

.PHONY: demo
demo: build envoy ## Run Latchkey against a simulated platform and show what it does
	scripts/demo.sh

.PHONY: gateway
gateway: build envoy ## Build all, then run the refresher and Envoy on port 8080 (PORT=…) until Ctrl-C
	@exec scripts/gateway.sh

.PHONY: test
test: needs-tests built unit e2e ## Run every test

# What both build and fetch, at once: else one core waits while the filter is linked, and both for the network. The two
# that follow find it there, and say what is wrong where it is not.
.PHONY: built
built: needs-tests
	$(CARGO) build --locked -p wasm-exports
	scripts/beside.sh 'scripts/envoy.sh && scripts/clients.sh$(if $(filter --,$(TEST_OPTIONS)),, && scripts/envoy.sh oldest)' scripts/wasm.sh \
		'scripts/wasm.sh --fault-injection' '$(CARGO) build --locked --workspace --bins --tests'

.PHONY: unit
unit: needs-build ## Run the tests that need no Envoy
	$(CARGO) test --locked --workspace --exclude it $(TEST_OPTIONS)

# How many cases `properties` tries of each.
PROPERTY_CASES ?= 5000

.PHONY: properties
properties: needs-build ## Try the laws on new random cases (PROPERTY_CASES=…), and say by which seed they come again
	@seed=$$(date +%s%N); echo "PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=$(PROPERTY_CASES)"; \
	PROPTEST_RNG_SEED=$$seed PROPTEST_CASES=$(PROPERTY_CASES) \
	$(CARGO) test --locked --workspace --exclude it --lib $(TEST_OPTIONS)

# The end-to-end tests wait for half of their time, so that two for each core run at once.
E2E_THREADS ?= $(shell echo $$((2 * $$(nproc))))

# The whole workspace is named in both lines: cargo then takes the same features of the same
# dependencies as for the unit tests, and builds none of them twice.
.PHONY: e2e
e2e: needs-tests wasm ## Run the end-to-end tests on the real Envoy, with the real clients
	scripts/wasm.sh --fault-injection
	$(CARGO) build --locked --workspace --bins --tests
	envoy=$$(scripts/envoy.sh) && clients=$$(scripts/clients.sh) && \
	LATCHKEY_ENVOY=$$envoy LATCHKEY_CLIENTS=$$clients LATCHKEY_WASM=$(WASM) \
	LATCHKEY_FAULTY_WASM=$(TARGET)/latchkey-fault-injection.wasm \
	LATCHKEY_REFRESHER=$(TARGET)/debug/refresher LATCHKEY_SIM=$(TARGET)/debug/sim \
	RUST_TEST_THREADS=$(E2E_THREADS) \
	$(CARGO) test --locked --workspace --test it $(TEST_OPTIONS)
	$(if $(filter --,$(TEST_OPTIONS)),,$(MAKE) --no-print-directory smoke)

# What `smoke` and `soak` need beside what the end-to-end tests built.
it_settings = LATCHKEY_WASM=$(WASM) LATCHKEY_FAULTY_WASM=$(TARGET)/latchkey-fault-injection.wasm \
	LATCHKEY_REFRESHER=$(TARGET)/debug/refresher LATCHKEY_SIM=$(TARGET)/debug/sim

.PHONY: smoke
smoke: needs-tests wasm ## Run a few end-to-end tests on the oldest Envoy that is supported
	$(CARGO) build --locked --workspace --bins --tests
	envoy=$$(scripts/envoy.sh oldest) && LATCHKEY_ENVOY=$$envoy $(it_settings) \
	$(CARGO) test --locked --workspace --test it $(TEST_OPTIONS) -- smoke::

.PHONY: compose-test
compose-test: ## Run the containers of envoy/docker-compose*.yaml on a Docker engine, and try them
	@docker info >/dev/null 2>&1 || { echo "compose-test: no Docker engine answers; start one, or, as root on Debian:" \
		'eval "$$(tests/compose/engine.sh start)"' >&2; exit 1; }
	python3 tests/compose

# How long `soak` loads.
SOAK_SECONDS ?= 840

.PHONY: soak
soak: needs-tests wasm ## Load with faults and kills for 14 minutes (SOAK_SECONDS=…), and compare the counts
	$(CARGO) build --locked --workspace --bins --tests
	envoy=$$(scripts/envoy.sh) && LATCHKEY_ENVOY=$$envoy $(it_settings) SOAK_SECONDS=$(SOAK_SECONDS) \
	$(CARGO) test --locked --workspace --test it -- --ignored --nocapture soak::

# They are ignored otherwise: what they repeat the other tests do a few times.
.PHONY: long
long: needs-tests ## Run the tests that repeat or take long, in 25 minutes
	$(MAKE) --no-print-directory unit e2e TEST_OPTIONS='-- --ignored long::'

.PHONY: lint
lint: needs-build ## Check the format, clippy for the host and for wasm, and the dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@# These are no members of the workspace.
	for aside in fuzz bench; do \
		$(CARGO) clippy --locked --manifest-path $$aside/Cargo.toml --all-targets -- -D warnings || exit 1; done
	scripts/wasm-target.sh
	$(CARGO) clippy --locked --target wasm32-unknown-unknown -p latchkey --lib -- -D warnings \
		-D clippy::disallowed_methods -D clippy::disallowed_macros
	@# The advisories need the network: they are in `make deny` alone.
	@if command -v cargo-deny >/dev/null; then $(MAKE) --no-print-directory deny DENY='bans licenses sources'; \
	else echo "lint: no cargo-deny, dependencies not checked; run" \
		"'cargo install --locked cargo-deny --root target/tools'"; fi

.PHONY: deny
deny: ## Check licences, advisories and bans of the dependencies
	$(call deny,$(DENY))

.PHONY: docs
docs: needs-build ## Write docs/cli.md, docs/terms.md and docs/status.svg from the code
	LATCHKEY_WRITE_DOCS=1 $(CARGO) test --locked --quiet -p refresher --lib -- \
		cli::reference::the_reference_is_current cli::terms_page::the_page_of_terms_is_current \
		cli::golden::the_picture_of_status_is_current

.PHONY: demo-picture
demo-picture: needs-tests ## Write docs/demo.svg from a run of the demo
	LATCHKEY_WRITE_DOCS=1 $(MAKE) --no-print-directory e2e TEST_OPTIONS='-- demo::the_demo_shows'

.PHONY: fuzz
fuzz: ## Fuzz what the filter reads of strangers, 10 seconds a target (FUZZ_SECONDS=…)
	scripts/fuzz.sh $(FUZZ_SECONDS)

.PHONY: bench
bench: wasm envoy ## Measure what the filter costs, in 7 minutes (BENCH_OPTIONS=--quick: half a minute)
	scripts/wasm.sh --without-metering
	scripts/wasm.sh --without-verdicts
	scripts/count-hostcalls.py $(WASM) $(TARGET)/latchkey-counting.wasm
	envoy=$$(scripts/envoy.sh) && \
	LATCHKEY_COUNTING_WASM=$(TARGET)/latchkey-counting.wasm \
	LATCHKEY_WITHOUT_METERING_WASM=$(TARGET)/latchkey-without-metering.wasm \
	LATCHKEY_WITHOUT_VERDICTS_WASM=$(TARGET)/latchkey-without-verdicts.wasm \
	$(CARGO) run --quiet --locked --release --manifest-path bench/Cargo.toml -- \
		--envoy "$$envoy" --wasm $(WASM) $(BENCH_OPTIONS)

# What a request costs the filter itself, in instructions of native code: the same on a busy machine.
.PHONY: bench-native
bench-native: needs-build ## Count the filter's own instructions for 200 requests of each kind (needs valgrind)
	@command -v valgrind >/dev/null || { echo "bench-native: no valgrind" >&2; exit 1; }
	@for kind in json sse; do printf '%s: ' $$kind; \
	CARGO_PROFILE_DAEMON_STRIP=none CARGO_PROFILE_DAEMON_DEBUG=line-tables-only $(CARGO) test --locked --quiet \
		--profile daemon -p latchkey --lib \
		--config 'target."cfg(unix)".runner = ["valgrind", "--tool=callgrind", "--callgrind-out-file=$(TARGET)/callgrind.'$$kind'", "--toggle-collect=*stream*Turns*::on", "--toggle-collect=*stream*Turns*::end"]' \
		-- --exact --ignored stream::tests::cost::$$kind 2>&1 | sed -n 's/.*Collected : //p'; done

.PHONY: bench-refresher
bench-refresher: needs-build ## Measure how long new tokens are in memory alone, and what a recorded request costs
	$(CARGO) bench --locked --quiet -p refresher --profile daemon --bench window --bench ingest

.PHONY: bench-scan
bench-scan: needs-build ## Measure what hostile bytes cost the filter's readers, in a minute
	$(CARGO) bench --locked --quiet -p latchkey --bench scan

.PHONY: clean
clean: ## Remove everything that was built or fetched
	rm -rf target .cargo/config.toml
