#!/bin/sh
# Every test that needs a real cluster, on the lab that is up: test-cluster.sh LAB
# The lab is taken down and brought up again once, to see what `lab down` leaves behind.
set -eu

lab=$(realpath "$1")
KUBECONFIG=$("$lab" kubeconfig)
CONFORMANCE_TEST_CLUSTER=lab
export KUBECONFIG CONFORMANCE_TEST_CLUSTER

# One test binary at a time, and one test at a time within it: each has the cluster's two cores to itself.
cargo test --workspace --locked --test 'cluster*' -- --ignored --test-threads=1
(cd fixtures && LAB_E2E=1 LAB_BINARY="$lab" go test -count=1 -timeout 15m ./lab/e2e/...)
