

class InfllmAttention(SoftmaxAttention):
    """Blocks of keys that means of keys say matter, the first ones and the latest; every key up to dense_len."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.options = options

    def attended(self, x, first, state):
        q, k, v = self.project(x, first)
        k, v = remember(state, "k", k), remember(state, "v", v)
        queries = torch.arange(first, first + x.shape[1], device=x.device)[:, None]
        keys = torch.arange(k.shape[1], device=x.device)
        chosen = self.choose(q, k, queries)[..., keys // self.options["block_size"]]
        read = chosen.repeat_interleave(self.heads // self.kv_heads, 1) | (queries + 1 < self.options["dense_len"])
        return self.attend(q, k, v, read & (keys <= queries))

    def logits(self, q, k, size, stride, queries):
        """q [B, T, H, D] by the means of `size` keys from every `stride` on: [B, HK, G, T, M], -inf where one is not complete."""
        q = q.float().unflatten(2, (self.kv_heads, -1)).permute(0, 2, 3, 1, 4)
        if k.shape[1] < size:
            return q.new_zeros(*q.shape[:-1], 0)
        means = k.float().unfold(1, size, stride).mean(-1).permute(0, 2, 3, 1)[:, :, None]  # [B, HK, 1, D, M]
        end = torch.arange(means.shape[-1], device=q.device) * stride + size
        return (q @ means / math.sqrt(self.head_dim)).masked_fill(end > queries + 1, -math.inf)

    def choose(self, q, k, queries):
        """The blocks of each query: bool [B, HK, T, blocks]."""
        size, stride, length = self.options["kernel_size"], self.options["kernel_stride"], self.options["block_size"]
        block = torch.arange(-(-k.shape[1] // length), device=q.device)
        lse = self.logits(q, k, 4 * size, 4 * stride, queries).logsumexp(-1, keepdim=True)
        windows = (self.logits(q, k, size, stride, queries) - lse).exp().masked_fill(lse == -math.inf, 0.0).sum(2)
        begin = torch.arange(windows.shape[-1], device=q.device)[:, None] * stride
        overlap = (begin + size > block * length) & (begin < (block + 1) * length)  # [M, blocks]
        scores = windows.new_zeros(*windows.shape[:-1], len(block))
        for number, one in enumerate(overlap):
            scores = torch.where(one, torch.maximum(scores, windows[..., number, None]), scores)
        own, latest = queries // length, self.options["window"] // length
        scores = scores.masked_fill((block < self.options["first_blocks"]) | (block >= own - latest), math.inf)
        return best_blocks(scores.masked_fill(block > own, -math.inf), self.options["num_blocks"] + latest)


ATTENTION["infllm"] = InfllmAttention
