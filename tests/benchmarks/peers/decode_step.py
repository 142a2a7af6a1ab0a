"""Decoding and prefill of a Llama in plain PyTorch, eager: keys and values in a cache that is there from the beginning.

Requests: prepare (sizes, dtype, files with our weights), logits (tokens fed at once, then one by one -> the last logits in
a file), decode and prefill (tokens, steps, repeats -> wall, cpu). Names of parameters are those of a Hugging Face Llama,
and of ours.
"""
import sys
import time

from protocol import serve_requests
import torch  # after protocol, which says so when there is none
from torch.nn import functional as F

from train_step import read


class Llama:
    def __init__(self, request):
        torch.set_num_threads(request["threads"])
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[request["dtype"]]
        self.weights = {name: read(file).to(dtype) for name, file in request["files"].items()}
        self.embedding = self.weights["model.embed_tokens.weight"]
        self.head = self.weights.get("lm_head.weight", self.embedding)
        self.layers, self.eps = request["layers"], request["norm_eps"]
        dim, limit = request["head_dim"], request["limit"]
        frequencies = request["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.arange(limit, dtype=torch.float64)[:, None] * frequencies
        self.cos, self.sin = (f(torch.cat((angles, angles), -1)).to(dtype) for f in (torch.cos, torch.sin))
        self.heads = {"q": request["heads"], "k": request["kv_heads"], "v": request["kv_heads"]}
        shape = (self.layers, 1, request["kv_heads"], limit, dim)
        self.keys, self.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.weights[name + ".weight"], self.eps)

    def linear(self, x, name):
        return F.linear(x, self.weights[name + ".weight"])

    def attention(self, x, layer, seen):
        name, end = f"model.layers.{layer}.self_attn.", seen + x.shape[1]
        q, k, v = (self.linear(x, f"{name}{part}_proj").unflatten(-1, (self.heads[part], -1)).transpose(1, 2)
                   for part in "qkv")
        cos, sin = self.cos[seen:end], self.sin[seen:end]

        def turn(y):
            left, right = y.chunk(2, -1)
            return y * cos + torch.cat((-right, left), -1) * sin

        self.keys[layer, :, :, seen:end], self.values[layer, :, :, seen:end] = turn(k), v
        o = F.scaled_dot_product_attention(turn(q), self.keys[layer, :, :, :end], self.values[layer, :, :, :end],
                                           is_causal=seen == 0, enable_gqa=True)
        return self.linear(o.transpose(1, 2).flatten(2), name + "o_proj")

    def feed(self, tokens, seen):
        """The logits after the last of these tokens, which follow `seen` ones."""
        x = F.embedding(torch.tensor([tokens]), self.embedding)
        for layer in range(self.layers):
            name = f"model.layers.{layer}."
            x = x + self.attention(self.norm(x, name + "input_layernorm"), layer, seen)
            y = self.norm(x, name + "post_attention_layernorm")
            y = F.silu(self.linear(y, name + "mlp.gate_proj")) * self.linear(y, name + "mlp.up_proj")
            x = x + self.linear(y, name + "mlp.down_proj")
        return F.linear(self.norm(x[:, -1], "model.norm"), self.head)

    def logits(self, request):
        tokens, begin = request["tokens"], request["at_once"]
        last = self.feed(tokens[:begin], 0)
        for i in range(begin, len(tokens)):
            last = self.feed(tokens[i:i + 1], i)
        torch.from_file(request["file"], shared=True, size=last.numel(), dtype=torch.float32).copy_(
            last.flatten().float())
        return {}

    def decode(self, tokens, steps):
        last = self.feed(tokens, 0)

        def work():
            logits = last
            for i in range(steps):
                logits = self.feed([logits.argmax().item()], len(tokens) + i)

        return work


def timed(prepare, repeats):
    """What prepare() returns, `repeats` times; preparing is not timed."""
    total = {"wall": 0.0, "cpu": 0.0}
    for _ in range(repeats):
        work = prepare()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        total["wall"] += time.perf_counter() - wall
        total["cpu"] += time.process_time() - cpu
    return total


def main():
    model = None

    def answer(request):
        nonlocal model
        if request["op"] == "prepare":
            model = Llama(request)
            return {}
        if request["op"] == "logits":
            return model.logits(request)
        tokens = request["tokens"]
        if request["op"] == "prefill":
            return timed(lambda: lambda: model.feed(tokens, 0), request["repeats"])
        return timed(lambda: model.decode(tokens, request["steps"]), request["repeats"])

    with torch.inference_mode():
        serve_requests(answer)


if __name__ == "__main__":
    sys.exit(main())
