#!/usr/bin/env bash
# Builds the filter and leaves it, ready for Envoy, as target/latchkey.wasm. With a feature of the
# crate (Cargo.toml says what each is for) it is target/latchkey-FEATURE.wasm.
#
# After the build: exports that the filter does not use are dropped (tools/wasm-exports/keep.txt), and
# copies of few bytes go to a function of its own (tools/wasm-exports/src/copies.rs). Then binaryen's
# wasm-opt removes what only the exports could reach and optimises the rest. Where it cannot be had the
# step is skipped: the filter is then larger and a little slower, and does the same, but it is another
# binary, and the build says so.
#
# The filter's SHA-256 is printed, and written beside it (OUT.sha256) for `refresher serve`, which compares.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Every worker keeps the compiled module: more than this is a choice, not an accident. The decoders of gzip and zstd are
# 160 KiB of it, the translation between dialects 450 KiB.
readonly MAX_BYTES=$((1800 * 1024))
readonly KEEP=tools/wasm-exports/keep.txt
readonly IMPORTS=tools/wasm-exports/imports.txt
readonly LINKED=tools/wasm-exports/linked.txt
# Cargo keeps one build of a profile: what is built beside the filter in the same one has it built anew the next time.
profile=release
case ${1:-} in
    "") out=target/latchkey.wasm cargo_options=() ;;
    --fault-injection) out=target/latchkey-${1#--}.wasm cargo_options=(--features "${1#--}") profile=aside ;;
    --*) out=target/latchkey-${1#--}.wasm cargo_options=(--features "${1#--}") ;;
    *) echo "usage: wasm.sh [--FEATURE]" >&2; exit 2 ;;
esac
readonly OUT=$out
# What rustc emits for wasm32-unknown-unknown by default and Envoy's V8 takes. The module's own
# list of features is stripped with its other custom sections, so wasm-opt has to be told.
readonly FEATURES=(--enable-bulk-memory --enable-bulk-memory-opt --enable-multivalue --enable-mutable-globals
    --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext)

die() { echo "wasm: $*" >&2; exit 1; }
warn() { printf '\nwasm: %s\n\n' "$*" >&2; }

# Every callback that the filter implements has to be on the keep-list, or Envoy never calls it.
if [ -d src/shell ]; then
    while read -r callback; do
        grep -qx "$callback" "$KEEP" || die "src/shell implements ${callback#proxy_} but $KEEP lacks $callback; add it"
    done < <(grep -rhoE '\bfn on_[a-z_]+' src/shell \
        | sed -E 's/^fn on_(http_(request|response)_(headers|body|trailers)|http_call_response|tick|configure|vm_start|done|log|queue_ready)$/keep on_\1/; s/^keep on_http_(request|response)/keep on_\1/; s/^keep /proxy_/' \
        | grep '^proxy_on_' | sort -u)
fi

scripts/wasm-target.sh
# The texts of panics name source files. Under these names they say nothing of who built the filter, and its SHA-256 depends
# neither on the folder of this clone nor on that of the crates. What matches last is taken. The environment's own flags
# would replace these, and those of .cargo/config.toml (scripts/wasm-target.sh).
flags=
renamed() { flags+="'''--remap-path-prefix=$1=$2''', "; }
cargo_home=${CARGO_HOME:-$HOME/.cargo}
renamed "$PWD" /latchkey
renamed "$cargo_home" /cargo
# A mirror of the registry has a folder of another name.
cargo fetch --locked --quiet --target wasm32-unknown-unknown
for crates in "$cargo_home"/registry/src/*; do
    renamed "$crates" /cargo/registry
done
# With the component rust-src, rustc finds the standard library's sources there.
renamed "$(rustc --print sysroot)/lib/rustlib/src/rust" "/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS cargo build --locked --quiet --profile "$profile" \
    --target wasm32-unknown-unknown --config "target.wasm32-unknown-unknown.rustflags = [$flags]" \
    -p latchkey --lib "${cargo_options[@]}"
readonly BUILT=${CARGO_TARGET_DIR:-target}/wasm32-unknown-unknown/$profile/latchkey.wasm
cargo build --locked --quiet -p wasm-exports
readonly EXPORTS=${CARGO_TARGET_DIR:-target}/debug/wasm-exports
rustc=$(rustc --version | cut -d' ' -f2)
[ "$rustc" = "$(cat .rust-version)" ] \
    || warn "THIS IS ANOTHER BINARY than the released one: it comes from rustc $rustc, not $(cat .rust-version)"

# What is made of the same by the same is the same: the steps after the build take half a minute.
made_from() { sha256sum "$BUILT" "$EXPORTS" "$KEEP" "$IMPORTS" "$LINKED" scripts/wasm.sh tools/wasm-opt/package-lock.json "$OUT" 2>&1; }
if [ "$(made_from)" = "$(cat "$OUT.made-from" 2>/dev/null)" ] && sha256sum --check --status "$OUT.made-from"; then
    echo "$OUT: $(wc -c < "$OUT") bytes, sha256 $(cut -d' ' -f1 "$OUT.sha256"), as it was"
    exit
fi
rm -f "$OUT.made-from"
"$EXPORTS" "$KEEP" <(cat "$IMPORTS" "$LINKED") "$BUILT" "$OUT.exports"

optimised=yes
if [ "$profile" = aside ]; then
    cp "$OUT.exports" "$OUT.optimised"
elif scripts/npm-ci.sh tools/wasm-opt target/tools/wasm-opt; then
    PATH="$(scripts/node.sh):$PATH" target/tools/wasm-opt/node_modules/.bin/wasm-opt -O3 "${FEATURES[@]}" "$OUT.exports" -o "$OUT.optimised"
else
    warn "THIS IS ANOTHER BINARY than the released one: wasm-opt cannot be had, so the filter stays as rustc built it;" \
        "its SHA-256 is not the released filter's"
    cp "$OUT.exports" "$OUT.optimised"
    optimised=no
fi
mv "$OUT.optimised" "$OUT"
rm -f "$OUT.exports"

bytes=$(wc -c < "$OUT")
[ "$bytes" -le "$MAX_BYTES" ] || [ "$profile" = aside ] || die "$OUT is $bytes bytes, more than the $MAX_BYTES it may be"
# As `sha256sum --check` reads it in the filter's own folder.
(cd "$(dirname "$OUT")" && sha256sum "$(basename "$OUT")") > "$OUT.sha256.new"
mv "$OUT.sha256.new" "$OUT.sha256"
[ "$optimised" = no ] || made_from > "$OUT.made-from"
echo "$OUT: $bytes bytes, sha256 $(cut -d' ' -f1 "$OUT.sha256")"
