#!/usr/bin/env bash
# Lets Envoy itself check every Envoy configuration of envoy/, with the filter that was built; and
# Docker's client, where it is there, the compose files.
#
# validate-yaml.sh [WASM]: WASM is the filter's path, target/latchkey.wasm if not given.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wasm=$(realpath "${1:-target/latchkey.wasm}")
[ -f "$wasm" ] || { echo "validate-yaml: no $wasm; run 'make wasm' first" >&2; exit 1; }
envoy=$(scripts/envoy.sh)

# A state directory as the refresher leaves it before the first account exists.
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir "$state/envoy" "$state/run"
echo '{"resources":[]}' > "$state/envoy/clusters.json"

checked=0 failed=0
while IFS= read -r yaml; do
    scripts/envoy-config.sh --from "$yaml" --state "$state" --wasm "$wasm" > "$state/run.yaml"
    checked=$((checked + 1))
    if "$envoy" --mode validate --log-level warn --config-path "$state/run.yaml" >"$state/log" 2>&1; then
        echo "$yaml: valid"
    else
        echo "$yaml: Envoy refuses it" >&2
        cat "$state/log" >&2
        failed=$((failed + 1))
    fi
    # What an Envoy configuration is known by; compose files and the like have no such section.
done < <(grep -rlE --include='*.yaml' '^static_resources:' envoy | sort)
[ "$checked" -gt 0 ] || { echo "validate-yaml: found no Envoy configuration under envoy/" >&2; exit 1; }

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose --file envoy/docker-compose.yaml)
    for stack in "" envoy/docker-compose.demo.yaml; do
        "${compose[@]}" ${stack:+--file "$stack"} config --quiet || failed=$((failed + 1))
    done
fi
exit "$((failed > 0))"
