#!/bin/sh
# Tests of the application against PostgreSQL and Redis in containers: test-docker.sh [ARCHIVE...]
# Archives of images are loaded first, those of PostgreSQL and Redis are then used instead of the official images. Where no engine
# answers at DOCKER_HOST or the usual socket, one of Debian's runs for as long as the tests do: with its processes, network and mounts in
# namespaces of its own, so that all of it ends with the first of these processes.
set -eu

tests() {
	cargo test --workspace --locked --features enhancer/docker-tests --test docker "$@"
}

load() { # archives
	for archive in "$@"; do
		if [ ! -f "$archive" ]; then
			continue
		fi
		image=$(docker load --quiet --input "$archive" | sed -n 's/^Loaded image: //p')
		case $image in
		*/postgresql:*) export POSTGRESQL_IMAGE="$image" ;;
		*/redis:*) export REDIS_IMAGE="$image" ;;
		esac
		loaded="$loaded $image"
	done
}

# with_engine_of_ours runs as the first process in the new namespaces.
with_engine_of_ours() { # directory, archives
	directory=$1
	shift
	trap 'exit 143' TERM
	trap 'exit 130' INT
	ip link set lo up
	# The engine leaves a key there.
	if [ -d /etc/docker ]; then
		mount -t tmpfs none /etc/docker
	fi
	export DOCKER_HOST="unix://$directory/docker.sock"
	dockerd --host "$DOCKER_HOST" --data-root "$directory/data" --exec-root "$directory/run" --pidfile "$directory/dockerd.pid" \
		--cgroup-parent "/$(basename "$directory")" >"$directory/dockerd.log" 2>&1 &
	engine=$!
	waited=0
	until docker info >/dev/null 2>&1; do
		if ! kill -0 "$engine" 2>/dev/null || [ "$waited" -ge 300 ]; then
			echo "error: expected dockerd to answer within 30 s, it does not; the end of its log:" >&2
			tail -n 20 "$directory/dockerd.log" >&2
			echo "hint: name an engine that runs in DOCKER_HOST" >&2
			exit 1
		fi
		waited=$((waited + 1))
		sleep 0.1
	done
	load "$@"
	# In the background, so that a signal is heard at once.
	tests &
	wait $!
}

# take_away ends the engine and all that it runs, and removes what it kept. Called however this script ends.
take_away() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$namespaces" ] && [ -d "/proc/$namespaces" ]; then
		# With the first process in them the kernel ends all others.
		first=$(cat "/proc/$namespaces/task/$namespaces/children")
		kill -TERM "$first" 2>/dev/null || true
		waited=0
		while [ -d "/proc/$namespaces" ] && [ "$waited" -lt 50 ]; do
			waited=$((waited + 1))
			sleep 0.1
		done
		if [ -d "/proc/$namespaces" ]; then
			kill -KILL "$first" 2>/dev/null || true
		fi
		wait "$namespaces" 2>/dev/null || true
	fi
	if [ -n "$directory" ]; then
		rm -rf "$directory"
		for group in /sys/fs/cgroup/"$(basename "$directory")" /sys/fs/cgroup/*/"$(basename "$directory")"; do
			if [ -d "$group" ]; then
				find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || echo "warning: expected to remove $group, it is in use" >&2
			fi
		done
	fi
	exit "$status"
}

install_engine() {
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "error: expected a Docker Engine at DOCKER_HOST or the usual socket, or apt-get to install one with; found neither" >&2
		echo "hint: install Docker (https://docs.docker.com/engine/install) and start it" >&2
		exit 1
	fi
	echo "installing Debian's docker.io; its service is not started" >&2
	policy=/usr/sbin/policy-rc.d
	made=
	if [ ! -e "$policy" ]; then
		made=1
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	install='apt-get install --yes --quiet --no-install-recommends docker.io iproute2'
	export DEBIAN_FRONTEND=noninteractive
	status=0
	$install >&2 || { apt-get update >&2 && $install >&2; } || status=$?
	if [ -n "$made" ]; then
		rm "$policy"
	fi
	if [ "$status" -ne 0 ]; then
		echo "error: expected apt-get to install docker.io, it ended with exit code $status" >&2
		echo "hint: see above; with a Docker Engine that runs already nothing is installed" >&2
		exit 1
	fi
}

namespaces=
directory=
loaded=

if [ "${1:-}" = --in-namespaces ]; then
	shift
	with_engine_of_ours "$@"
	exit
fi

# Compiled before anything is started: this takes longest, and may need the network.
tests --no-run

if command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
	before=$(docker image ls --format '{{.Repository}}:{{.Tag}}')
	load "$@"
	status=0
	tests || status=$?
	for image in $loaded; do
		echo "$before" | grep -qxF "$image" || docker image rm "$image" >/dev/null
	done
	exit "$status"
fi

if [ "$(id -u)" -ne 0 ]; then
	echo "error: expected a Docker Engine at DOCKER_HOST or the usual socket, found none, and only root may start one" >&2
	echo "hint: start Docker, or run this as root" >&2
	exit 1
fi
command -v dockerd >/dev/null 2>&1 || install_engine
trap take_away EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
directory=$(mktemp -d /tmp/ai-agents-docker.XXXXXX)
unshare --pid --fork --kill-child --mount-proc --net --mount --propagation private "$0" --in-namespaces "$directory" "$@" &
namespaces=$!
wait "$namespaces"
