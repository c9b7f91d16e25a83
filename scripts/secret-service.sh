#!/usr/bin/env bash
# Makes a Secret Service to test with: GNOME's keyring daemon, on a message bus of its own. Prints the folder that has
# bin/gnome-keyring-daemon and bin/dbus-run-session.
#
# Takes the machine's own where they are, else Debian's packages, unpacked under target/: nothing is installed. Exits with 3
# where there is neither.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DIR="$PWD/target/secret-service"

missing() { echo "secret service: $*" >&2; exit 3; }

mkdir -p "$DIR"
exec 9>"$DIR/.lock"
flock 9
if [ -f "$DIR/ready" ]; then
    echo "$DIR"
    exit
fi

root=$DIR/root
libraries=$root/usr/lib/$(uname -m)-linux-gnu

# Downloads and unpacks packages of the machine's own Debian. Its lists may be missing, so they are fetched into target/.
lists=()
fetch() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    mkdir -p "$DIR/packages" "$root"
    if ! (cd "$DIR/packages" && apt-get -qq -o APT::Sandbox::User="$(id -un)" "${lists[@]}" download "$@") >>"$DIR/log" 2>&1; then
        [ "${#lists[@]}" = 0 ] || return 1
        mkdir -p "$DIR/apt/lists/partial" "$DIR/apt/cache/archives/partial"
        lists=(-o Dir::State::Lists="$DIR/apt/lists" -o Dir::Cache="$DIR/apt/cache" -o Acquire::Languages=none)
        apt-get -qq -o APT::Sandbox::User="$(id -un)" "${lists[@]}" update >>"$DIR/log" 2>&1 || return 1
        fetch "$@"
        return
    fi
    local package
    for package in "$DIR"/packages/*.deb; do
        dpkg-deb -x "$package" "$root"
        rm "$package"
    done
}

# find_program NAME PACKAGES…: the path of a program.
find_program() {
    local name=$1
    shift
    command -v "$name" && return
    [ -x "$root/usr/bin/$name" ] || fetch "$@" || return 1
    echo "$root/usr/bin/$name"
}

daemon=$(find_program gnome-keyring-daemon gnome-keyring libgck-1-0 libgcr-base-3-1) \
    || missing "no gnome-keyring-daemon, and its package cannot be fetched ($DIR/log)"
session=$(find_program dbus-run-session dbus-daemon dbus-bin libdbus-1-3) || session=$(find_program dbus-run-session dbus libdbus-1-3) \
    || missing "no dbus-run-session, and its package cannot be fetched ($DIR/log)"
if LD_LIBRARY_PATH=$libraries ldd "$daemon" | grep 'not found' >>"$DIR/log"; then
    missing "gnome-keyring-daemon lacks libraries ($DIR/log); install gnome-keyring"
fi

wrapper() {
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "%s" "$@"\n' "$libraries" "$2" > "$DIR/bin/$1"
    chmod 755 "$DIR/bin/$1"
}
mkdir -p "$DIR/bin"
wrapper gnome-keyring-daemon "$daemon"
# It finds dbus-daemon on the PATH.
printf '#!/bin/sh\nPATH="%s:$PATH" exec "%s" "$@"\n' "$root/usr/bin" "$session" > "$DIR/bin/dbus-run-session"
chmod 755 "$DIR/bin/dbus-run-session"
touch "$DIR/ready"
echo "$DIR"
