#!/bin/sh
# Makes a tenant's namespace: create-tenant-namespace.sh --tenant-id=acme-corp
# For runbooks that call it by this name. Everything is done by `provisioner apply`, to which all arguments go; its log goes to
# stdout here.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

if command -v provisioner >/dev/null 2>&1; then
    provisioner=provisioner
elif [ -x "$root/target/release/provisioner" ]; then
    provisioner=$root/target/release/provisioner
elif [ -x "$root/target/debug/provisioner" ]; then
    provisioner=$root/target/debug/provisioner
else
    echo "error: find provisioner: it is not in PATH and not built" >&2
    echo "hint: cargo build --release -p provisioner" >&2
    exit 1
fi

exec "$provisioner" apply "$@" 2>&1
