#!/usr/bin/env bash
# Runs the demo: `make demo` builds what it needs first.
#
#   PORT=8081   where the gateway listens (8080)
#   ONCE=1      stop after the show, with status 0 if all of it happened
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/preflight.sh demo
export LATCHKEY_ENVOY=${LATCHKEY_ENVOY:-$(scripts/envoy.sh)}
exec python3 scripts/demo
