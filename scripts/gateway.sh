#!/usr/bin/env bash
# Runs the refresher and Envoy on this machine until Ctrl-C: `make gateway` builds what it needs first.
#
#   PORT=8081            where callers connect (8080)
#   LATCHKEY_STATE_DIR   the state directory, as for every command of the refresher
#
# For good, each of the two has a supervisor of its own: README.md, "Run it".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
refresher=${LATCHKEY_REFRESHER:-$target/debug/refresher}
wasm=$(realpath "${LATCHKEY_WASM:-$target/latchkey.wasm}")
envoy=${LATCHKEY_ENVOY:-$(scripts/envoy.sh)}
port=${PORT:-8080}
# As the refresher finds it.
state=${LATCHKEY_STATE_DIR:-${XDG_STATE_HOME:-${HOME:?no state directory: set LATCHKEY_STATE_DIR}/.local/state}/latchkey}

die() { echo "gateway: $*" >&2; exit 1; }
answers() { (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

command -v setpriv >/dev/null || die "no setpriv; on Debian and Ubuntu run 'apt-get install util-linux'"
answers && die "port $port is taken by another program: stop it, or choose another: make gateway PORT=8081"
config=$(mktemp --suffix=.yaml)
trap 'trap - INT TERM; rm -f "$config"; kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM
version=$("$envoy" --version | sed -n 's|.* version: [0-9a-f]*/\([0-9.]*\)/.*|\1|p')
scripts/envoy-config.sh --port "$port" --state "$state" --wasm "$wasm" --envoy "$version" > "$config"

# They end with this script, also where it is killed.
run() { setpriv --pdeathsig TERM -- "$@" </dev/null & }

run "$refresher" serve --state-dir "$state" --wasm "$wasm"
daemon=$!
# Envoy does not start without the file of clusters.
until [ -S "$state/run/refresher.sock" ] && [ -s "$state/envoy/clusters.json" ]; do
    kill -0 "$daemon" 2>/dev/null || die "the refresher has ended; its last lines above say why"
    sleep 0.1
done
run "$envoy" --disable-hot-restart --log-level warning -c "$config"

until answers; do
    [ "$(jobs -pr | wc -l)" = 2 ] || die "one of the two has ended; its last lines above say why"
    sleep 0.1
done
echo "gateway: http://127.0.0.1:$port serves what is in $state; stop it with Ctrl-C" >&2
wait -n || true
die "one of the two has ended; its last lines above say why"
