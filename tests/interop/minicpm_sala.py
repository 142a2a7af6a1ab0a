"""MiniCPM-SALA in float64, from the equations of arXiv 2602.11761 and 2601.22156: no program that has it runs on a CPU.

minicpm_sala.py FOLDER...   reads FOLDER/model (config.json and model.safetensors, by their published keys and names), and prints one
                            line of JSON: its class, the names that were missing or not read, the largest error of its logits
                            against FOLDER/expected.safetensors (input_ids, logits), and the largest logit.
"""
import json
import math
import sys

import torch
from safetensors.torch import load_file


class Weights:
    """Tensors by name, which notes those that were asked for."""

    def __init__(self, path):
        self.tensors, self.read, self.missing = load_file(path), set(), []

    def __call__(self, name):
        self.read.add(name)
        if name not in self.tensors:
            self.missing.append(name)
        return self.tensors[name].double()


def rms_norm(x, weight, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotary(x, theta):
    """x [B, T, H, D]: feature i turns with feature i + D / 2 by t theta^(-2 i / D)."""
    tokens, half = x.shape[1], x.shape[-1] // 2
    angles = torch.arange(tokens).double()[:, None] * theta ** (-torch.arange(half).double() / half)
    cos, sin = angles.cos()[None, :, None], angles.sin()[None, :, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def slopes(heads):
    if heads & (heads - 1) == 0:
        return [2.0 ** (-8 * (h + 1) / heads) for h in range(heads)]
    power = 2 ** int(math.log2(heads))
    return slopes(power) + slopes(2 * power)[0::2][: heads - power]


def lightning(x, name, weights, config):
    batch, tokens, _ = x.shape
    heads, dim = config["lightning_nh"], config["lightning_head_dim"]
    assert config["lightning_nkv"] == heads and config["qk_norm"] and config["use_output_norm"] and config["use_output_gate"]

    def project(part):
        return (x @ weights(f"{name}.{part}_proj.weight").T).view(batch, tokens, heads, dim)

    q = rms_norm(project("q"), weights(f"{name}.q_norm.weight"), config["rms_norm_eps"])
    k = rms_norm(project("k"), weights(f"{name}.k_norm.weight"), config["rms_norm_eps"])
    v = project("v")
    if config["lightning_use_rope"]:
        q, k = rotary(q, config["rope_theta"]), rotary(k, config["rope_theta"])
    scale = {"1/sqrt(d)": dim**-0.5, "1/d": 1 / dim}.get(config["lightning_scale"], 1.0)
    decay = torch.exp(-torch.tensor(slopes(heads)).double())[:, None, None]
    state, outputs = torch.zeros(batch, heads, dim, dim).double(), []
    for t in range(tokens):
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append(scale * (q[:, t, :, None] @ state).flatten(1))
    o = rms_norm(torch.stack(outputs, 1), weights(f"{name}.o_norm.weight"), config["rms_norm_eps"])
    return (o * torch.sigmoid(x @ weights(f"{name}.z_proj.weight").T)) @ weights(f"{name}.o_proj.weight").T


def chosen_keys(q, k, sparse):
    """InfLLM-V2 (arXiv 2509.24663), query by query: q [B, H, T, D], k [B, HK, T, D] -> bool [B, HK, T, T]."""
    batch, kv_heads, tokens, dim = k.shape
    size, stride, length = sparse["kernel_size"], sparse["kernel_stride"], sparse["block_size"]
    kept, local = sparse["topk"] + sparse["window_size"] // length, sparse["window_size"] // length + 1
    assert not sparse["use_nope"]
    read = torch.zeros(batch, kv_heads, tokens, tokens, dtype=torch.bool)
    for b, g, t in ((b, g, t) for b in range(batch) for g in range(kv_heads) for t in range(tokens)):
        if t + 1 < sparse["dense_len"]:
            read[b, g, t] = True
            continue

        def logits(width, step):
            means = [k[b, g, i : i + width].mean(0) for i in range(0, t + 2 - width, step)]
            return [[float(query @ mean) / math.sqrt(dim) for mean in means] for query in q[b].view(kv_heads, -1, tokens, dim)[g, :, t]]

        fine, coarse = logits(size, stride), logits(4 * size, 4 * stride)
        own, scores = t // length, {}
        for block in range(own + 1):
            forced = block < sparse["init_blocks"] or block > own - local
            windows = [i for i in range(len(fine[0])) if i * stride + size > block * length and i * stride < (block + 1) * length]
            votes = [sum(math.exp(f[i]) / sum(map(math.exp, c)) for f, c in zip(fine, coarse)) for i in windows if coarse[0]]
            scores[block] = math.inf if forced else max(votes, default=0.0)
        for block in sorted(scores, key=lambda one: (-scores[one], one))[:kept]:
            read[b, g, t, block * length : (block + 1) * length] = True
    return read


def minicpm4(x, name, weights, config):
    batch, tokens, _ = x.shape
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    assert not config["attn_use_rope"]

    def project(part, count):
        return (x @ weights(f"{name}.{part}_proj.weight").T).view(batch, tokens, count, dim).transpose(1, 2)

    q, k, v = project("q", heads), project("k", kv_heads), project("v", kv_heads)
    seen = torch.ones(tokens, tokens).tril().bool()
    if config["sparse_config"] is not None:
        seen = seen & chosen_keys(q, k, config["sparse_config"]).repeat_interleave(heads // kv_heads, 1)
    k, v = (y.repeat_interleave(heads // kv_heads, 1) for y in (k, v))
    scores = (q @ k.transpose(-1, -2) * dim**-0.5).masked_fill(~seen, -math.inf)
    o = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    if config["attn_use_output_gate"]:
        o = o * torch.sigmoid(x @ weights(f"{name}.o_gate.weight").T)
    return o @ weights(f"{name}.o_proj.weight").T


def model(ids, weights, config):
    layers = config["num_hidden_layers"]
    branch, eps = config["scale_depth"] / math.sqrt(layers), config["rms_norm_eps"]
    assert config["mixer_types"][0] == "minicpm4" and len(config["mixer_types"]) == layers
    table = weights("model.embed_tokens.weight")
    x = table[ids] * config["scale_emb"]
    for number, mixer in enumerate(config["mixer_types"]):
        name = f"model.layers.{number}"
        normed = rms_norm(x, weights(f"{name}.input_layernorm.weight"), eps)
        attention = {"minicpm4": minicpm4, "lightning-attn": lightning}[mixer]
        x = x + branch * attention(normed, f"{name}.self_attn", weights, config)
        normed = rms_norm(x, weights(f"{name}.post_attention_layernorm.weight"), eps)
        gate, up = (normed @ weights(f"{name}.mlp.{part}_proj.weight").T for part in ("gate", "up"))
        x = x + branch * ((torch.nn.functional.silu(gate) * up) @ weights(f"{name}.mlp.down_proj.weight").T)
    x = rms_norm(x, weights("model.norm.weight"), eps) / (config["hidden_size"] / config["dim_model_base"])
    return x @ (table if config["tie_word_embeddings"] else weights("lm_head.weight")).T


for folder in sys.argv[1:]:
    with open(folder + "/model/config.json") as file:
        published = json.load(file)
    source, expected = Weights(folder + "/model/model.safetensors"), load_file(folder + "/expected.safetensors")
    logits = model(expected["input_ids"], source, published)
    print(json.dumps({"class": published["architectures"][0], "model_type": published["model_type"], "missing": source.missing,
                      "unexpected": sorted(set(source.tensors) - source.read),
                      "error": (logits - expected["logits"].double()).abs().max().item(),
                      "largest": expected["logits"].abs().max().item()}), flush=True)
