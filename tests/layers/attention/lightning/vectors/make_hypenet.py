# Writes lightning/hypenet_layer.safetensors: a lightning layer of HypeNet and MiniCPM-SALA, token by token from its equations
# (arXiv 2601.22156) in float64, with gradients by autograd:  python3 make_hypenet.py, with torch and safetensors.
import json
import math
import os

import torch
from safetensors.torch import save_file

torch.manual_seed(12)
BATCH, TOKENS, HIDDEN, HEADS, DIM, EPS, THETA = 2, 37, 12, 6, 4, 1e-5, 1e4


def slopes(heads):
    if math.log2(heads).is_integer():
        return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
    power = 2 ** math.floor(math.log2(heads))
    return slopes(power) + slopes(2 * power)[0::2][: heads - power]


def norm(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def turned(x):
    half = DIM // 2
    angles = torch.arange(TOKENS).double()[:, None] * THETA ** (-2 * torch.arange(half).double() / DIM)
    cos, sin = angles.cos()[None, :, None], angles.sin()[None, :, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def layer(x, p):
    def heads(name):
        return (x @ p[name + ".weight"].T).view(BATCH, TOKENS, HEADS, DIM)

    q, k, v = (heads(name + "_proj") for name in "qkv")
    q, k = turned(norm(q, p["q_norm.weight"])), turned(norm(k, p["k_norm.weight"]))
    decay = torch.exp(-torch.tensor(slopes(HEADS)).double())[:, None, None]
    state, outputs = torch.zeros(BATCH, HEADS, DIM, DIM).double(), []
    for t in range(TOKENS):
        state = decay * state + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, None] @ state)[:, :, 0] / math.sqrt(DIM))
    o = norm(torch.stack(outputs, 1).flatten(2), p["o_norm.weight"])
    return (o * torch.sigmoid(x @ p["z_proj.weight"].T)) @ p["o_proj.weight"].T, state


inner = HEADS * DIM
shapes = {"q_proj": (inner, HIDDEN), "k_proj": (inner, HIDDEN), "v_proj": (inner, HIDDEN), "z_proj": (inner, HIDDEN),
          "o_proj": (HIDDEN, inner), "q_norm": (DIM,), "k_norm": (DIM,), "o_norm": (inner,)}
leaves = {f"param.{name}.weight": torch.randn(shape).double() * 0.5 + (len(shape) == 1) for name, shape in shapes.items()}
leaves["in.x"] = torch.randn(BATCH, TOKENS, HIDDEN).double()
for leaf in leaves.values():
    leaf.requires_grad_(True)
y, state = layer(leaves["in.x"], {name.removeprefix("param."): leaf for name, leaf in leaves.items()})
tensors = {"out.o": y, "out.state": state, "gout.o": torch.randn_like(y), "gout.state": torch.randn_like(state)}
((y * tensors["gout.o"]).sum() + (state * tensors["gout.state"]).sum()).backward()
tensors |= leaves | {"grad." + name.split(".", 1)[1]: leaf.grad for name, leaf in leaves.items()}
config = {"form": "hypenet", "num_attention_heads": HEADS, "head_dim": DIM, "rms_norm_eps": EPS, "rope_theta": THETA,
          "scale": "1/sqrt(d)"}
save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()},
          os.path.join(os.path.dirname(os.path.abspath(__file__)), "lightning", "hypenet_layer.safetensors"),
          {"mechanism": "lightning", "case": "hypenet_layer", "config": json.dumps(config), "layout": "B T C",
           "source": "the equations of arXiv 2601.22156 and MiniCPM-SALA (q, k norms, rotary embedding, ALiBi slopes, output norm, "
                     "sigmoid gate), token by token in float64"})
