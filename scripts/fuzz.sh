#!/usr/bin/env bash
# Fuzzes what the filter reads of strangers: `scripts/fuzz.sh [SECONDS] [TARGET…]`, each target for SECONDS (10) on
# what it found before (target/fuzz/corpus) and on the fixtures. A finding ends it, and stays in target/fuzz/findings.
# With FUZZ_SEED=NUMBER it tries the same each time, as far as it comes.
#
# No nightly compiler and no cargo-fuzz: stable rustc puts libFuzzer's counters in when told to. libFuzzer itself is
# C++.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-10}
shift || true
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz: expected a number of seconds, found '$seconds'" >&2; exit 2; }
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\([a-z]*\)"$/\1/p' fuzz/Cargo.toml)

scripts/preflight.sh fuzz

readonly OUT="$PWD/target/fuzz"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$OUT" \
    "${targets[@]/#/--bin=}"

# What the readers of dialects begin with: what the golden pairs say in each dialect, and the fixtures in all of them. Two
# digits before it are the dialects of the two sides, in the order of `Dialect::OF_CALLERS` and `OF_PLATFORMS`, and two more choose nothing.
seeds="$OUT/seeds"
rm -rf "$seeds"
mkdir -p "$seeds"/{requests,answers,errors}
awk -v seeds="$seeds" '
    function close_all(other) { for (other = 0; other < 5; other++) if (out) close(out other) }
    BEGIN { split("chat responses messages gemini ernie", words); for (n in words) number[words[n]] = n - 1 }
    FNR == 1 || /^-- / { close_all(); out = "" }
    /^== / {
        close_all()
        kind = FILENAME ~ /requests/ ? "requests" : $3 ~ /^[0-9]/ ? "errors" : "answers"
        out = seeds "/" kind "/" ++count "-"
        for (other = 0; other < 5; other++) printf "%d%d07", number[$2], other > (out other)
        next
    }
    out { for (other = 0; other < 5; other++) print > (out other) }
' tests/golden/pairs/*/*.txt
for file in tests/fixtures/*/*.{json,sse}; do
    for number in 0 1 2 3 4; do
        name="$number-$(basename "$(dirname "$file")")-$(basename "$file")"
        { printf '%d007' "$number" && cat "$file"; } | tee "$seeds/answers/$name" >"$seeds/errors/$name"
    done
done
# The names and words of the dialects, for the fuzzer to put anywhere.
grep -rIhoE '"[A-Za-z_.]{2,40}"' tests/golden/pairs tests/fixtures | sort -u | sed 's/"\(.*\)"/"\\"\1\\""/' >"$seeds/words"

for target in "${targets[@]}"; do
    corpus="$OUT/corpus/$target"
    mkdir -p "$corpus" "$OUT/findings" "$seeds/$target"
    log="$OUT/$target.log"
    if ! "$OUT/$host/release/$target" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=2048 -max_len=16384 \
        ${FUZZ_SEED:+"-seed=$FUZZ_SEED"} -print_final_stats=1 -artifact_prefix="$OUT/findings/$target-" -dict="$seeds/words" "$corpus" \
        "$seeds/$target" fuzz/seeds tests/fixtures/* >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "fuzz: $target: a finding, in target/fuzz/findings; its log is target/fuzz/$target.log" >&2
        exit 1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -d' ' -f2)
    echo "fuzz: $target: $runs runs in $seconds s, $coverage edges, no finding"
done
