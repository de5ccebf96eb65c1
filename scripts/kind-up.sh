#!/bin/sh
# Makes the kind cluster of kind-config.yaml, unless it is there, and loads an image archive into it: kind-up.sh CONFIG ARCHIVE
set -eu

config=$1
archive=$2
name=ai-agents

for program in docker kind; do
	if ! command -v "$program" >/dev/null 2>&1; then
		echo "error: $program not found, expected Docker and kind" >&2
		echo "hint: install them (https://kind.sigs.k8s.io), or use the lab, which needs neither: make demo" >&2
		exit 1
	fi
done
if ! docker info >/dev/null 2>&1; then
	echo "error: no Docker Engine answers" >&2
	echo "hint: start it, or use the lab, which needs none: make demo" >&2
	exit 1
fi
if ! kind get clusters 2>/dev/null | grep -qx "$name"; then
	kind create cluster --config "$config" --wait 120s
fi
kind load image-archive "$archive" --name "$name"
