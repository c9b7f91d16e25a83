#!/usr/bin/env bash
# Makes the standard library of wasm32-unknown-unknown available to plain cargo in this tree.
#
# Tries, in this order, and says in one line which way it took:
#   1. the toolchain has it, or an earlier run of this script built it;
#   2. `rustup target add`, where rustup can reach its server;
#   3. from source: Debian's rust-src of exactly rustc's version, built with rustc itself.
#
# Way 3 leaves the toolchain as it is. The library goes to target/wasm-sysroot, and
# .cargo/config.toml (written here, not under version control) points the wasm target at it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TARGET=wasm32-unknown-unknown
readonly RUSTUP_SECONDS=60
# Newest Debian suites first carry a Rust release; the mirror is the one this machine uses.
readonly SUITES="trixie-backports forky sid trixie"
readonly WORK="$PWD/target/wasm-target"
readonly SYSROOT="$PWD/target/wasm-sysroot"
readonly CARGO_CONFIG="$PWD/.cargo/config.toml"

say() { echo "wasm target: $*" >&2; }
die() { say "$*"; exit 1; }

has_std() { compgen -G "$1/lib/rustlib/$TARGET/lib/libstd-*.rlib" >/dev/null; }

command -v rustc >/dev/null || die "no rustc on the PATH; install Rust from https://rustup.rs"
toolchain=$(rustc --print sysroot)
version=$(rustc --version | cut -d' ' -f2)
# A library built by one rustc is of no use to another: the whole of -vV names the compiler.
compiler=$(rustc -vV)

exec 9>"$(mkdir -p target && echo target/.wasm-target.lock)"
flock 9

if has_std "$toolchain"; then
    rm -f "$CARGO_CONFIG"
    say "in the toolchain"
    exit
fi
if has_std "$SYSROOT" && [ -f "$CARGO_CONFIG" ] && [ "$(cat "$SYSROOT/compiler")" = "$compiler" ]; then
    say "in target/wasm-sysroot, built from source earlier"
    exit
fi

rm -f "$CARGO_CONFIG"
if command -v rustup >/dev/null && timeout "$RUSTUP_SECONDS" rustup target add "$TARGET" >/dev/null 2>&1 \
    && has_std "$toolchain"; then
    say "added with rustup"
    exit
fi

readonly CURE="run 'rustup target add $TARGET' where rustup can reach its server"
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || die "rustup cannot add it, and without $tool it cannot be built from source; $CURE"
done

# A private apt root: the machine's own lists, cache and sources stay as they are.
apt_private() {
    apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Dir::State::Lists="$WORK/apt/lists" -o Dir::Cache="$WORK/apt/cache" \
        -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$WORK/apt/sources" "$@"
}

debian_mirror() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null \
        | sed -n 's/^Debian //p' | head -1 | grep . && return
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null \
        | grep -v '^[[:space:]]*#' | grep -oE '(https?|file|mirror)[^ ]*/debian/?( |$)' | tr -d ' ' | head -1 | grep . \
        || echo http://deb.debian.org/debian
}

fetch_source() {
    local mirror suite
    mirror=$(debian_mirror)
    for suite in $SUITES; do
        rm -rf "$WORK/apt" && mkdir -p "$WORK/apt/lists/partial" "$WORK/apt/cache/archives/partial" "$WORK/apt/sources"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" \
            > "$WORK/apt/sources/rust.list"
        apt_private update >>"$WORK/log" 2>&1 || continue
        (cd "$WORK/apt" && apt_private download "rust-src=$version*") >>"$WORK/log" 2>&1 || continue
        dpkg-deb -x "$WORK"/apt/rust-src_*.deb "$WORK/source"
        say "building from Debian's rust-src $version ($suite)"
        return
    done
    return 1
}

build_std() {
    local library flags
    library=$(echo "$WORK"/source/usr/src/rustc-*/library)
    [ -f "$library/std/Cargo.toml" ] || { echo "no usr/src/rustc-*/library in the package" >>"$WORK/log"; return 1; }
    mkdir -p "$WORK/empty/src"
    printf '[workspace]\n[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[profile.release]\npanic = "abort"\n' \
        > "$WORK/empty/Cargo.toml"
    : > "$WORK/empty/src/lib.rs"
    # Bitcode, so that the filter's fat LTO reaches into the standard library. Sources have the names that they have in the
    # library of the toolchain: scripts/wasm.sh says why. Flags are separated by a byte that no path has.
    flags=-Cembed-bitcode=yes
    flags+=$'\x1f'--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/rust/deps
    flags+=$'\x1f'--remap-path-prefix=$library=/rustc/$(sed -n 's/^commit-hash: //p' <<<"$compiler")/library
    (cd "$WORK/empty" && env -u CARGO_TARGET_DIR -u RUSTFLAGS RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS="$flags" \
        __CARGO_TESTS_ONLY_SRC_ROOT="$library" \
        cargo build --release -Zbuild-std=std,panic_abort --target "$TARGET" --target-dir "$WORK/build") >>"$WORK/log" 2>&1
}

install_sysroot() {
    local entry lib="$SYSROOT/lib/rustlib/$TARGET/lib"
    rm -rf "$SYSROOT" && mkdir -p "$lib"
    # rustc looks for its linker (rust-lld) in the sysroot too.
    for entry in "$toolchain"/lib/rustlib/*; do
        [ "$(basename "$entry")" = "$TARGET" ] || ln -s "$entry" "$SYSROOT/lib/rustlib/"
    done
    cp "$WORK/build/$TARGET"/release/deps/*.rlib "$lib/"
    rm -f "$lib"/libempty-*.rlib
    printf '%s\n' "$compiler" > "$SYSROOT/compiler"
    mkdir -p "$(dirname "$CARGO_CONFIG")"
    printf '# Written by scripts/wasm-target.sh.\n[target.%s]\nrustflags = ["--sysroot=%s"]\n' "$TARGET" "$SYSROOT" \
        > "$CARGO_CONFIG"
}

rm -rf "$WORK" && mkdir -p "$WORK" && : > "$WORK/log"
fetch_source || die "no rust-src $version to be had from Debian (see target/wasm-target/log); $CURE"
build_std || die "the standard library does not build (see target/wasm-target/log); $CURE"
install_sysroot
rm -rf "$WORK/apt" "$WORK/build" "$WORK/empty"
say "built from source into target/wasm-sysroot"
