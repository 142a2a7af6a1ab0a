"""PyTorch's scaled_dot_product_attention from Python, flash kernel, causal."""
from protocol import serve
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def causal_attention(grouped):
    def function(q, k, v):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    return function


def make(problem):
    return causal_attention(problem.heads != problem.kv_heads), problem.function["kind"] == "causal"


if __name__ == "__main__":
    serve(make)
