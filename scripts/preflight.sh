#!/usr/bin/env bash
# preflight.sh [demo] [tests] [fuzz]
#
# Fetches the crates, and checks that this machine has what the build needs and cannot fetch by itself, and what the demo, the tests
# and the fuzz targets need beside that. Says what is missing and how to get it, one line each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=0
lacks() { echo "preflight: $*" >&2; missing=1; }

rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    lacks "no Rust; install $rust or newer from https://rustup.rs"
else
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$rust" "${have%%-*}" | sort -V | head -n 1)" = "$rust" ] \
        || lacks "Rust is $have, and $rust is needed; run 'rustup update stable'"
fi
if ! command -v python3 >/dev/null; then
    lacks "no Python 3; on Debian and Ubuntu run 'apt-get install python3 python3-pip'"
elif ! python3 -m pip --version >/dev/null 2>&1; then
    lacks "Python 3 has no pip; on Debian and Ubuntu run 'apt-get install python3-pip'"
fi
command -v cc >/dev/null || lacks "no C compiler; on Debian and Ubuntu run 'apt-get install build-essential'"
command -v flock >/dev/null || lacks "no flock; on Debian and Ubuntu run 'apt-get install util-linux'"
# What is started ends with who started it.
needs_setpriv() {
    command setpriv --pdeathsig TERM -- true 2>/dev/null \
        || lacks "no setpriv that knows --pdeathsig; on Debian and Ubuntu run 'apt-get install util-linux'"
}
for work in "$@"; do
    case $work in
        demo) needs_setpriv ;;
        tests)
            needs_setpriv
            command -v prlimit >/dev/null \
                || lacks "no prlimit, which tests run; on Debian and Ubuntu run 'apt-get install util-linux'" ;;
        fuzz)
            command -v c++ >/dev/null || lacks "no C++ compiler, for libFuzzer; on Debian and Ubuntu run 'apt-get install g++'" ;;
        *) echo "usage: preflight.sh [demo] [tests] [fuzz]" >&2; exit 2 ;;
    esac
done
[ "$missing" -eq 0 ] || exit 1

# Cargo says it in many lines, none of which is the cure.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo fetch --quiet --locked 2>"$log" \
    || lacks "cargo cannot fetch the crates ($(grep -m1 '^error' "$log")); check the network and cargo's registry setting"
exit "$missing"
