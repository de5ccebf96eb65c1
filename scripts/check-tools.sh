#!/bin/sh
# Names what a fresh machine lacks, and where to get it. Installs nothing.
set -eu

missing=0
need() { # program, expected, remedy
	if ! command -v "$1" >/dev/null 2>&1; then
		echo "error: $1 not found, expected $2" >&2
		echo "hint: $3" >&2
		missing=1
	fi
}

need cargo "Rust 1.95 or later" "install it with rustup: https://rustup.rs"
need go "Go 1.25 or later" "install it from https://go.dev/dl, and put its bin directory on PATH"
need cc "a C compiler, which Rust links with" "apt-get install gcc libc6-dev"
exit "$missing"
