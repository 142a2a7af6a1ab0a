

class SeerAttention(SoftmaxAttention):
    """Blocks of keys that a small gate chooses, from queries and pooled keys before the rotary embedding.

    decode form: each query chooses among earlier blocks. prefill form: a block of queries shares its choice, and with a cache
    everything is read.
    """

    def __init__(self, config, options, layer):
        super().__init__(config, options, layer)
        self.options, self.decode, self.size = options, options["form"] == "decode", options["block_size"]
        self.attn_gate = SeerGate(options, self.heads, self.kv_heads, self.head_dim)
        self.gate_rotary = Rotary(config, options["gate_hidden"]) if options["gate_rope"] else None

    def forward(self, x, first, state):
        plain_q, plain_k, v = self.split(x)
        q, k = self.turn(plain_q, first), self.turn(plain_k, first)
        k, v, plain_k = remember(state, "k", k), remember(state, "v", v), remember(state, "plain_k", plain_k)
        queries = torch.arange(first, first + x.shape[1], device=x.device)[:, None]
        keys = torch.arange(k.shape[1], device=x.device)[None]
        visible = keys <= queries
        if self.options["mode"] != "dense" and (self.decode or state is None):
            listed = (self.choose_of_queries if self.decode else self.choose_of_blocks)(plain_q, plain_k, queries)
            listed = listed.repeat_interleave(self.heads // listed.shape[1], 1)  # [B, H, T, blocks]
            visible = visible & listed[..., keys[0] // self.size]
        return self.merge(self.attend(q, k, v, visible))

    def turned(self, x, positions, tokens):
        return x if self.gate_rotary is None else self.gate_rotary.turn(x, positions, tokens)

    def scores(self, q, k):
        k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
        return torch.einsum("bnhd,bmhd->bhnm", q.float(), k.float()) / math.sqrt(q.shape[-1])

    def choose_of_queries(self, q, k, queries):
        tokens, whole = k.shape[1], k.shape[1] // self.size
        begins = torch.arange(whole) * self.size + (self.size - 1 if self.options["block_position"] == "end" else 0)
        gate_k = self.turned(self.attn_gate.keys(pools(k[:, : whole * self.size], self.options["k_pooling"], self.size)), begins, tokens)
        gate_q = self.attn_gate.queries(q, lambda x: self.turned(x, queries[:, 0], tokens))
        block = torch.arange(-(-tokens // self.size), device=q.device)
        own = queries // self.size
        scores = functional.pad(self.scores(gate_q, gate_k), (0, len(block) - whole), value=-math.inf)
        return self.chosen(scores.masked_fill(block >= own, -math.inf), block < self.options["first_blocks"], block <= own, len(block)) | (block == own)

    def choose_of_blocks(self, q, k, queries):
        tokens, rows = k.shape[1], -(-k.shape[1] // self.size)
        begins = torch.arange(rows) * self.size
        gate_k = self.turned(self.attn_gate.keys(pools(k, self.options["k_pooling"], self.size)), begins, tokens)
        gate_q = self.attn_gate.block_queries(pools(q, self.attn_gate.q_pooling, self.size))
        scores = self.scores(self.turned(gate_q, begins, tokens), gate_k)  # [B, H, rows, blocks]
        row, block = torch.arange(rows, device=q.device)[:, None], torch.arange(rows, device=q.device)
        forced = (block < self.options["first_blocks"]) | ((block == row) & self.options["force_diagonal"])
        listed = self.chosen(scores.masked_fill(block > row, -math.inf), forced, block <= row, rows)
        if self.options["last_block_dense"]:
            listed = listed | ((row >= rows - 2) & (block <= row))
        return listed[:, :, queries[:, 0] // self.size]

    def chosen(self, scores, forced, candidates, blocks):
        forced = forced & candidates
        rule = self.options["selection"]
        if rule == "threshold":
            return (scores.softmax(-1) > self.options["threshold"]) & (scores > -math.inf) | forced
        if rule == "density":
            count = max(1, int((1 - math.sqrt(1 - self.options["density"])) * blocks))
        else:
            count = self.options["top_k"] if rule == "top_k" else self.options["token_budget"] // self.size
        return best_blocks(scores.masked_fill(forced, math.inf), count)


class SeerGate(nn.Module):
    def __init__(self, options, heads, kv_heads, head_dim):
        super().__init__()
        self.decode, self.kv_heads, self.group = options["form"] == "decode", kv_heads, heads // kv_heads
        self.q_pooling, hidden = options["q_pooling"], options["gate_hidden"]
        if self.q_pooling == "auto":
            self.q_pooling = "Qproj" if self.decode else "Qavg"
        k_width = len(pool_names(options["k_pooling"])) * head_dim
        if self.decode:
            if self.q_pooling in ("Qproj", "Qavgproj"):
                shape = (kv_heads, self.group, head_dim, hidden) if self.q_pooling == "Qproj" else (kv_heads, head_dim, hidden)
                self.attngate_linear_q = SeerWeight(*shape)
            self.attngate_linear_k = SeerWeight(kv_heads, k_width, hidden)
            if options["gate_qk_norm"]:
                self.attngate_qnorm, self.attngate_knorm = Norm("rmsnorm", hidden, 1e-6), Norm("rmsnorm", hidden, 1e-6)
            return
        single = len(pool_names(self.q_pooling)) == 1 and hidden == head_dim and options["layout"] != "double"
        if not single:
            self.mask_linear_q = SeerWeight(heads, len(pool_names(self.q_pooling)) * head_dim, hidden)
        self.mask_linear_k = SeerWeight(heads if single else kv_heads, k_width, hidden)

    def keys(self, pooled):
        """[B, M, HK, pools D] -> [B, M, HK or H, gh]."""
        if self.decode:
            mapped = torch.einsum("bmhi,hio->bmho", pooled, self.attngate_linear_k.weight)
            return self.attngate_knorm(mapped) if hasattr(self, "attngate_knorm") else mapped
        weight = self.mask_linear_k.weight
        return torch.einsum("bmhi,hio->bmho", pooled.repeat_interleave(weight.shape[0] // self.kv_heads, 2), weight)

    def queries(self, q, turned):
        """decode form: [B, T, H, D] -> [B, T, HK, gh]."""
        grouped = q.unflatten(2, (self.kv_heads, self.group))
        if self.q_pooling == "Qproj":
            q = torch.einsum("bthgd,hgdo->btho", grouped, self.attngate_linear_q.weight)
        elif self.q_pooling == "Qavgproj":
            q = torch.einsum("bthd,hdo->btho", grouped.mean(3), self.attngate_linear_q.weight)
        elif self.q_pooling == "Qavg":
            q = grouped.mean(3)
        q = turned(self.attngate_qnorm(q) if hasattr(self, "attngate_qnorm") else q)
        return q.unflatten(2, (self.kv_heads, self.group)).mean(3) if self.q_pooling == "Qorig" else q

    def block_queries(self, pooled):
        """prefill form: [B, N, H, pools D] -> [B, N, H, gh]."""
        return torch.einsum("bnhi,hio->bnho", pooled, self.mask_linear_q.weight) if hasattr(self, "mask_linear_q") else pooled


class SeerWeight(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))


def pool_names(pooling):
    return [name for name in ("max", "min", "avg") if name in pooling]


def pools(x, pooling, size):
    """Blocks of tokens [B, T, heads, D] -> [B, M, heads, pools D], the last block over what it has."""
    of = {"max": lambda block: block.amax(1), "min": lambda block: block.amin(1), "avg": lambda block: block.mean(1)}
    if not x.shape[1]:
        return x.new_zeros(x.shape[0], 0, x.shape[2], len(pool_names(pooling)) * x.shape[3])
    return torch.stack([torch.cat([of[name](block) for name in pool_names(pooling)], -1) for block in x.split(size, 1)], 1)


ATTENTION["seer"] = SeerAttention
