"""Unpacks nvdisasm, NVIDIA's disassembler, which one test alone uses: fetch_nvdisasm.py [ROOT].

That test reads the order of machine instructions in the cubins. nvcc's own toolkit often lacks the disassembler; without one
the test is skipped. ROOT is by default where CMake looks: longreach/nvdisasm-VERSION in the cache.
"""
import re

from fetch_libtorch import Wheel, fetch_for_tests

_WHEEL = Wheel("nvidia-cuda-nvdisasm", "13.5.37", 6, 12, "d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca")
_TOOL = "nvidia/cu13/bin/nvdisasm"
_WANTED = re.compile(_TOOL + r"|.*\.dist-info/.*[Ll]icense")


if __name__ == "__main__":
    fetch_for_tests(_WHEEL, "nvdisasm", _WANTED, [_TOOL])
