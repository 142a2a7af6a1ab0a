#!/usr/bin/env bash
# tools/check_deletion.sh [KIND]: holds the tree to its promise that an attention mechanism is two folders and two lines of
# layers/attention/mechanisms.h. Deletes one in a copy, generates anew what is generated, builds the program and the tests of
# models and of every kind through the program, and runs them. What the copy shares with this tree comes from ccache.
set -euo pipefail
longreach_root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
kind=${1:-biformer}
source "$longreach_root/tools/setup.sh"
cd "$longreach_root"
[[ -d layers/attention/$kind ]] || fail "check_deletion: layers/attention/$kind: no such mechanism"
config=$(sed -n 's/^struct \([A-Za-z0-9]*Config\) {.*/\1/p' "layers/attention/$kind/$kind.h")

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
python3 tools/check_sources.py --files | tar -cf - -T - | tar -xf - -C "$copy"
cd "$copy"
rm -r "layers/attention/$kind" "tests/layers/attention/$kind"
lines=$(wc -l <layers/attention/mechanisms.h)
sed -i "\\|\"layers/attention/$kind/$kind.h\"|d; /^ *, $config\$/d" layers/attention/mechanisms.h
((lines - $(wc -l <layers/attention/mechanisms.h) == 2)) || fail "check_deletion: $kind has not two lines in mechanisms.h"

# The same flags and relative paths as in this tree, so that ccache knows what has not changed.
longreach_root=$copy
export CCACHE_BASEDIR=$copy
set_up_libtorch
build release longreach models_test end_to_end_test
program=$copy/build/bin/longreach
! "$program" info "$kind" 2>/dev/null || fail "check_deletion: the program still knows $kind"
"$program" info --table >"$copy/build/table"
sed -i -e '/<!-- longreach info --table -->/,/<!-- end of the table -->/{//!d}' \
  -e "/<!-- longreach info --table -->/r $copy/build/table" README.md
"$program" train --help >configs/every_key.toml
build release train_test train_program_test
for test in models_test "end_to_end_test --gtest_filter=*Matrix*" "train_test --gtest_filter=RunConfig.*" "train_program_test --gtest_filter=MechanismTable.*"; do
  # shellcheck disable=SC2086
  build/bin/$test --gtest_brief=1
done
