

class S2Attention(SoftmaxAttention):
    """The latest blocks of keys, and of the earlier ones every vert_stride-th, counted from another one for each head."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.options = options
        self.patterns = 1 if options["homo_head"] else self.kv_heads if options["pattern_per"] == "kv_head" else self.heads
        widest = 1 if options["homo_head"] else self.heads
        self.step = options["head_sliding_step"] or max(1, options["vert_stride"] // widest)

    def visible(self, queries, keys):
        size, pattern = self.options["block_size"], torch.arange(self.patterns, device=keys.device)[:, None, None]
        row, block = queries // size, keys // size
        vertical = (block + pattern * self.step + self.options["head_sliding_offset"]) % self.options["vert_stride"] == 0
        dense = pattern >= self.patterns - self.options["num_dense_heads"]
        listed = dense | vertical | (row - block < self.options["local_blocks"])
        return ((keys <= queries) & listed).repeat_interleave(self.heads // self.patterns, 0)


ATTENTION["s2"] = S2Attention
