#!/bin/sh
# Makes the kind cluster of kind-config.yaml, unless it is there, loads images into it, puts up what stands for the internet there, and
# has the nodes say where internet and ingress are:
# kind-up.sh CONFIG PROBE ARCHIVE...
# kind-down.sh takes all of it away again.
set -eu

config=$1
probe=$2
shift
name=ai-agents
# The same as on the lab (fixtures/lab/internal/layout). The range is reserved for documentation: no `except` of a policy closes it.
internet=203.0.113.10
internet_range=203.0.113.0/24
internet_ports=22,25,53,80,443,8080,8443,31337
container=ai-agents-internet

for program in docker kind kubectl; do
	if ! command -v "$program" >/dev/null 2>&1; then
		echo "error: $program not found, expected Docker, kind and kubectl" >&2
		echo "hint: install them (https://kind.sigs.k8s.io), or use the lab, which needs none of them: make demo" >&2
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
for archive in "$@"; do
	kind load image-archive "$archive" --name "$name"
done

# The internet is a container on kind's network to which every node has a route, so that packets to it are forwarded by the nodes, not
# delivered to them. The agent binds its address, so that a datagram's answer comes from there; the address is given to it afterwards,
# by the `ip` of the nodes' image, since its own has nothing but the agent.
docker load --quiet --input "$probe" >/dev/null
docker rm --force "$container" >/dev/null 2>&1 || true
docker run --detach --name "$container" --network kind --cap-drop ALL \
	--sysctl net.ipv4.ip_nonlocal_bind=1 --sysctl net.ipv4.ip_unprivileged_port_start=0 \
	ai-agents.local/probe:1 serve --bind "$internet" --tcp "$internet_ports" --udp "$internet_ports" >/dev/null
node_image=$(docker inspect --format '{{.Image}}' "$name-control-plane")
docker run --rm --network "container:$container" --cap-drop ALL --cap-add NET_ADMIN --entrypoint ip "$node_image" \
	address add "$internet/32" dev lo
gateway=$(docker inspect --format '{{(index .NetworkSettings.Networks "kind").IPAddress}}' "$container")
for node in $(kind get nodes --name "$name"); do
	docker exec "$node" ip route replace "$internet_range" via "$gateway"
	if ! docker exec "$node" curl --silent --show-error --output /dev/null --max-time 5 --retry 5 --retry-connrefused "http://$internet/"; then
		echo "error: expected http://$internet/ to answer node $node by way of $gateway, it does not" >&2
		echo "hint: docker logs $container; docker exec $node ip route" >&2
		exit 1
	fi
done
# Where CONFIG leads from this machine's loopback to the ingress's node port; clusters that an earlier CONFIG made lack that.
if ! ingress=$(docker port "$name-control-plane" 30080/tcp 2>/dev/null) || [ -z "$ingress" ]; then
	echo "error: expected port 30080 of $name-control-plane to be mapped to this machine, as $config says, it is not" >&2
	echo "hint: a node's ports cannot be changed; make the cluster anew: scripts/kind-down.sh, then again" >&2
	exit 1
fi
kubectl --context "kind-$name" annotate nodes --all --overwrite "ai-agents-platform/internet=$internet" "ai-agents-platform/ingress=http://$ingress"
