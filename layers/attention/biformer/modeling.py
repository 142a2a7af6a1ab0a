

class BiformerAttention(SoftmaxAttention):
    """The first query of a region chooses, for each key head, the earlier regions of keys that all its queries read."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.region, self.topk = options["region"], options["topk"]

    def forward(self, x, first, state):
        q, k, v = self.project(x, first)
        k, v = remember(state, "k", k), remember(state, "v", v)
        chosen = remember(state, "chosen", self.choose(q, k, first))  # [B, regions so far, HK, topk - 1], -1 pads
        regions = -(-k.shape[1] // self.region)
        listed = torch.zeros(*chosen.shape[:3], regions + 1, dtype=torch.bool, device=x.device)
        listed.scatter_(-1, chosen.masked_fill(chosen < 0, regions), True)
        queries = torch.arange(first, first + x.shape[1], device=x.device)
        keys = torch.arange(k.shape[1], device=x.device)
        listed = listed[:, queries // self.region][..., keys // self.region].transpose(1, 2)  # [B, HK, T, S]
        own = (queries[:, None] // self.region == keys // self.region) & (keys <= queries[:, None])
        visible = (listed | own).repeat_interleave(self.heads // self.kv_heads, 1)
        return self.merge(self.attend(q, k, v, visible))

    def choose(self, q, k, first):
        """What the regions that begin in these tokens read beside themselves: [B, N, HK, topk - 1], -1 pads."""
        batch, tokens = q.shape[0], k.shape[1]
        begins = range(-(-first // self.region), -(-tokens // self.region))
        lists = torch.full((batch, len(begins), self.kv_heads, self.topk - 1), -1, device=q.device)
        whole = k[:, : tokens // self.region * self.region].double()
        means = whole.view(batch, -1, self.region, self.kv_heads, self.head_dim).mean(2)  # [B, M, HK, D]
        for place, region in enumerate(begins):
            asks = q[:, region * self.region - first].double().view(batch, self.kv_heads, -1, self.head_dim).sum(2)
            scores = torch.einsum("bhd,bmhd->bhm", asks, means[:, :region])
            best = scores.sort(dim=-1, descending=True, stable=True).indices[..., : self.topk - 1]
            lists[:, place, :, : best.shape[-1]] = best
        return lists


ATTENTION["biformer"] = BiformerAttention
