#!/usr/bin/env bash
# npm-ci.sh SOURCE DESTINATION: installs the npm packages that SOURCE/package-lock.json pins into
# DESTINATION/node_modules, unless they are there. Needs Node on the PATH or fetches it (node.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$1 destination=$2

if cmp --quiet "$source/package-lock.json" "$destination/installed"; then
    exit
fi
node=$("$here/node.sh")
rm -rf "$destination" && mkdir -p "$destination"
cp "$source/package.json" "$source/package-lock.json" "$destination/"
# No install scripts: nothing that these packages carry runs before it is asked for.
PATH="$node:$PATH" npm ci --prefix "$destination" --ignore-scripts --no-audit --no-fund --loglevel=error \
    >"$destination/log" 2>&1 || {
    echo "npm: the packages of $source cannot be installed ($(grep -m1 . "$destination/log")); check the network and npm's registry setting" >&2
    exit 1
}
cp "$source/package-lock.json" "$destination/installed"
