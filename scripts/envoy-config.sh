#!/usr/bin/env bash
# envoy-config.sh [--from YAML] [--address IP] [--port PORT] [--state DIR] [--wasm FILE] [--envoy VERSION] > run.yaml
#
# Prints a copy of envoy/envoy.yaml (or of another YAML of that folder) with the values replaced
# that an installation changes: exactly those on the lines marked `# (address)`, `# (port)`,
# `# (state)` and `# (wasm)`. What is not given stays as shipped. DIR and FILE are best absolute.
#
# With the VERSION of an Envoy before 1.40, what the filter may ask of it stands where that Envoy reads it.
set -euo pipefail

from=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/envoy/envoy.yaml
replacements=()

die() { echo "envoy-config: $*" >&2; exit 1; }

# replace MARK SHIPPED VALUE: the edit of the lines marked MARK. | & \ and newline would change it.
replace() {
    local mark=$1 shipped=$2 value=$3
    [[ $value =~ ^[A-Za-z0-9_./@:+-]+$ ]] || die "--$mark '$value' has a character that a path in YAML cannot take"
    grep -q "$shipped.* # ($mark)\$" "$from" || die "$from has no '$shipped' marked '# ($mark)'"
    replacements+=(-e "/# ($mark)\$/s|$shipped|$value|")
}

while [ $# -gt 0 ]; do
    [ -n "${2:-}" ] || die "$1 needs a value"
    case $1 in
        --from) from=$2 ;;
        --address) address=$2 ;;
        --port)
            [[ $2 =~ ^(0|[1-9][0-9]{0,4})$ && $2 -le 65535 ]] ||
                die "--port '$2' is no port: expected 1 to 65535, or 0 to let the system choose"
            port=$2 ;;
        --state) state=$2 ;;
        --wasm) wasm=$2 ;;
        --envoy)
            [[ $2 =~ ^1\.([0-9]+)(\.[0-9]+)?$ ]] || die "--envoy '$2' is no version of Envoy: expected one like 1.39"
            # Out of vm_config.
            [ "${BASH_REMATCH[1]}" -ge 40 ] ||
                replacements+=(-e '/^ *capability_restriction_config:$/,/^ *failure_policy:/{/failure_policy:/!s/^  //}') ;;
        *) die "unknown option $1; usage: envoy-config.sh [--from YAML] [--address IP] [--port PORT] [--state DIR] [--wasm FILE] [--envoy VERSION]" ;;
    esac
    shift 2
done
[ -r "$from" ] || die "cannot read $from"
[ -z "${address:-}" ] || replace address 127.0.0.1 "$address"
[ -z "${port:-}" ] || replace port 8080 "$port"
[ -z "${state:-}" ] || replace state /var/lib/latchkey "${state%/}"
[ -z "${wasm:-}" ] || replace wasm /etc/latchkey/latchkey.wasm "$wasm"

sed "${replacements[@]}" -e '' "$from"
