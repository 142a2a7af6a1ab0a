#!/usr/bin/env bash
# tools/sanitize.sh asan|tsan [ctest arguments]: builds and runs the tests a sanitizer is for.
#   asan   address + undefined: everything that reads bytes from outside (configs, data, checkpoints) and the CPU kernels
#   tsan   our own threads, and ranks as threads, but not tests that fork or meet through a file lock, neither of which it
#          follows. OpenMP's are not seen by it, so ATen gets one thread and libgomp and the wheel are suppressed
set -euo pipefail
longreach_root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
source "$longreach_root/tools/setup.sh"
preset=$1
shift
# Every folder that holds CPU kernels, as the beginning of its tests' names: layers_ops_merge|...
kernel_folders=$(cd "$longreach_root" && find layers -path '*/cpu/*.cpp' -printf '%h\n' | sed 's|/cpu$||' | sort -u | tr / _ | paste -sd '|')
case $preset in
  asan) left_out=() tests="^(core|data|checkpoints|layers_ops|$kernel_folders)(_[a-z0-9_]+)?_test\$" ;;
  tsan) left_out=(-E 'Killed|FileLock|Launcher') tests='^(core|data|data_corpora|distributed)_test$' ;;
  *) fail "sanitize: $preset is neither asan nor tsan" ;;
esac
support=$longreach_root/tests/support
# Leaks: memory still reachable at exit is not reported; what the wheel's static registries keep is suppressed.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_init_order=0:detect_odr_violation=0:abort_on_error=0
export LSAN_OPTIONS=suppressions=$support/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=suppressions=$support/tsan.supp:ignore_noninstrumented_modules=1:halt_on_error=1
[[ $preset == tsan ]] && export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
set_up_libtorch
folder=$(build_folder "$preset")
build "$preset" build.ninja  # configures where that is due: which tests there are may have changed
mapfile -t targets < <(ninja -C "$folder" -t targets all | sed -n 's/^\([a-z0-9_]*_test\): phony$/\1/p' |
  grep -E "$tests" | grep -vE '_(slow|ptx|gpu|interop)_test$')
# The sanitizers' shadow memory wants no address randomisation beyond what they know (tsan of GCC 12 stops without this).
fixed=(setarch "$(uname -m)" -R)
"${fixed[@]}" true 2>/dev/null || fixed=()
build_fixed() {
  if ((${#fixed[@]})); then
    "${fixed[@]}" bash -c 'longreach_root=$1; source "$1/tools/setup.sh"; shift; build "$@"' build "$longreach_root" "$@"
  else
    build "$@"
  fi
}
build_fixed "$preset" "${targets[@]}"
(($#)) || set -- -R "^($(IFS='|' && echo "${targets[*]}"))\\." "${left_out[@]}"
exec "${fixed[@]}" ctest --test-dir "$folder" -j 2 --output-on-failure "$@"
