#!/usr/bin/env bash
# tools/run_fuzzer.sh PROGRAM CORPUS FOUND [libFuzzer's options]: runs a fuzzer from its corpus and from what earlier runs have
# found, which FOUND keeps. What breaks it is left in FOUND-broken. 20 s and 2 GiB are all that an input may take, and an
# allocation of 1 GiB at once, which no input here is worth, ends the run too.
set -euo pipefail
program=$1 corpus=$2 found=$3
shift 3
mkdir -p "$found" "$found-broken"
export ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=0 UBSAN_OPTIONS=print_stacktrace=1
exec "$program" "$found" "$corpus" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 \
  -print_final_stats=1 -artifact_prefix="$found-broken/" "$@"
