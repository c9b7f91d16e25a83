#!/usr/bin/env bash
# Prints a Chromium that the end-to-end tests can drive: $CHROMIUM, one that this machine has, or Debian's, unpacked into
# target/chromium with the libraries that the machine lacks. Nothing is installed, and root's rights are not needed.
# Exits 1 with the reason where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DIR="$PWD/target/chromium"
readonly WORK="$PWD/target/chromium.new"

die() { echo "chromium: $*" >&2; exit 1; }

[ -z "${CHROMIUM:-}" ] || { echo "$CHROMIUM"; exit; }
for name in chromium chromium-browser google-chrome-stable google-chrome; do
    # Those of a snap see no folder under /tmp.
    path=$(command -v "$name") && [[ $(readlink -f "$path") != *snap* ]] && { echo "$path"; exit; }
done
[ ! -x "$DIR/run" ] || { echo "$DIR/run"; exit; }

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || die "this machine has none, and no $tool to fetch one; install Chromium or set CHROMIUM"
done
exec 9>target/.chromium.lock
flock 9
[ ! -x "$DIR/run" ] || { echo "$DIR/run"; exit; }
rm -rf "$WORK" "$DIR" && mkdir -p "$WORK/lists/partial" "$WORK/cache/archives/partial" "$WORK/debs" "$WORK/root"

# The machine's own sources, with lists of our own.
apt_private() {
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Dir::State::Lists="$WORK/lists" -o Dir::Cache="$WORK/cache" -o Debug::NoLocking=1 "$@"
}
apt_private update >"$WORK/log" 2>&1 || die "apt cannot read its sources ($(tail -1 "$WORK/log"))"
packages=$(apt_private install --simulate --no-install-recommends chromium 2>>"$WORK/log" \
    | sed -n 's/^Inst \([^ ]*\) \((\|.* (\)\([^ ]*\) .*/\1=\3/p') || true
[ -n "$packages" ] || die "apt has no package chromium here"
# shellcheck disable=SC2086 # One word a package.
(cd "$WORK/debs" && apt_private download $packages >>"$WORK/log" 2>&1) \
    || die "apt cannot fetch it ($(tail -1 "$WORK/log"))"
for package in "$WORK"/debs/*.deb; do
    dpkg-deb -x "$package" "$WORK/root"
done
rm -rf "$WORK"/{debs,lists,cache}
[ -x "$WORK/root/usr/lib/chromium/chromium" ] || die "Debian's package has another shape than expected"
# Some packages keep libraries in a folder of their own.
cat > "$WORK/run" <<'RUN'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
for folder in "$root"/usr/lib/*-linux-gnu "$root"/usr/lib/*-linux-gnu/pulseaudio; do
    LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
done
export LD_LIBRARY_PATH
exec "$root/usr/lib/chromium/chromium" "$@"
RUN
chmod 755 "$WORK/run"
mv "$WORK" "$DIR"
echo "$DIR/run"
