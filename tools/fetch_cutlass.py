"""Unpacks CUTLASS' headers, which tests alone use: fetch_cutlass.py [ROOT].

CuTe's layouts say, independently of us, where tensor cores expect their elements; the interpreter's are compared with them.
Without these headers that test is skipped. ROOT is by default where CMake looks: longreach/cutlass-VERSION in the cache.
"""
import re

from fetch_libtorch import Wheel, fetch_for_tests

_WHEEL = Wheel("nvidia-cutlass", "4.2.0.0", 7, 30, "f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6")
_WANTED = re.compile(r"cutlass_library/source/include/|.*\.dist-info/.*LICENSE")


if __name__ == "__main__":
    fetch_for_tests(_WHEEL, "cutlass", _WANTED)
