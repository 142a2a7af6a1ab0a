

class LightningAttention(LinearAttention):
    """S_t = e^a S_{t-1} + k_t v_t^T, o_t = scale q_t^T S_t: linear attention with a fixed log decay a of each head."""

    def __init__(self, config, options, layer):
        super().__init__()
        self.heads, self.head_dim, self.form = config.num_attention_heads, config.head_dim, options["form"]
        inner = self.heads * self.head_dim
        self.decay, self.layer, self.layers = options["decay"], layer, config.num_hidden_layers
        if self.decay == "auto":
            self.decay = "minimax" if self.form == "minimax" else "alibi"
        self.scale = self.head_dim**-0.5 if self.decay == "paper" else 1.0
        if self.form == "minimax":
            self.qkv_proj = nn.Linear(config.hidden_size, 3 * inner, bias=False)
            self.output_gate = nn.Linear(config.hidden_size, inner, bias=False)
            self.norm = Norm("rmsnorm", inner, 1e-6)
        else:
            self.qkvu_proj = nn.Linear(config.hidden_size, 4 * inner, bias=False)
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)
        has_lrpe = options["lrpe"] == "on" or (options["lrpe"] == "auto" and self.form == "transnormer" and layer > 0)
        self.lrpe = LightningPositions(self.heads, self.head_dim) if has_lrpe else None

    def forward(self, x, first, state):
        batch, tokens, inner = x.shape[0], x.shape[1], self.heads * self.head_dim
        if self.form == "minimax":
            qkv = functional.silu(self.qkv_proj(x)).view(batch, tokens, self.heads, 3 * self.head_dim)
            q, k, v = qkv.split(self.head_dim, -1)
        else:
            q, k, v, u = self.qkvu_proj(x).split(inner, -1)
            q, k = functional.silu(q), functional.silu(k)
            q, k, v = (y.view(batch, tokens, self.heads, self.head_dim) for y in (q, k, v))
        if self.lrpe is not None:
            q, k = self.lrpe(q, first), self.lrpe(k, first)
        o = self.recurrence(q, k, v, state).reshape(batch, tokens, inner)
        if self.form == "minimax":
            return self.out_proj(torch.sigmoid(self.output_gate(x)) * self.norm(o))
        return self.out_proj(rms_norm(o, None, 1e-6) * u)

    def recurrence(self, q, k, v, state):
        """All tokens at once: o = scale ((q k^T) * e^{a (i - j)}) v for j <= i, and what the state before them adds."""
        tokens, dtype = q.shape[1], v.dtype
        q, k, v = (y.float().transpose(1, 2) for y in (q, k, v))  # [B, H, T, .]
        decay = lightning_log_decay(self.decay, self.heads, self.layer, self.layers).to(q.device)[:, None, None]
        j = torch.arange(tokens, dtype=torch.float32, device=q.device)
        distance = j[:, None] - j
        mask = torch.exp(decay * distance.clamp(min=0)) * (distance >= 0)
        o = (q @ k.transpose(-1, -2) * mask) @ v * self.scale
        if state is not None:
            new = (k * torch.exp(decay * (tokens - 1 - j)[:, None])).transpose(-1, -2) @ v
            if "s" in state:
                o = o + (q * torch.exp(decay * (j + 1)[:, None])) @ state["s"] * self.scale
                new = new + state["s"] * torch.exp(decay * tokens)
            state["s"] = new
        return o.to(dtype).transpose(1, 2)


class LightningPositions(nn.Module):
    """LRPE: x -> [x cos(t theta) | x sin(t theta)] at position t."""

    def __init__(self, heads, head_dim):
        super().__init__()
        exponent = torch.arange(heads * head_dim, dtype=torch.float64) * (-2.0 / (heads * head_dim))
        self.theta = nn.Parameter((10000.0**exponent).view(heads, 1, head_dim).float())

    def forward(self, x, first):
        positions = torch.arange(first, first + x.shape[1], dtype=torch.float64, device=x.device)
        angles = positions[:, None, None] * self.theta.double().squeeze(1)  # [T, H, D]
        return torch.cat([x * angles.cos().float(), x * angles.sin().float()], -1).to(x.dtype)


def lightning_log_decay(decay, heads, layer, layers):
    if decay == "alibi":
        power = 2 ** (heads.bit_length() - 1)
        slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
        slopes += [2 ** (-8 * (2 * h + 1) / (2 * power)) for h in range(heads - power)]
        depth = layer / (layers - 1) if layers > 1 else 0.0
        return -torch.tensor(slopes, dtype=torch.float64).mul(1 - depth + 1e-5).float()
    if decay == "minimax":
        base = 1 / (2 ** (8 / heads))
        return -(base ** torch.arange(1, heads + 1)).float().mul(1 - layer / (layers - 1 + 1e-5) + 1e-5)
    if decay == "paper":
        return -(8 / heads) * (1 - layer / layers) * torch.arange(heads, dtype=torch.float64).float()
    return torch.zeros(heads)


ATTENTION["lightning"] = LightningAttention
