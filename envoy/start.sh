#!/bin/sh
# start.sh --config-path FILE [OPTION…]: starts Envoy with as many open files as the engine allows its container.
#
# A compose file that asks for more than the engine may give keeps the container from starting, so none asks.
set -eu

config=$2
limit=$(ulimit -H -n)
[ "$limit" != unlimited ] || limit=1048576
ulimit -S -n "$limit"

# Each caller's connection may need one to a platform.
callers=$(sed -n 's/^ *max_active_downstream_connections: *\([0-9][0-9]*\).*/\1/p' "$config")
if [ "$limit" -lt $((2 * ${callers:-0})) ]; then
    echo "envoy: warning: it may open $limit files, too few for the $callers connections that $config allows;" \
        "raise the engine's limit (nofile), or lower max_active_downstream_connections" >&2
fi
exec envoy "$@"
