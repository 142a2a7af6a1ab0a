"""Unpacks CUTLASS' headers, which tests alone use: fetch_cutlass.py [ROOT].

CuTe's layouts say, independently of us, where tensor cores expect their elements; the interpreter's are compared with them.
Without these headers that test is skipped. ROOT is by default where CMake looks: longreach/cutlass-VERSION in the cache.
"""
import os
import re
import shutil
import sys

from fetch_libtorch import Wheel, check_free_space, download, unpack

_WHEEL = Wheel("nvidia-cutlass", "4.2.0.0", 7, 30, "f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6")
_WANTED = re.compile(r"cutlass_library/source/include/|.*\.dist-info/.*LICENSE")


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(cache, "longreach", f"cutlass-{_WHEEL.version}")
    if os.path.exists(root):
        return
    partial = root + ".partial"
    os.makedirs(partial, exist_ok=True)
    check_free_space([_WHEEL], partial)
    print(f"longreach: fetching {_WHEEL}", file=sys.stderr, flush=True)
    downloads = os.path.join(partial, "downloads")
    unpack(download(_WHEEL, downloads, partial), _WANTED, partial)
    shutil.rmtree(downloads)
    os.rename(partial, root)


if __name__ == "__main__":
    main()
