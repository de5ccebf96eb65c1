#!/bin/sh
# Names what a fresh machine lacks, and where to get it. Installs nothing.
set -eu

missing=0
lacks() { # expected, seen, remedy
	echo "error: expected $1, found $2" >&2
	echo "hint: $3" >&2
	missing=1
}

at_least() { # wanted, found: both MAJOR.MINOR
	[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

need() { # name, wanted version, found version, remedy
	if [ -z "$3" ]; then
		lacks "$1 $2 or later" "none" "$4"
	elif ! at_least "$2" "$3"; then
		lacks "$1 $2 or later" "$3" "$4"
	fi
}

version() { # text with a version in it
	printf '%s' "$1" | sed -n 's/^[^0-9]*\([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p' | head -n 1
}

need Rust 1.95 "$(version "$(rustc --version 2>/dev/null || true)")" "install it with rustup (https://rustup.rs): rustup toolchain install 1.95"
need Go 1.25 "$(version "$(go version 2>/dev/null || true)")" "install it from https://go.dev/dl, and put its bin directory on PATH"
for part in fmt clippy; do
	cargo "$part" --version >/dev/null 2>&1 || lacks "cargo $part" "none" "rustup component add rustfmt clippy"
done
command -v cc >/dev/null 2>&1 || lacks "a C compiler, which Rust links with" "none" "apt-get install gcc libc6-dev"
exit "$missing"
