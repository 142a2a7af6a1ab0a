"""A training step of a Llama-like decoder in plain PyTorch, eager or under torch.compile.

Requests: prepare (sizes, dtype, peer, optimizer, files with our weights and tokens), losses (steps -> one loss each), run
(repeats -> wall, cpu). Names of parameters are those of a Hugging Face Llama, and of ours.
"""
import sys

from protocol import serve_requests, timed
import torch  # after protocol, which says so when there is none
from torch import nn
from torch.nn import functional as F


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x, cos, sin):
        def heads(y):
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        def turn(y):
            left, right = y.chunk(2, -1)
            return (y * cos + torch.cat((-right, left), -1) * sin).to(y.dtype)

        q, k, v = turn(heads(self.q_proj(x))), turn(heads(self.k_proj(x))), heads(self.v_proj(x))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(o.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, width, heads, inner, eps):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(width, eps), Norm(width, eps)
        self.self_attn, self.mlp = Attention(width, heads), Mlp(width, inner)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The output layer is the embedding's transpose."""

    def __init__(self, request):
        super().__init__()
        width, heads, eps = request["hidden_size"], request["heads"], request["norm_eps"]
        model = self.model = nn.Module()
        model.embed_tokens = nn.Embedding(request["vocab_size"], width)
        model.layers = nn.ModuleList(
            Layer(width, heads, request["intermediate_size"], eps) for _ in range(request["layers"]))
        model.norm = Norm(width, eps)
        dim = width // heads
        frequencies = request["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.arange(request["tokens"], dtype=torch.float64)[:, None] * frequencies
        self.cos, self.sin = (f(torch.cat((angles, angles), -1)).float() for f in (torch.cos, torch.sin))

    def forward(self, tokens, labels):
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.model.norm(x), self.model.embed_tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def read(file):
    size = 1
    for extent in file["shape"]:
        size *= extent
    flat = torch.from_file(file["path"], shared=False, size=size, dtype=torch.float32)
    return flat.view(file["shape"]).clone()


class Training:
    def __init__(self, request):
        torch.set_num_threads(request["threads"])
        files = {name: read(file) for name, file in request["files"].items()}
        self.tokens, self.labels = files.pop("tokens").long(), files.pop("labels").long()
        model = Decoder(request)
        model.load_state_dict(files)
        self.parameters = list(model.parameters())
        matrices = [p for p in self.parameters if p.dim() >= 2]
        vectors = [p for p in self.parameters if p.dim() < 2]
        options = request["optimizer"]
        self.max_norm = options["max_norm"]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": options["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}],
            lr=options["lr"], betas=options["betas"], eps=options["eps"], fused=True)
        self.model = torch.compile(model, dynamic=False) if request["peer"] == "compile" else model
        self.bfloat16 = request["dtype"] == "bfloat16"

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = self.model(self.tokens, self.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        self.optimizer.step()
        return loss


def main():
    training = None

    def answer(request):
        nonlocal training
        if request["op"] == "prepare":
            training = Training(request)
            return {}
        if request["op"] == "losses":
            return {"losses": [training.step().item() for _ in range(request["steps"])]}
        return timed(training.step, request["repeats"])

    serve_requests(answer)


if __name__ == "__main__":
    sys.exit(main())
