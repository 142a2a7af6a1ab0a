# Python's packages that the interoperability tests compare with, sourced by tools/test.sh: those that
# tests/interop/requirements.txt pins, in a folder of the cache of their own (1.4 GB, some 30 s with a fast line).
interop_requirements=$longreach_root/tests/interop/requirements.txt

# interop_folder: another one for other versions, or for another way to install them.
interop_folder() {
  echo "$longreach_cache/interop-$(cat "$interop_requirements" "$longreach_root/tools/interop.sh" | sha256sum | cut -c1-12)"
}

# stand_in_for_gpu_libraries PACKAGES: torch's wheel names libraries for GPUs, 3 GB that nothing calls without one. One
# library with all their functions, none of which does anything, stands under those names beside torch's own.
stand_in_for_gpu_libraries() {
  local libraries=$1/torch/lib scratch=$1/stand_in name
  mkdir "$scratch"
  nm -D -u "$libraries"/*.so 2>/dev/null | awk '{ print $2 }' | grep -E '^(cu|nccl|nvrtc|nvshmem)' |
    grep -vE '^(cuda|cupti)' | sort -u >"$scratch/functions" || return 0  # a wheel without a GPU
  sed 's/@.*//; s/.*/void &(void) {}/' "$scratch/functions" | sort -u >"$scratch/stand_in.c"
  awk -F@ 'NF > 1 { of[$2] = of[$2] " " $1 ";" } END { for (version in of) print version " { global:" of[version] " };" }' \
    "$scratch/functions" >"$scratch/versions"
  gcc -w -shared -fPIC -o "$libraries/stand_in.so" "$scratch/stand_in.c" -Wl,--version-script="$scratch/versions"
  for name in $(readelf -d "$libraries"/*.so | sed -n 's/.*NEEDED.*\[\(lib\(cu\|nccl\|nv\).*\)\]/\1/p' | sort -u); do
    # The driver's is the machine's, and is asked for by what is not loaded without a GPU.
    [[ $name == libcuda.so.1 || -e $1/nvidia/cu13/lib/$name ]] || ln -s stand_in.so "$libraries/$name"
  done
  rm -r "$scratch"
}

# install_interop PYTHON FOLDER: FOLDER/python3 is afterwards an interpreter with the packages; it appears when they are there.
install_interop() {
  local scratch=$2.$$
  rm -rf "$scratch" && mkdir "$scratch" || return
  echo "longreach: fetching Python's packages of the interoperability tests" >&2
  TMPDIR=$scratch "$1" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
    --target "$scratch/packages" -r "$interop_requirements" &&
    stand_in_for_gpu_libraries "$scratch/packages" &&
    printf '#!/bin/sh\nPYTHONPATH=%q PYTHONDONTWRITEBYTECODE= CUDA_VISIBLE_DEVICES= exec %q "$@"\n' "$2/packages" "$(command -v "$1")" \
      >"$scratch/python3" && chmod +x "$scratch/python3" && mv -T "$scratch" "$2" && return
  rm -rf "$scratch"
  return 1
}

# can_fetch PYTHON: whether any package can be had at all.
can_fetch() {
  local scratch found=0
  scratch=$(mktemp -d)
  "$1" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" MarkupSafe==3.0.4 >/dev/null 2>&1 || found=1
  rm -rf "$scratch"
  return $found
}

# set_up_interop: LONGREACH_INTEROP is afterwards the folder whose python3 the tests use. Where the packages cannot be had the
# tests say that they are skipped; CI=true fails where they could have been.
set_up_interop() {
  local folder python
  folder=$(interop_folder)
  if [[ ! -d $folder ]]; then
    make_cache
    if ! python=$(python_with_pip) || ! (take_lock "another call that fetches packages"
                                         [[ -d $folder ]] || install_interop "$python" "$folder") 9>"$longreach_cache/interop.lock"; then
      echo "longreach: SKIPPED, NOT TESTED: transformers, peft and gguf could not be installed (see above)" >&2
      [[ ${CI:-} != true || -z $python ]] || ! can_fetch "$python"
      return
    fi
  fi
  export LONGREACH_INTEROP=$folder
  "$folder/python3" -c 'import gguf, peft, sentencepiece, torch, transformers'
}
