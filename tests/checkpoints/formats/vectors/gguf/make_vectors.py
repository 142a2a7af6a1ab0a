"""The vectors of this folder, by the package gguf 0.19.0 (pip install gguf==0.19.0): make_vectors.py

types.gguf: blocks of every type that is read, and what `gguf.quants` makes of them in float32; keys of every type.
"""
import os

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, COLUMNS = 3, 512
# Bytes of a block, and where its halves (scales, minima) lie in it.
RANDOM = {"Q4_0": (18, [0]), "Q4_1": (20, [0, 2]), "Q5_0": (22, [0]), "Q5_1": (24, [0, 2]), "Q8_0": (34, [0]),
          "Q4_K": (144, [0, 2]), "Q5_K": (176, [0, 2]), "Q6_K": (210, [208])}
BLOCK = {name: 256 if name.endswith("K") else 32 for name in RANDOM}


def random_blocks(name, random):
    """Any bytes at all, but halves that are finite numbers."""
    size, halves = RANDOM[name]
    blocks = random.integers(0, 256, (ROWS, COLUMNS // BLOCK[name], size), dtype=np.uint8)
    for at in halves:
        numbers = random.standard_normal(blocks.shape[:2]).astype(np.float16)
        blocks[..., at:at + 2] = numbers[..., None].view(np.uint8)
    return blocks.reshape(ROWS, -1)


def add_type(out, name, data):
    kind = GGMLQuantizationType[name]
    out.add_tensor(name, data, raw_dtype=kind)
    out.add_tensor(name + ".f32", dequantize(data, kind))


def types():
    random = np.random.default_rng(12)
    out = GGUFWriter(os.path.join(HERE, "types.gguf"), "none")
    for name in RANDOM:
        add_type(out, name, random_blocks(name, random))
    values = random.standard_normal((ROWS, 64)).astype(np.float32)
    add_type(out, "F16", quantize(values, GGMLQuantizationType.F16))
    add_type(out, "BF16", quantize(values, GGMLQuantizationType.BF16))
    # What rounding may trip over: ties, zeros, a block of zeros, subnormal scales, large and small together.
    hard = np.concatenate([np.arange(-16, 16) * 127 / 254, np.zeros(32), np.full(32, 1e-7), np.linspace(-1e4, 1e-4, 32),
                           random.standard_normal(128)]).astype(np.float32)[None]
    out.add_tensor("to_q8_0.f32", hard)
    out.add_tensor("to_q8_0", quantize(hard, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    for kind, value in (("UINT8", 200), ("INT8", -100), ("UINT16", 60000), ("INT16", -30000), ("UINT32", 4000000000),
                        ("INT32", -2000000000), ("UINT64", 1 << 62), ("INT64", -(1 << 62)), ("FLOAT32", 0.5),
                        ("FLOAT64", 0.1), ("BOOL", True), ("STRING", "gr\u00fc\u00df")):
        out.add_key_value("key." + kind, value, GGUFValueType[kind])
    out.add_array("key.strings", ["a", "", "\u4e16"])
    out.add_array("key.integers", [1, -2, 3])
    out.add_array("key.reals", [0.5, -1.5])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    types()
