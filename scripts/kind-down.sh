#!/bin/sh
# Takes away all that kind-up.sh has made: kind-down.sh
set -eu

kind delete cluster --name ai-agents
docker rm --force ai-agents-internet >/dev/null 2>&1 || true
docker image rm ai-agents.local/probe:1 >/dev/null 2>&1 || true
