# `./longreach test [--preset NAME] [ctest arguments]`, sourced by ./longreach: every check and test in a fixed order, each
# with its time. With ctest arguments only the matching tests are built and run.
readonly slow_deadline=$((80 * 60))  # slow tests start until then, in seconds of the whole run
failed_steps=()

print_test_help() {
  cat <<'EOF'
./longreach test                     every check and test: set-up, format, includes and sizes, build, clang-tidy, tests, then slow
                                     tests, cheapest first, until minute 80; each with its time
./longreach test CTEST-ARGUMENTS     set-up, build, then ctest with these: -R NAME, -L LABEL, --verbose, ...
./longreach test --preset PRESET     release, debug, asan (address + undefined) or tsan (our own threads); may precede ctest's arguments
EOF
}

# step NAME COMMAND...: runs a step, prints its time, remembers that it failed.
step() {
  local name=$1 begin=$SECONDS
  shift
  echo "== $name"
  "$@" || failed_steps+=("$name")
  echo "== $name: $((SECONDS - begin)) s"
}

check_format() {
  python3 "$longreach_root/tools/check_sources.py" --list | (cd "$longreach_root" && xargs clang-format-14 --dry-run -Werror)
}

# check_tidy PRESET: clang-tidy over the files that include no torch header. A file is looked at again when it, a header
# or the rules have changed since it was last found clean.
check_tidy() {
  local folder stamps file todo=() newest
  folder=$(build_folder "$1") stamps=$(build_folder "$1")/tidy
  mkdir -p "$stamps"
  cd "$longreach_root"
  newest=$(find core data layers .clang-tidy \( -name '*.h' -o -name .clang-tidy \) -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
  while read -r file; do
    local stamp=$stamps/${file//\//_}
    [[ -f $stamp && $stamp -nt $file && $stamp -nt $newest ]] || todo+=("$file")
  done < <(find core data layers \( -path 'core/*.cpp' -o -path 'data/*.cpp' -o -path 'layers/ops/*/cpu/*.cpp' -o -path 'layers/ops/cpu/*.cpp' \) \
    ! -path layers/ops/cpu/parallel.cpp | sort)
  ((${#todo[@]})) || return 0
  printf '%s\n' "${todo[@]}" | xargs -P "$(job_count)" -I{} bash -c '
    output=$(clang-tidy-14 -p "$1" --quiet "$3" 2>/dev/null) && touch "$2/${3//\//_}" || { echo "$3:"; echo "$output"; exit 1; }
  ' tidy "$folder" "$stamps" {}
}

# run_slow_tests FOLDER: cheapest first, until the deadline.
run_slow_tests() {
  python3 "$longreach_root/tools/slow_tests.py" "$1" $((slow_deadline - SECONDS))
}

run_tests() {
  local preset=release
  [[ ${1:-} != --help && ${1:-} != -h ]] || { print_test_help; return; }
  cd "$longreach_root"
  if [[ ${1:-} == --preset ]]; then
    [[ ${2:-} =~ ^(release|debug|asan|tsan)$ ]] || fail "test: --preset is ${2:-missing}; allowed: release, debug, asan, tsan"
    preset=$2
    shift 2
  fi
  step "set-up" set_up_all
  if [[ $preset == asan || $preset == tsan ]]; then
    exec "$longreach_root/tools/sanitize.sh" "$preset" "$@"
  fi
  local folder
  folder=$(build_folder "$preset")
  if (($# == 0)); then
    step "format" check_format
    step "includes, sizes, words" python3 tools/check_sources.py
  fi
  step "build" build "$preset" all
  if (($#)); then
    step "ctest $*" ctest --test-dir "$folder" -j 2 --output-on-failure "$@"
  else
    step "clang-tidy" check_tidy "$preset"
    step "tests" ctest --test-dir "$folder" -LE '^slow$' -j 2 --output-on-failure
    step "slow tests" run_slow_tests "$folder"
  fi
  ((${#failed_steps[@]} == 0)) || { echo "longreach test: failed: ${failed_steps[*]}"; exit 1; }
}

set_up_all() {
  set_up_packages test
  set_up_libtorch
}
