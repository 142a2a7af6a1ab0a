# Set-up and build, sourced by ./longreach. Every step is skipped in milliseconds once done, is safe when several calls run
# at the same time (flock), and fails with one line that says what to do (exit code 2).
longreach_home=${HOME:-$(getent passwd "$EUID" | cut -d: -f6)}
longreach_cache=${XDG_CACHE_HOME:-$longreach_home/.cache}/longreach
# A precompiled header is cached by ccache only when told that its defines and times do not matter.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros,include_file_mtime,include_file_ctime}

build_packages=(ccache cmake g++ gnuplot-nox libcli11-dev libeigen3-dev libgmock-dev libgtest-dev libhdf5-dev libhwy-dev
                libtomlplusplus-dev libutf8proc-dev libxxhash-dev libzstd-dev mold ninja-build nlohmann-json3-dev pkg-config zlib1g-dev)
fetch_packages=(ca-certificates python3 python3-pip)
test_packages=(clang-format-14 clang-tidy-14 python3)

fail() {
  echo "longreach: $*" >&2
  exit 2
}

# make_cache: the cache folder exists afterwards.
make_cache() {
  { mkdir -p "$longreach_cache" && : >>"$longreach_cache/lock"; } 2>/dev/null ||
    fail "cannot write to $longreach_cache; XDG_CACHE_HOME chooses another place for the set-up"
}

# missing_packages NAME...: those that are not installed, one a line.
missing_packages() {
  local name have
  have=$'\n'$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null || true)
  for name; do
    [[ $have == *$'\n'"$name ii"* ]] || echo "$name"
  done
}

# install_packages NAME...: Debian packages, as root; anyone else is told the command.
install_packages() {
  command -v apt-get >/dev/null || fail "not a Debian system; install what these packages bring: $*"
  ((EUID == 0)) || fail "packages are missing; as root, run: apt-get install -y $*"
  make_cache
  local log=$longreach_cache/apt.log
  local install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 "$@")
  echo "longreach: installing Debian packages: $*" >&2
  export DEBIAN_FRONTEND=noninteractive
  "${install[@]}" </dev/null >"$log" 2>&1 && return
  { apt-get update -o DPkg::Lock::Timeout=600 && "${install[@]}"; } </dev/null >"$log" 2>&1 && return
  local why
  why=$(grep -m1 -E 'Temporary failure|Could not (resolve|connect)|No space left|Unable to locate|^E:' "$log" || true)
  fail "could not install $* (${why:-apt-get failed}; whole output: $log); the same command goes on from there"
}

# set_up_packages build|test
set_up_packages() {
  local wanted=("${build_packages[@]}") missing
  [[ $1 == test ]] && wanted+=("${test_packages[@]}")
  command -v dpkg-query >/dev/null || return 0  # not Debian: CMake names what it lacks
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# python_with_pip: the interpreter that can fetch wheels.
python_with_pip() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -m pip --version >/dev/null 2>&1 && echo "$python" && return
  done
  return 1
}

# set_up_libtorch: LONGREACH_TORCH_ROOT is afterwards a folder that holds the pinned LibTorch: the small set on a machine
# without a CUDA compiler, the whole one beside nvcc. Set beforehand, it is taken as it is.
set_up_libtorch() {
  [[ -z ${LONGREACH_TORCH_ROOT:-} ]] || return 0
  local lock=$longreach_root/cmake/libtorch.lock kind=cpu version python
  command -v nvcc >/dev/null && kind=cuda
  version=$(awk '$2 == "torch" { print $3 }' "$lock")
  export LONGREACH_TORCH_ROOT=$longreach_cache/torch-$version-$kind
  [[ -d $LONGREACH_TORCH_ROOT ]] && return
  make_cache
  python=$(python_with_pip) || {
    command -v dpkg-query >/dev/null || fail "python3 with pip is missing; it fetches LibTorch"
    install_packages "${fetch_packages[@]}"
    python=/usr/bin/python3
  }
  (
    flock 9
    [[ -d $LONGREACH_TORCH_ROOT ]] || "$python" "$longreach_root/tools/fetch_libtorch.py" "$lock" "$kind" "$LONGREACH_TORCH_ROOT"
  ) 9>"$longreach_cache/lock" || exit 2
}

# build_folder PRESET
build_folder() {
  [[ $1 == release ]] && echo "$longreach_root/build" || echo "$longreach_root/build-$1"
}

# job_count: compilers to run at once; one may take 2 GB.
job_count() {
  awk -v cores="$(nproc)" '/^MemAvailable/ { n = int($2 / 2097152) } END { if (n > cores) n = cores; print n < 1 ? 1 : n }' /proc/meminfo
}

# check_build_space FOLDER: before a first build, rather than a compiler's message half an hour later.
check_build_space() {
  local needed=4 free
  free=$(df --output=avail -BG "$1" | tail -1 | tr -dc 0-9)
  [[ -f $1/build.ninja ]] || ((free >= needed)) || fail "disk full: the build needs $needed GB in $1, $free GB are free"
}

# configure PRESET: once, and again when LibTorch or the tree has moved.
configure() {
  local folder cache
  folder=$(build_folder "$1") cache=$(build_folder "$1")/CMakeCache.txt
  [[ -f $folder/build.ninja ]] && grep -qxF "LONGREACH_TORCH_ROOT:PATH=$LONGREACH_TORCH_ROOT" "$cache" &&
    grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$longreach_root" "$cache" && return
  echo "longreach: configuring ${folder##*/}" >&2
  (cd "$longreach_root" && cmake --fresh --preset "$1" -DLONGREACH_TORCH_ROOT:PATH="$LONGREACH_TORCH_ROOT") \
    >"$folder/configure.log" 2>&1 || {
    cat "$folder/configure.log" >&2
    fail "CMake could not configure $folder"
  }
}

# build PRESET TARGET...: builds what has changed; silent when nothing has.
build() {
  local preset=$1 folder
  shift
  folder=$(build_folder "$preset")
  mkdir -p "$folder" 2>/dev/null || fail "cannot write to $folder"
  (
    flock 9
    check_build_space "$folder"
    configure "$preset"
    set +e
    NINJA_STATUS='[%f/%t, %es] ' ninja -C "$folder" -j "$(job_count)" "$@" 2>&1 |
      grep --line-buffered -vE '^ninja: (no work to do|Entering directory)|Re-checking globbed' >&2
    exit "${PIPESTATUS[0]}"
  ) 9>"$folder/.lock" || fail "$folder could not be built (see above)"
}
