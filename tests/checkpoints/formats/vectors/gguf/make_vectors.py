"""The vectors of this folder, by gguf 0.19.0 and sentencepiece 0.2.3 with protobuf (pip install ...): make_vectors.py

types.gguf: blocks of every type that is read, and what `gguf.quants` makes of them in float32; keys of every type.
llama.gguf, qwen2.gguf, qwen3.gguf: models as llama.cpp's converter writes them; NAME_here.gguf: their tensors but the
embedding, under the names and with the rows that Hugging Face has, in float32.
"""
import json
import math
import os

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, RopeScalingType
from gguf.quants import dequantize, quantize
from sentencepiece import sentencepiece_model_pb2

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


NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TOKENIZERS = os.path.join(HERE, "../../../../data/files")


def permuted(weights, heads):
    """The rows of a Hugging Face projection in the order that llama.cpp's converter gives them."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


class Model:
    def __init__(self, arch, seed, hidden, heads, kv_heads, head_dim, inner, vocab):
        self.random, self.arch = np.random.default_rng(seed), arch
        self.out, self.here = (GGUFWriter(os.path.join(HERE, name + ".gguf"), kind)
                               for name, kind in ((arch, arch), (arch + "_here", "none")))
        self.hidden, self.heads, self.kv_heads, self.head_dim, self.inner, self.vocab = hidden, heads, kv_heads, head_dim, inner, vocab
        self.out.add_block_count(2)
        self.out.add_context_length(64)
        self.out.add_embedding_length(hidden)
        self.out.add_feed_forward_length(inner)
        self.out.add_head_count(heads)
        self.out.add_head_count_kv(kv_heads)
        self.out.add_layer_norm_rms_eps(1e-5)

    def add(self, name, shape, kind=GGMLQuantizationType.F32, heads=0):
        data = quantize(self.random.standard_normal(shape).astype(np.float32) * 0.2, kind)
        values = dequantize(data, kind)
        if heads:
            data = permuted(data, heads)
        self.out.add_tensor(name, data, raw_dtype=kind)
        if name != "token_embd.weight":
            parts = name.split(".")
            ours = {"output_norm": "model.norm", "output": "lm_head"}.get(parts[0])
            self.here.add_tensor((ours or f"model.layers.{parts[1]}.{NAMES[parts[2]]}") + "." + parts[-1], values)

    def layers(self, kind, turn, bias=False, norms=False):
        heads, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        for layer in range(2):
            name = f"blk.{layer}."
            self.add(name + "attn_norm.weight", (self.hidden,))
            for part, rows, turning in (("q", heads, self.heads), ("k", kv, self.kv_heads), ("v", kv, 0)):
                self.add(name + f"attn_{part}.weight", (rows, self.hidden), kind, turning if turn else 0)
                if bias:
                    self.add(name + f"attn_{part}.bias", (rows,))
            self.add(name + "attn_output.weight", (self.hidden, heads), kind)
            if norms:
                self.add(name + "attn_q_norm.weight", (self.head_dim,))
                self.add(name + "attn_k_norm.weight", (self.head_dim,))
            self.add(name + "ffn_norm.weight", (self.hidden,))
            self.add(name + "ffn_gate.weight", (self.inner, self.hidden), kind)
            self.add(name + "ffn_up.weight", (self.inner, self.hidden), kind)
            self.add(name + "ffn_down.weight", (self.hidden, self.inner), kind)
        self.add("output_norm.weight", (self.hidden,))

    def close(self):
        for file in (self.out, self.here):
            file.write_header_to_file()
            file.write_kv_data_to_file()
            file.write_tensors_to_file()
            file.close()


def llama3_divisors(head_dim, theta, factor, low, high, length):
    """As transformers' _compute_llama3_parameters."""
    divisors = []
    for i in range(0, head_dim, 2):
        wave = 2 * math.pi * theta**(i / head_dim)
        if wave < length / high:
            divisors.append(1.0)
        elif wave > length / low:
            divisors.append(factor)
        else:
            smooth = (length / wave - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, dtype=np.float32)


def llama():
    with open(os.path.join(TOKENIZERS, "bpe_smollm.json"), encoding="utf-8") as file:
        tokenizer = json.load(file)
    texts = {id: text for text, id in tokenizer["model"]["vocab"].items()}
    kinds = {token["id"]: 3 if token["special"] else 4 for token in tokenizer["added_tokens"]}
    texts.update({token["id"]: token["content"] for token in tokenizer["added_tokens"]})
    model = Model("llama", 1, 32, 2, 1, 16, 64, len(texts))
    out = model.out
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(16)
    out.add_vocab_size(len(texts))
    out.add_name("a small one")
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("smollm")
    out.add_token_list([texts[i] for i in range(len(texts))])
    out.add_token_types([kinds.get(i, 1) for i in range(len(texts))])
    out.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    out.add_bos_token_id(next(i for i in texts if texts[i] == "<|im_start|>"))
    out.add_eos_token_id(next(i for i in texts if texts[i] == "<|im_end|>"))
    out.add_add_bos_token(False)
    out.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    model.add("token_embd.weight", (model.vocab, model.hidden), GGMLQuantizationType.Q8_0)
    model.layers(GGMLQuantizationType.Q4_0, turn=True)
    out.add_tensor("rope_freqs.weight", llama3_divisors(16, 10000.0, 8.0, 1.0, 4.0, 512))
    model.close()


def qwen2():
    model = Model("qwen2", 2, 16, 2, 1, 8, 32, 40)
    model.out.add_rope_freq_base(1e6)
    model.out.add_rope_scaling_type(RopeScalingType.YARN)
    model.out.add_rope_scaling_factor(4.0)
    model.out.add_rope_scaling_orig_ctx_len(16)
    model.out.add_tokenizer_model("none")
    model.add("token_embd.weight", (model.vocab, model.hidden), GGMLQuantizationType.F16)
    model.layers(GGMLQuantizationType.BF16, turn=False, bias=True)
    model.add("output.weight", (model.vocab, model.hidden), GGMLQuantizationType.F16)
    model.close()


def qwen3():
    tokenizer = sentencepiece_model_pb2.ModelProto()
    with open(os.path.join(TOKENIZERS, "pairs_fallback.model"), "rb") as file:
        tokenizer.ParseFromString(file.read())
    count = len(tokenizer.pieces)
    model = Model("qwen3", 3, 16, 4, 2, 8, 32, count)
    out = model.out
    out.add_rope_freq_base(1e6)
    out.add_key_length(8)
    out.add_value_length(8)
    out.add_rope_scaling_type(RopeScalingType.LINEAR)
    out.add_rope_scaling_factor(2.0)
    out.add_tokenizer_model("llama")
    out.add_token_list([piece.piece for piece in tokenizer.pieces])
    out.add_token_scores([piece.score for piece in tokenizer.pieces])
    out.add_token_types([piece.type for piece in tokenizer.pieces])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_remove_extra_whitespaces(tokenizer.normalizer_spec.remove_extra_whitespaces)
    model.add("token_embd.weight", (count, 16), GGMLQuantizationType.F16)
    model.layers(GGMLQuantizationType.F16, turn=False, norms=True)
    model.close()


if __name__ == "__main__":
    types()
    llama()
    qwen2()
    qwen3()
