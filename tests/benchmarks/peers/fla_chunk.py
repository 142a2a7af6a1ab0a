"""flash-linear-attention's plain torch form of chunked simple GLA, where the user has installed that package."""
from protocol import Unsupported, serve
import torch  # after protocol, which says so when there is none


def make(problem):
    if problem.function["kind"] != "decay":
        raise Unsupported("fla_chunk computes the linear recurrence; name lightning")
    if problem.heads != problem.kv_heads:
        raise Unsupported("fla_chunk needs --kv-heads equal to --heads")
    try:
        from fla.ops.simple_gla.naive import naive_chunk_simple_gla
    except ImportError as error:
        raise Unsupported(f"flash-linear-attention cannot be imported in this environment: {error}") from error
    decay = torch.tensor(problem.function["log_decay"]).view(1, 1, -1)
    gates = decay.expand(problem.batch, problem.tokens, -1).contiguous()

    def function(q, k, v):
        o = naive_chunk_simple_gla(q, k, v, gates, chunk_size=64)
        return o[0] if isinstance(o, tuple) else o

    return function, True


serve(make, layout="BTHD")
