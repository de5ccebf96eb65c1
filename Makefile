# `make demo` shows the product on a real cluster, `make test` runs every test. Both set up what they need on a fresh Debian 12 machine
# with Rust and Go; what is slow to build is cached outside the work tree.

CLUSTER ?= lab
JUNIT ?= build/junit.xml

# Where tools and the lab's components are kept between runs.
export LAB_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ai-agents-lab
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(LAB_CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

LAB := build/lab
IMAGES := $(patsubst %,build/%.tar,probe enhancer ticketdesk postgresql redis nginx)
SERVICES := fixtures/shared-services/services.sh
# Where cargo builds; CI names a directory that outlives the work tree.
export CARGO_TARGET_DIR ?= $(CURDIR)/target
CONFORMANCE := $(CARGO_TARGET_DIR)/debug/conformance
PROVISIONER := $(CARGO_TARGET_DIR)/debug/provisioner

# As the lab builds its components, so that what they have in common is compiled once.
GO := CGO_ENABLED=0 go
GOBUILD := -trimpath

.PHONY: demo demo-down test lint test-unit test-docker test-cluster lab-up services-up lab-down tools build clean FORCE

demo: demo-$(CLUSTER)

## The lab, or kind where it is at hand, with the verdict at the end.
demo-lab: services-up
	mkdir -p $(dir $(JUNIT))
	KUBECONFIG="$$($(LAB) kubeconfig)" $(CONFORMANCE) run --cluster lab --junit $(JUNIT)
	@echo "JUnit: $(JUNIT). The lab is still up: $(LAB) kubectl get pods -A; end it with: make demo-down"

demo-kind: build $(IMAGES)
	scripts/kind-up.sh kind-config.yaml $(IMAGES)
	$(SERVICES) up --context kind-ai-agents
	$(PROVISIONER) platform apply --context kind-ai-agents --yes
	mkdir -p $(dir $(JUNIT))
	$(CONFORMANCE) run --cluster kind-ai-agents --junit $(JUNIT)
	@echo "JUnit: $(JUNIT). The cluster is still up: kubectl --context kind-ai-agents get pods -A; end it with: make demo-down CLUSTER=kind"

demo-down: demo-down-$(CLUSTER)

demo-down-lab:
	if [ -x $(LAB) ]; then $(LAB) down; fi

demo-down-kind:
	scripts/kind-down.sh

## Everything CI runs.
test: lint test-unit test-docker test-cluster

lint: tools $(CARGO_DENY)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features enhancer/docker-tests --locked -- -D warnings
	$(CARGO_DENY) check --hide-inclusion-graph bans licenses sources
	@cd fixtures && unformatted=$$(gofmt -l .) && if [ -n "$$unformatted" ]; then echo "error: not formatted: $$unformatted" >&2; echo "hint: gofmt -w fixtures" >&2; exit 1; fi
	cd fixtures && $(GO) vet $(GOBUILD) ./...

test-unit: tools
	INSTA_UPDATE=no cargo test --workspace --locked
	cd fixtures && $(GO) test $(GOBUILD) ./...

## Tests of the application against PostgreSQL and Redis in containers. Where no engine answers, one runs for as long as they do.
test-docker: tools build/postgresql.tar build/redis.tar
	scripts/test-docker.sh build/postgresql.tar build/redis.tar

## Tests on a real cluster. Asked for a cluster and none found, they fail.
test-cluster: services-up
	scripts/test-cluster.sh $(LAB) $(IMAGES)

## A lab that was up already gets the images as they are now.
lab-up: $(LAB) $(IMAGES)
	$(LAB) deps
	$(LAB) build
	$(LAB) up
	$(LAB) load-image $(IMAGES)

## PostgreSQL, Redis and the ingress, which tenants share, on the lab.
services-up: build lab-up
	KUBECTL="$(LAB) kubectl" $(SERVICES) up --context lab
	KUBECONFIG="$$($(LAB) kubeconfig)" $(PROVISIONER) platform apply --context lab --yes

lab-down:
	$(LAB) down

tools:
	@scripts/check-tools.sh

build: tools
	cargo build --workspace --locked

$(LAB): tools FORCE
	cd fixtures && $(GO) build $(GOBUILD) -o ../$@ ./lab

$(IMAGES): tools FORCE
	mkdir -p $(@D)
	cd fixtures && $(GO) run $(GOBUILD) ./images/cmd/images build $(basename $(@F)) -o ../$@

$(CARGO_DENY):
	cargo install --locked cargo-deny@$(CARGO_DENY_VERSION) --root $(LAB_CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)

clean:
	rm -rf build target generated

FORCE:
