# `./longreach test [--changed [COMMIT]] [--preset NAME] [ctest arguments]`, sourced by ./longreach: every check and test in a
# fixed order, each with its time. --changed builds and runs what tools/changed_tests.py chooses.
readonly slow_deadline=$((80 * 60))  # slow tests start until then, in seconds of the whole run
failed_steps=()

print_test_help() {
  cat <<'EOF'
./longreach test                     every check and test: set-up, format, includes and sizes, build, clang-tidy, tests, then slow
                                     tests, cheapest first, until minute 80; each with its time, and the 20 slowest tests.
                                     Where all passed and git knows every file, build/passed names the tree and the commit
./longreach test --changed [COMMIT]  the same, but of the tests those that depend on files changed since COMMIT (else: since
                                     build/passed), slow ones too, and not the sanitizers and the package's consumer. A test
                                     depends on what its program is built from; a change of one mechanism's object counts
                                     for its own tests, those of layers/attention, models and train/verify, and the test files
                                     that name it
./longreach test -L fuzz [...]       fuzzers of everything that reads files of others: their corpora, then 60 s each;
                                     tools/fuzz.sh NAME SECONDS runs one for longer
./longreach test CTEST-ARGUMENTS     set-up, build, then ctest with these: -R NAME, -L LABEL, --verbose, ...; `-L interop` fetches
                                     the Python packages to compare with first, as the whole run does (1.4 GB, in the cache)
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

# commit_of_clean_tree: prints `tree HASH` and `commit HASH` where git knows every file as it lies there, else nothing.
commit_of_clean_tree() {
  local git=(git -C "$longreach_root" -c safe.directory='*')
  [[ -z $("${git[@]}" status --porcelain 2>&1) ]] || return 0
  echo "tree $("${git[@]}" rev-parse 'HEAD^{tree}')"
  echo "commit $("${git[@]}" rev-parse HEAD)"
}

# run_every_test PRESET
run_every_test() {
  local folder reports clean
  folder=$(build_folder "$1") reports=$folder/Testing clean=$(commit_of_clean_tree)
  rm -f "$folder/passed" "$reports"/{tests,slow}.xml
  step "format" check_format
  step "includes, sizes, words" python3 tools/check_sources.py
  step "build" build "$1" all
  step "clang-tidy" check_tidy "$1"
  step "Python's packages" set_up_interop
  step "tests" ctest --test-dir "$folder" -LE '^slow$' -j 2 --output-on-failure --output-junit "$reports/tests.xml"
  step "slow tests" run_slow_tests "$folder"
  step "slowest tests" python3 tools/test_times.py "$reports"/{tests,slow}.xml
  if ((${#failed_steps[@]} == 0)) && [[ -n $clean && $clean == "$(commit_of_clean_tree)" ]]; then
    echo "$clean" >"$folder/passed"
  fi
}

# run_changed_tests PRESET [COMMIT]
run_changed_tests() {
  local folder commit=${2:-} chosen targets tests
  folder=$(build_folder "$1")
  [[ -n $commit || -f $folder/passed ]] ||
    fail "test --changed: no whole run has passed here (no $folder/passed); name a commit, or run ./longreach test"
  commit=${commit:-$(sed -n 's/^tree //p' "$folder/passed")}
  step "format" check_format
  step "includes, sizes, words" python3 tools/check_sources.py
  build "$1" build.ninja  # configures where that is due, so that new files are known
  chosen=$(python3 tools/changed_tests.py "$folder" "$commit") || fail "test --changed: cannot compare with $commit (see above)"
  mapfile -t targets < <(sed -n 's/^build //p' <<<"$chosen")
  mapfile -t tests < <(sed -n 's/^test //p' <<<"$chosen")
  echo "== since $commit: ${#targets[@]} test programs${targets[*]:+: ${targets[*]}}"
  step "build" build "$1" longreach "${targets[@]}"
  step "clang-tidy" check_tidy "$1"
  [[ " ${targets[*]} " != *_interop_test\ * ]] || step "Python's packages" set_up_interop
  step "tests" run_chosen_tests "$folder" "${tests[@]}"
}

# run_chosen_tests FOLDER PATTERN...: each by itself, since ctest's expressions hold 32 parentheses at most; one that no test
# has is an error.
run_chosen_tests() {
  local folder=$1 failed=0 pattern
  shift
  for pattern; do
    ctest --test-dir "$folder" -j 2 --output-on-failure --no-tests=error -R "$pattern" || failed=1
  done
  return $failed
}

# run_fuzzers CTEST-ARGUMENT...: they have a build of their own.
run_fuzzers() {
  step "set-up" set_up_packages fuzz
  step "build" build fuzz all
  step "ctest $*" ctest --test-dir "$(build_folder fuzz)" --output-on-failure "$@"
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
  [[ ${1:-} != --changed || $preset =~ ^(release|debug)$ ]] || fail "test: --changed goes with --preset release or debug"
  step "set-up" set_up_all
  if [[ $preset == asan || $preset == tsan ]]; then
    exec "$longreach_root/tools/sanitize.sh" "$preset" "$@"
  elif (($# == 0)); then
    run_every_test "$preset"
  elif [[ $1 == -L && ${2:-} == fuzz ]]; then
    run_fuzzers "$@"
  elif [[ $1 == --changed ]]; then
    (($# <= 2)) || fail "test: --changed takes one commit at most"
    run_changed_tests "$preset" "${2:-}"
  else
    [[ " $* " != *interop* ]] || step "Python's packages" set_up_interop
    step "build" build "$preset" all
    step "ctest $*" ctest --test-dir "$(build_folder "$preset")" -j 2 --output-on-failure "$@"
  fi
  ((${#failed_steps[@]} == 0)) || { echo "longreach test: failed: ${failed_steps[*]}"; exit 1; }
}

set_up_all() {
  set_up_packages test
  set_up_libtorch
}
