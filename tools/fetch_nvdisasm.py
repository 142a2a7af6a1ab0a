"""Unpacks nvdisasm, NVIDIA's disassembler, which one test alone uses: fetch_nvdisasm.py [ROOT].

That test reads the order of machine instructions in the cubins. nvcc's own toolkit often lacks the disassembler; without one
the test is skipped. ROOT is by default where CMake looks: longreach/nvdisasm-VERSION in the cache.
"""
import os
import re
import shutil
import sys

from fetch_libtorch import Wheel, check_free_space, download, unpack

_WHEEL = Wheel("nvidia-cuda-nvdisasm", "13.5.37", 6, 12, "d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca")
_TOOL = "nvidia/cu13/bin/nvdisasm"
_WANTED = re.compile(_TOOL + r"|.*\.dist-info/.*[Ll]icense")


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(cache, "longreach", f"nvdisasm-{_WHEEL.version}")
    if os.path.exists(root):
        return
    partial = root + ".partial"
    os.makedirs(partial, exist_ok=True)
    check_free_space([_WHEEL], partial)
    print(f"longreach: fetching {_WHEEL}", file=sys.stderr, flush=True)
    downloads = os.path.join(partial, "downloads")
    unpack(download(_WHEEL, downloads, partial), _WANTED, partial)
    os.chmod(os.path.join(partial, _TOOL), 0o755)
    shutil.rmtree(downloads)
    os.rename(partial, root)


if __name__ == "__main__":
    main()
