#!/usr/bin/env bash
# tools/fuzz.sh NAME SECONDS [libFuzzer's options]: builds the fuzzer tests/fuzz/NAME_fuzz.cpp and runs it, from where the last run
# ended. tools/fuzz.sh alone names them all.
set -euo pipefail
longreach_root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
source "$longreach_root/tools/setup.sh"
mapfile -t names < <(cd "$longreach_root/tests/fuzz" && printf '%s\n' *_fuzz.cpp | sed 's/_fuzz\.cpp$//')
(($# >= 2)) && [[ " ${names[*]} " == *" $1 "* && $2 =~ ^[0-9]+$ ]] ||
  fail "usage: tools/fuzz.sh NAME SECONDS, where NAME is one of ${names[*]}"
set_up_packages fuzz
set_up_libtorch
build fuzz "$1_fuzz"
folder=$(build_folder fuzz)
exec "$longreach_root/tools/run_fuzzer.sh" "$folder/bin/$1_fuzz" "$longreach_root/tests/fuzz/corpus/$1" "$folder/found/$1" \
  -max_total_time="$2" "${@:3}"
