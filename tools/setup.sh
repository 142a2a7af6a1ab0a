# Set-up and build, sourced by ./longreach. Every step is skipped in milliseconds once done, is safe when several calls run
# at the same time (flock; only who has something to do asks for it), and fails with one line that says what to do (exit code 2).
# LONGREACH_SKIP_PACKAGES=1: no Debian packages; what CMake needs comes from somewhere else (docs/setup.md).
longreach_home=${HOME:-$(getent passwd "$EUID" | cut -d: -f6)}
longreach_cache=${XDG_CACHE_HOME:-$longreach_home/.cache}/longreach
# ccache knows what another copy of the tree has compiled, since paths of the tree are relative to it. A precompiled header
# is cached only when ccache is told that its defines and times do not matter.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$longreach_root} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros,include_file_mtime,include_file_ctime}

build_packages=(ccache cmake g++ gnuplot-nox libcli11-dev libeigen3-dev libgloo-dev libgmock-dev libgtest-dev libhdf5-dev libhwy-dev
                libtomlplusplus-dev libutf8proc-dev libxxhash-dev libzstd-dev mold ninja-build nlohmann-json3-dev pkg-config zlib1g-dev)
fetch_packages=(ca-certificates python3 python3-pip)
test_packages=(clang-format-14 clang-tidy-14 python3)
fuzz_packages=(clang-14 libclang-rt-14-dev)
engine_packages=(iproute2 munge nftables openmpi-bin slurm-wlm)  # of tests that say so and are skipped without them

fail() {
  echo "longreach: $*" >&2
  exit 2
}

