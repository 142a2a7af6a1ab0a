"""Causal attention from its formula under torch.compile, for what the compiler makes of it.

The compiler replaces the formula by its own scaled_dot_product_attention where it knows the pattern.
"""
from protocol import serve
import torch  # after protocol, which says so when there is none


def make(problem):
    scale = problem.head_dim**-0.5
    share = problem.heads // problem.kv_heads
    hidden = torch.ones(problem.tokens, problem.tokens, dtype=torch.bool).triu(1)

    def formula(q, k, v):
        if share > 1:
            k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        scores = (q @ k.transpose(2, 3) * scale).masked_fill(hidden, float("-inf"))
        return scores.softmax(-1) @ v

    return torch.compile(formula, fullgraph=True, dynamic=False), problem.function["kind"] == "causal"


serve(make)
