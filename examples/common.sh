# What the examples share, sourced by their `run`: the checkpoint, and a report that holds each command with what it
# printed. --quick: minutes instead of half an hour; other arguments go to every `train`.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

base=assets/smollm2-135m
quick=
overrides=()
for argument; do
  [[ $argument == --quick ]] && quick=1 || overrides+=("$argument")
done
name=$(basename -- "$(dirname -- "$0")")
runs=exp/smollm2/$name${quick:+-quick}
report=$runs/report.md
mkdir -p "$runs"

# choose FULL QUICK
choose() { [[ $quick ]] && echo "$2" || echo "$1"; }

# title TEXT: begins the report.
title() {
  printf '# %s\n\n%s%s, %s cores, %s.\n' "$1" "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n1)" \
    "${quick:+ (--quick)}" "$(nproc)" "$(date -u +%F)" >"$report"
}

say() {
  echo "== $*" >&2
  printf '\n%s\n' "$*" >>"$report"
}

# record WORD...: runs `./longreach WORD...`, and keeps command, output and seconds. Progress goes to the terminal alone.
record() {
  local begin=$SECONDS output
  echo "== ./longreach $*" >&2
  output=$(mktemp)
  if ! ./longreach "$@" >"$output"; then
    cat "$output"
    rm -f "$output"
    return 1
  fi
  cat "$output"
  { printf '\n```\n$ ./longreach'; printf ' %q' "$@"; printf '\n'; cat "$output"; printf '```\n%s s\n' $((SECONDS - begin)); } >>"$report"
  rm -f "$output"
}

# train CONFIG [WORD...]: quick runs are named by the caller's words.
train() {
  local config=$1
  shift
  record train "examples/$name/$config" "$@" "${overrides[@]}"
}

# picture FILE TEXT
picture() { [[ ! -e $1 ]] || printf '\n![%s](%s)\n' "$2" "$(realpath --relative-to="$runs" "$1")" >>"$report"; }

fetch_base() { [[ -d $base ]] || ./longreach import smollm2-135m "$base"; }

finish() { echo "report     $report"; }
