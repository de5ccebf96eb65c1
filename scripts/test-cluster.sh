#!/bin/sh
# Every test that needs a real cluster, on the lab that is up with the shared services: test-cluster.sh LAB ARCHIVE...
# The lab is taken down and brought up again on the way: to see what `lab down` leaves behind, and for a cluster that ignores policies.
set -eu

lab=$(realpath "$1")
shift
KUBECONFIG=$("$lab" kubeconfig)
CONFORMANCE_TEST_CLUSTER=lab
LAB_BINARY=$lab
export KUBECONFIG CONFORMANCE_TEST_CLUSTER LAB_BINARY

# A run mostly waits: for pods, and for packets that are dropped. Three at once fit two cores.
cluster_test() { # test binary, tests at once
	cargo test --workspace --locked --test "$1" -- --ignored --test-threads="${2:-3}"
}

cluster_test cluster
cluster_test cluster_application 2
# The operator guide, word for word.
cluster_test guide 1
# Each is a selftest of its own, with three runs at once.
cluster_test cluster_selftest 1
cargo run --quiet --locked --package conformance -- selftest --cluster lab --junit build/selftest.xml --markdown build/selftest.md
# Each of these disturbs a run on purpose: what else is slow must not.
cluster_test cluster_infrastructure 2
(cd fixtures && LAB_E2E=1 LAB_BINARY="$lab" CGO_ENABLED=0 go test -trimpath -count=1 -timeout 15m ./lab/e2e/...)

"$lab" down
"$lab" up --cni none
"$lab" load-image "$@"
KUBECTL="$lab kubectl" fixtures/shared-services/services.sh up --context lab
cargo run --quiet --locked --package provisioner -- platform apply --context lab --yes
cluster_test cluster_without_policies
"$lab" down
