

class NsaAttention(SoftmaxAttention):
    """Compressed windows of the past, blocks of keys that those say matter, and the latest keys, weighted by gates."""

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.options, self.lucidrains = options, options["layout"] == "lucidrains"
        gates = 3 if options["layout"] == "xunhaolai" else 3 * self.heads
        self.g_proj = nn.Linear(config.hidden_size, gates, bias=self.lucidrains)
        self.turns_windows = options["compress_rope"] != "keys" and not self.lucidrains
        if options["compress_rope"] == "auto" and options["layout"] == "fla" and options["compress"] == "mean":
            self.turns_windows = False
        self.register_compression()

    def register_compression(self):
        heads, size, block, kind = self.kv_heads, self.head_dim, self.options["compress_block"], self.options["compress"]
        if self.options["layout"] != "fla" or kind != "mean":
            self.intra_block_pe = nn.Parameter(torch.zeros(heads, block, size))
        if self.lucidrains:
            self.intra_block_pe_value = nn.Parameter(torch.zeros(heads, block, size))
            if self.options["memory_slots"]:
                self.compress_memory = nn.Parameter(torch.zeros(2, heads, self.options["memory_slots"], size))
        for name in ("compress_key", "compress_value"):
            if kind == "mlp":
                setattr(self, name, NsaMlp(block * size, size))
            elif kind != "mean":
                setattr(self, name, nn.Parameter(torch.zeros(*((heads, block) if kind == "weighted" else (heads, block * size, size)))))

    def turn(self, x, first):
        return super().turn(self.in_halves(x), first)

    def in_halves(self, x):
        """lucidrains turns neighbouring features: they are put D / 2 apart, which products of q and k do not see."""
        return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2) if self.lucidrains else x

    def compress(self, x, name, positions):
        """Tokens [B, T, HK, D] -> windows [B, M, HK, D]."""
        block, stride = self.options["compress_block"], self.options["compress_stride"]
        lead = block - stride if self.lucidrains else 0  # zeros before the first token
        x = torch.cat([x.new_zeros(x.shape[0], lead, *x.shape[2:]), x], 1)
        if x.shape[1] < block:
            return x[:, :0]
        windows = x.unfold(1, block, stride).transpose(-1, -2)  # [B, M, HK, l, D]
        if hasattr(self, positions):
            windows = windows + getattr(self, positions)
        kind, weight = self.options["compress"], getattr(self, name, None)
        if kind == "mean":
            return windows.mean(3)
        if kind == "weighted":
            return (windows * weight[..., None]).sum(3)
        return weight(windows.flatten(3)) if kind == "mlp" else torch.einsum("bmhi,hio->bmho", windows.flatten(3), weight)

    def forward(self, x, first, state):
        plain_q, plain_k, v = self.split(x)
        q, k = self.turn(plain_q, first), self.turn(plain_k, first)
        k, v = remember(state, "k", k), remember(state, "v", v)
        reads_plain = self.turns_windows or self.lucidrains
        read = remember(state, "plain_k", plain_k) if reads_plain else k
        k_cmp = self.compress(read, "compress_key", "intra_block_pe")
        v_cmp = self.compress(v, "compress_value", "intra_block_pe_value")
        if self.turns_windows and k_cmp.shape[1]:
            begins = torch.arange(k_cmp.shape[1]) * self.options["compress_stride"]
            k_cmp = self.rotary.turn(k_cmp, begins, k.shape[1])
        q_cmp = plain_q if self.lucidrains else q
        queries = torch.arange(first, first + x.shape[1], device=x.device)[:, None]
        keys = torch.arange(k.shape[1], device=x.device)[None]
        o_cmp = self.compressed(q_cmp, k_cmp, v_cmp, queries)
        listed = self.choose(q_cmp, k_cmp, queries, k.shape[1])[..., keys[0] // self.options["block_size"]]
        o_slc = self.attend(q, k, v, listed.repeat_interleave(self.heads // self.kv_heads, 1) & (keys <= queries))
        o_win = self.attend(q, k, v, (keys <= queries) & (keys > queries - self.options["window"]))
        gate = torch.sigmoid(self.g_proj(x)).unflatten(-1, (-1, 3))  # [B, T, H or 1, 3]
        return self.merge(o_cmp * gate[..., 0:1] + o_slc * gate[..., 1:2] + o_win * gate[..., 2:3])

    def seen(self, queries, windows):
        """Which windows a query sees: bool [T, M]."""
        block, stride = self.options["compress_block"], self.options["compress_stride"]
        end = (torch.arange(windows, device=queries.device) + 1) * stride
        return end <= queries if self.lucidrains else end - stride + block <= queries + 1

    def compressed(self, q, k, v, queries):
        visible = self.seen(queries, k.shape[1])
        if hasattr(self, "compress_memory"):
            slots = self.compress_memory.transpose(1, 2).unsqueeze(1).expand(-1, q.shape[0], -1, -1, -1)
            k, v = torch.cat([slots[0].to(k), k], 1), torch.cat([slots[1].to(v), v], 1)
            visible = functional.pad(visible, (slots.shape[2], 0), value=True)
        return self.attend(q, k, v, visible)

    def choose(self, q, k, queries, tokens):
        """The blocks of each query: bool [B, HK, T, blocks]."""
        size, stride, blocks = self.options["block_size"], self.options["compress_stride"], -(-tokens // self.options["block_size"])
        own, block = queries // size, torch.arange(blocks, device=q.device)
        keys = k.float().repeat_interleave(self.heads // self.kv_heads, 2).permute(0, 2, 3, 1)
        logits = q.float().transpose(1, 2) @ keys / math.sqrt(self.head_dim)  # [B, H, T, M]
        logits = logits.unflatten(1, (self.kv_heads, -1))
        if self.lucidrains:
            full = k.shape[1] // (size // stride)
            mean = logits.mean(2)[..., : full * (size // stride)].unflatten(-1, (full, -1)).mean(-1)
            past = block[:full] < own
            share = torch.cat([torch.full_like(mean[..., :1], -1e3) if full else mean.new_full((*mean.shape[:3], 1), -1e3),
                               mean.masked_fill(~past, -math.inf)], -1).softmax(-1)[..., 1:]
            scores = functional.pad(share.masked_fill(~(past & (share > 1e-10)), -math.inf), (0, blocks - full), value=-math.inf)
            return best_blocks(scores, self.options["num_blocks"]) | (block == own)
        seen = self.seen(queries, k.shape[1])
        votes = logits.masked_fill(~seen, -math.inf).softmax(-1).masked_fill(~seen, 0.0).sum(2)  # [B, HK, T, M]
        begin = torch.arange(k.shape[1], device=q.device)[:, None] * stride
        end = (begin + self.options["compress_block"]).minimum((block + 1) * size)
        scores = votes @ ((end - begin.maximum(block * size)).clamp(min=0).float() / stride)
        forced = (block < self.options["first_blocks"]) | (block > own - self.options["latest_blocks"])
        scores = scores.masked_fill(forced, math.inf).masked_fill(block > own, -math.inf)
        return best_blocks(scores, self.options["num_blocks"])


class NsaMlp(nn.Module):
    def __init__(self, width, size):
        super().__init__()
        self.up = nn.Linear(width, width)
        self.down = nn.Linear(width, size)

    def forward(self, x):
        return self.down(functional.relu(self.up(x)))


ATTENTION["nsa"] = NsaAttention