# asks_for_help ARGUMENT...: as the program sees it; nothing at all counts.
asks_for_help() {
  (($#)) || return 0
  [[ $1 == help || " $* " == *" --help "* || " $* " == *" -h "* ]]
}

# print_first_help: what can be said before the program is built.
print_first_help() {
  cat <<'EOF'
usage: ./longreach VERB ...

  ./longreach train CONFIG [--section.key value ...]   trains as the TOML file says; configs/quickstart.toml to begin with
  ./longreach info                                     the machine, and every mechanism with its options
  ./longreach test                                     every check and every test

The program is not built yet: any verb installs what is missing (docs/setup.md), builds it, and then runs; help has more to
say from then on.
EOF
}

# make_cache: the cache folder exists afterwards.
make_cache() {
  { mkdir -p "$longreach_cache" && : >>"$longreach_cache/lock"; } 2>/dev/null ||
    fail "cannot write to $longreach_cache; XDG_CACHE_HOME chooses another place for the set-up"
}

# take_lock WHAT: locks descriptor 9, says after a second that it waits for WHAT, and goes on with a warning where the file
# system has no locks.
take_lock() {
  local held=75 result=0
  flock -E $held -w 1 9 2>/dev/null || result=$?
  ((result != held)) || { echo "longreach: waiting for $1" >&2; result=0; flock 9 2>/dev/null || result=$?; }
  ((result == 0)) || echo "longreach: warning: the file system of the lock has none; call nothing else here meanwhile" >&2
}

# missing_packages NAME...: those that are not installed, one a line.
missing_packages() {
  local name have
  have=$'\n'$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null || true)
  for name; do
    [[ $have == *$'\n'"$name ii"* ]] || echo "$name"
  done
}

is_root() { ((EUID == 0)); }

# apt LOG ARGUMENT...: apt-get once nobody else holds its locks. It waits by itself for those of packages, but `update` gives
# up at once when another holds the one of the lists. What packages start must not keep our lock.
apt() {
  local log=$1 patience=600 begin=$SECONDS
  shift
  while ! LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=$patience "$@" </dev/null >"$log" 2>&1 9>&-; do
    grep -qE '(get lock|lock directory) /var/(lib/apt/lists|cache/apt)' "$log" && ((SECONDS - begin < patience)) || return
    ((SECONDS > begin)) || echo "longreach: waiting for another apt-get" >&2
    sleep 1
  done
}

# start_no_services: until this shell exits. munge and Slurm bring daemons, and the tests start their own. Debian asks this
# file, which stays as it is where a machine has it.
services_policy=/usr/sbin/policy-rc.d
start_no_services() {
  [[ ! -e $services_policy ]] || return 0
  trap 'rm -f "$services_policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$services_policy"
  chmod 755 "$services_policy"
}

# install_packages NAME...: Debian packages, as root; anyone else is told the command. Several calls: one installs, the others
# wait and find everything there.
install_packages() {
  command -v apt-get >/dev/null || fail "not a Debian system; docs/setup.md names what these packages bring: $*"
  is_root || fail "packages are missing; as root, run: apt-get install -y $* (without root: docs/setup.md)"
  make_cache
  (
    take_lock "another call that installs packages"
    local log=$longreach_cache/apt.log missing why
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || exit 0
    echo "longreach: installing Debian packages: ${missing[*]}" >&2
    start_no_services
    local install=(install -y --no-install-recommends "${missing[@]}")
    apt "$log" "${install[@]}" || { apt "$log" update && apt "$log" "${install[@]}"; } && exit
    why=$(grep -m1 -E 'Temporary failure|Could not (resolve|connect)|No space left|Unable to locate|^E:' "$log" || true)
    fail "could not install ${missing[*]} (${why:-apt-get failed}; whole output: $log); the same command goes on from there"
  ) 9>"$longreach_cache/packages.lock" || exit
}

# set_up_engines: goes on without them where they cannot be had.
set_up_engines() {
  local missing
  mapfile -t missing < <(missing_packages "${engine_packages[@]}")
  ((${#missing[@]} == 0)) || (install_packages "${missing[@]}") ||
    echo "longreach: tests that start mpirun and Slurm, or cut a cable, go without: ${missing[*]}" >&2
}

# set_up_packages build|test|fuzz
set_up_packages() {
  local wanted=("${build_packages[@]}") missing
  [[ -z ${LONGREACH_SKIP_PACKAGES:-} || $LONGREACH_SKIP_PACKAGES == 0 ]] || return 0
  [[ $1 == test ]] && wanted+=("${test_packages[@]}")
  [[ $1 == fuzz ]] && wanted+=("${fuzz_packages[@]}")
  command -v dpkg-query >/dev/null || return 0  # not Debian: CMake names what it lacks
  mapfile -t missing < <(missing_packages "${wanted[@]}")
  ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
  [[ $1 != test ]] || set_up_engines
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
    take_lock "another call that fetches LibTorch"
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

# is_configured PRESET: for this LibTorch and this place of the tree.
is_configured() {
  local folder cache
  folder=$(build_folder "$1") cache=$(build_folder "$1")/CMakeCache.txt
  [[ -f $folder/build.ninja ]] && grep -qxF "LONGREACH_TORCH_ROOT:PATH=$LONGREACH_TORCH_ROOT" "$cache" &&
    grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$longreach_root" "$cache"
}

# configure PRESET: once, and again when LibTorch or the tree has moved.
configure() {
  local folder
  folder=$(build_folder "$1")
  ! is_configured "$1" || return 0
  echo "longreach: configuring ${folder##*/}" >&2
  (cd "$longreach_root" && cmake --fresh --preset "$1" -DLONGREACH_TORCH_ROOT:PATH="$LONGREACH_TORCH_ROOT") \
    >"$folder/configure.log" 2>&1 || {
    cat "$folder/configure.log" >&2
    fail "CMake could not configure $folder"
  }
}

# cmake_inputs FOLDER: the files that the build was configured from, one a line; in build.ninja `$ ` is a space in a name.
cmake_inputs() {
  sed -n 's/^build build\.ninja: [^|]*| //p' "$1/build.ninja" | sed 's/ || .*//; s/\$ /\x01/g' | tr ' \001' '\n ' | sed 's/\$\(.\)/\1/g'
}

# up_to_date PRESET TARGET...: whether nothing is to be built. It only reads, so it needs no lock, works where nothing can be
# written, and says no while another call builds. Ninja's own dry run ends at CMake's check of the globs, which is due
# always: so that check is made here, and ninja is given a file that it does not know how to make again.
up_to_date() {
  local folder input
  is_configured "$1" || return
  folder=$(build_folder "$1")
  shift
  while read -r input; do
    [[ $input == /* ]] || input=$folder/$input
    [[ -e $input && ! $input -nt $folder/build.ninja ]] || return
  done < <(cmake_inputs "$folder")
  [[ ! -f $folder/CMakeFiles/VerifyGlobs.cmake || -z $(cmake -P "$folder/CMakeFiles/VerifyGlobs.cmake" 2>&1) ]] || return
  [[ $(ninja -C "$folder" -f <(echo "include build.ninja") -n "$@" 2>&1) == *"ninja: no work to do."* ]]
}

# build PRESET TARGET...: builds what has changed; silent when nothing has.
build() {
  local preset=$1 folder
  ! up_to_date "$@" || return 0
  shift
  folder=$(build_folder "$preset")
  { mkdir -p "$folder" && : >>"$folder/.lock"; } 2>/dev/null || fail "cannot write to $folder"
  (
    take_lock "another build of this tree"
    check_build_space "$folder"
    configure "$preset"
    set +e
    NINJA_STATUS='[%f/%t, %es] ' ninja -C "$folder" -j "$(job_count)" "$@" 2>&1 |
      grep --line-buffered -vE '^ninja: (no work to do|Entering directory)|Re-checking globbed' >&2
    exit "${PIPESTATUS[0]}"
  ) 9>"$folder/.lock" || fail "$folder could not be built (see above)"
}
