#!/usr/bin/env bash
# beside.sh LINE… COMMAND: runs COMMAND, a line of shell as well, and each LINE beside it. For what waits for the network or
# uses one core, beside what uses all.
#
# COMMAND shows its output at once, a LINE when COMMAND has ended. The first failure of COMMAND ends all; of the lines that
# failed the output comes last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly lines=("${@:1:$#-1}") command=${*: -1}

# One core has no time to spare.
if [ "$(nproc)" = 1 ]; then
    for line in "$@"; do bash -c "$line"; done
    exit
fi

logs=$(mktemp -d)
jobs=()
# Each line is a group of its own, which ends with this script: Ctrl-C does not reach what a script has in the background.
end() {
    for job in "${jobs[@]}"; do kill -- "-$job" 2>/dev/null || true; done
    wait
    rm -rf "$logs"
}
trap end EXIT
for line in "${lines[@]}"; do
    setsid bash -c "$line" >"$logs/${#jobs[@]}" 2>&1 </dev/null &
    jobs+=($!)
done

# It ends with this script, too.
setpriv --pdeathsig TERM bash -c "$command"

failed=()
for number in "${!jobs[@]}"; do
    ! kill -0 "${jobs[number]}" 2>/dev/null || echo "waiting for: ${lines[number]}"
    if wait "${jobs[number]}"; then
        cat "$logs/$number"
    else
        failed+=("$number")
    fi
done
for number in "${failed[@]}"; do
    echo "failed: ${lines[number]}" >&2
    cat "$logs/$number" >&2
done
[ "${#failed[@]}" = 0 ]
