# The one entry point for people and for CI. `make help` says what there is.

CARGO ?= cargo
# Time that `make soak` gives to each parser.
FUZZ_SECONDS ?= 60
# What the test of traces receives with; pinned, so that it says the same everywhere.
ROTEL ?= 0.0.1a15
# What the test of recordings reads them with.
FPFIND ?= 3.3.6
# What licences, banned crates and sources are checked with.
CARGO_DENY ?= 0.20.2
TOPOLOGY ?= topologies/nice-50km.yaml
# A cluster gets all of Nice, unless another topology is named.
KIND_TOPOLOGY := $(if $(filter command line environment,$(origin TOPOLOGY)),$(TOPOLOGY),topologies/nice.yaml)

.PHONY: help up quick build image test check fmt clippy doc deny chart bench soak verify collector fpfind kind kind-down observe e2e e2e-soak clean

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

up: quick ## run the network of TOPOLOGY on this machine, with a live table
	target/quick/qkdnet up $(TOPOLOGY)

quick: ## the one binary, built in less time and fast where it matters: target/quick/qkdnet
	$(CARGO) build --profile quick --locked --bin qkdnet

build: ## the one binary, target/release/qkdnet
	$(CARGO) build --release --locked --bin qkdnet

image: ## the one image, qkdnet:VERSION and qkdnet:dev, with Docker or Podman
	scripts/image

collector: target/collector/rotel-agent ## an OpenTelemetry collector from PyPI, for the test of traces

# Without PyPI the test that needs them says that it is skipped.
target/collector/rotel-agent:
	@mkdir -p target
	@{ python3 -m venv target/collector && target/collector/bin/pip install --quiet rotel==$(ROTEL) \
	  && cp target/collector/lib/python*/site-packages/rotel/rotel-agent $@; } \
	  || echo "SKIPPED: no collector from PyPI; its test will say so" >&2

fpfind: target/fpfind/bin/fpfind ## a laboratory's program for time tags from PyPI, for the test of recordings

target/fpfind/bin/fpfind:
	@mkdir -p target
	@{ python3 -m venv target/fpfind && target/fpfind/bin/pip install --quiet fpfind==$(FPFIND); } \
	  || { rm -rf target/fpfind; echo "SKIPPED: no fpfind from PyPI; its test will say so" >&2; }

test: collector fpfind ## every test that fits into minutes
	$(CARGO) test --workspace --locked
	$(CARGO) test --manifest-path tests/foreign/Cargo.toml --target-dir target/foreign --locked

check: fmt deny clippy doc ## formatting, lints and documentation, warnings denied; licences and banned crates

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

deny: target/deny/bin/cargo-deny ## licences, banned crates and sources of what is built in: deny.toml
	$< --locked check bans licenses sources

target/deny/bin/cargo-deny:
	$(CARGO) install --debug --quiet --locked --root target/deny cargo-deny@$(CARGO_DENY)

chart: ## lints the Helm chart and checks what it renders to; needs helm
	scripts/chart

kind: ## a testbed on kind: cluster, image, operator, TOPOLOGY with key flowing
	TOPOLOGY=$(KIND_TOPOLOGY) scripts/kind up

kind-down: ## removes that cluster
	scripts/kind down

observe: ## the testbed with a collector: one trace from source to key stores, across pods
	TOPOLOGY=$(KIND_TOPOLOGY) scripts/kind observe

e2e: ## the end-to-end suite on a cluster of its own; report in target/e2e.xml
	scripts/e2e

e2e-soak: ## the same with fifty killed pods
	QKDNET_E2E_ROUNDS=50 scripts/e2e

verify: build ## run TOPOLOGY and print measured beside published
	target/release/qkdnet verify $(TOPOLOGY)

bench: ## one table of what the project must reach, measured on this machine, then criterion's details
	$(CARGO) bench --workspace --locked --bench table
	$(CARGO) bench --locked -p distill -p photonics

soak: ## the long versions of the randomised tests
	QKDNET_SOAK_ATTACKS=1000000 QKDNET_SOAK_RESTORES=1000 $(CARGO) test --release --workspace --locked
	QKDNET_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --release --locked -p qkdnet --test fuzz -- --nocapture
	SOAK_SEEDS=1500 $(CARGO) test --release --locked -p transfer --test network -- --ignored
	KMS_SIMULATION_SEEDS=500 KMS_PUT_BACK_ROUNDS=1000 KMS_KILL_ROUNDS=200 $(CARGO) test --release --locked -p kms --lib simulation
	QKDNET_REPLAY_ROUNDS=200 $(CARGO) test --release --locked -p qkdnet --test suite replay::chance -- --nocapture
	QKDNET_RESTORE_ROUNDS=1000 $(CARGO) test --release --locked -p qkdnet --test suite restore:: -- --nocapture
	QKDNET_CHAOS_KILLS=1000 $(CARGO) test --release --locked -p qkdnet --test suite chaos -- --nocapture

clean: ## what builds and runs leave behind
	$(CARGO) clean
	rm -rf qkdnet-data
