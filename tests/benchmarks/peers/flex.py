"""FlexAttention under torch.compile: forward only, its CPU side has no backward."""
from protocol import Unsupported, serve
import torch  # after protocol, which says so when there is none
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def make(problem):
    if problem.backward:
        raise Unsupported("FlexAttention has no backward on the CPU; use --pass forward")
    kind, window = problem.function["kind"], problem.function.get("window", 0)

    def visible(batch, head, query, key):
        causal = query >= key
        return causal & (query - key < window) if kind == "window" else causal

    blocks = create_block_mask(visible, None, None, problem.tokens, problem.tokens, device="cpu")
    compiled = torch.compile(flex_attention, fullgraph=True, dynamic=False)
    grouped = problem.heads != problem.kv_heads

    def function(q, k, v):
        return compiled(q, k, v, block_mask=blocks, enable_gqa=grouped)

    return function, kind in ("causal", "window")


serve(make)
