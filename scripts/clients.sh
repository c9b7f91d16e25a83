#!/usr/bin/env bash
# Installs the real clients that the end-to-end tests run, in their pinned versions (tests/clients/),
# and prints the folder: bin/python with the `openai`, `anthropic` and `google-genai` packages, bin/node for those of npm (in npm/),
# bin/codex, bin/claude, bin/gemini, bin/qwen and bin/opencode, and bin/chromium, which has no window.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DIR="$PWD/target/clients"
readonly REQUIREMENTS=tests/clients/requirements.txt

die() { echo "clients: $*" >&2; exit 1; }

mkdir -p "$DIR"
exec 9>"$DIR/.lock"
flock 9

if ! cmp --quiet "$REQUIREMENTS" "$DIR/python/installed"; then
    rm -rf "$DIR/python"
    # Without a pip of its own, and filled by the machine's: needs no python3-venv package. Before 22.3 pip has no --python.
    python3 -m venv --without-pip "$DIR/python"
    packages=$("$DIR/python/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    python3 -m pip install --quiet --only-binary :all: --require-hashes --target "$packages" \
        --requirement "$REQUIREMENTS" >"$DIR/pip.log" 2>&1 \
        || die "pip cannot install $REQUIREMENTS ($(grep -m1 ERROR "$DIR/pip.log")); check the network and pip's index setting"
    cp "$REQUIREMENTS" "$DIR/python/installed"
fi
scripts/npm-ci.sh tests/clients "$DIR/npm"

# wrapper NAME COMMAND [OPTION…]: bin/NAME, which runs COMMAND with these options first and Node on its PATH. Written
# beside and moved into place: a redirection would follow a link that is there, out of this tree and into Python's own
# binary.
wrapper() {
    printf '#!/bin/sh\nPATH="%s:$PATH" exec "%s" %s "$@"\n' "$node" "$2" "${*:3}" > "$DIR/bin/.new"
    chmod 755 "$DIR/bin/.new"
    mv -fT "$DIR/bin/.new" "$DIR/bin/$1"
}
rm -rf "${DIR:?}/bin" && mkdir "$DIR/bin"
node=$(scripts/node.sh)
wrapper python "$DIR/python/bin/python"
wrapper codex "$DIR/npm/node_modules/.bin/codex"
wrapper gemini "$DIR/npm/node_modules/.bin/gemini"
wrapper qwen "$DIR/npm/node_modules/.bin/qwen"
# Its own script would put the binary of this machine in place; no scripts run here.
claude=("$DIR"/npm/node_modules/@anthropic-ai/claude-code-*/claude)
[ -x "${claude[0]}" ] || die "Claude Code has no binary for this machine"
wrapper claude "${claude[0]}"
wrapper node "$node/node"
# Of opencode the registry has binaries for some machines only; this one runs on every x86-64 Linux.
opencode=$DIR/npm/node_modules/opencode-linux-x64-baseline/bin/opencode
[ ! -x "$opencode" ] || wrapper opencode "$opencode"
# It trusts the certificate that the simulated platform made for itself, and asks nobody else for anything.
if chromium=$(scripts/chromium.sh); then
    wrapper chromium "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage \
        --disable-background-networking --ignore-certificate-errors
else
    echo "clients: NOT RUN: the logins in a real browser, for there is no Chromium" >&2
fi
echo "$DIR"
