

class LightningAttention(LinearAttention):
    """S_t = e^a S_{t-1} + k_t v_t^T, o_t = scale q_t^T S_t: linear attention with a fixed log decay a of each head."""

    def __init__(self, config, options, layer):
        super().__init__()
        self.heads, self.head_dim, self.form = config.num_attention_heads, config.head_dim, options["form"]
        self.decay, self.layer, self.layers = options["decay"], layer, config.num_hidden_layers
        if self.decay == "auto":
            self.decay = "alibi" if self.form == "transnormer" else self.form
        self.scale = lightning_scale(options, self.head_dim)
        hidden, inner = config.hidden_size, self.heads * self.head_dim
        if self.form == "hypenet":
            self.q_proj, self.k_proj, self.v_proj, self.z_proj = (nn.Linear(hidden, inner, bias=False) for _ in range(4))
            self.q_norm, self.k_norm = (Norm("rmsnorm", self.head_dim, config.rms_norm_eps) for _ in range(2))
            self.o_norm = Norm("rmsnorm", inner, config.rms_norm_eps)
            self.o_proj = nn.Linear(inner, hidden, bias=False)
        else:
            if self.form == "minimax":
                self.qkv_proj = nn.Linear(hidden, 3 * inner, bias=False)
                self.output_gate = nn.Linear(hidden, inner, bias=False)
            else:
                self.qkvu_proj = nn.Linear(hidden, 4 * inner, bias=False)
            self.norm = Norm("rmsnorm" if self.form == "minimax" else "srmsnorm", inner, 1e-6)
            self.out_proj = nn.Linear(inner, hidden, bias=False)
        self.rotary = Rotary(config, self.head_dim) if self.form == "hypenet" and options["rope"] else None
        has_lrpe = options["lrpe"] == "on" or (options["lrpe"] == "auto" and self.form == "transnormer" and layer > 0)
        self.lrpe = LightningPositions(self.heads, self.head_dim) if has_lrpe else None

    def project(self, x):
        """q, k and v [B, T, H, D], not placed yet, and what the output is multiplied by [B, T, H D]."""
        def heads(y):
            return y.view(x.shape[0], x.shape[1], self.heads, -1)

        if self.form == "hypenet":
            q, k = self.q_norm(heads(self.q_proj(x))), self.k_norm(heads(self.k_proj(x)))
            return q, k, heads(self.v_proj(x)), torch.sigmoid(self.z_proj(x))
        if self.form == "minimax":
            q, k, v = heads(functional.silu(self.qkv_proj(x))).split(self.head_dim, -1)
            return q, k, v, torch.sigmoid(self.output_gate(x))
        q, k, v, u = self.qkvu_proj(x).chunk(4, -1)
        return heads(functional.silu(q)), heads(functional.silu(k)), heads(v), u

    def forward(self, x, first, state):
        q, k, v, gate = self.project(x)
        if self.lrpe is not None:
            q, k = self.lrpe(q, first), self.lrpe(k, first)
        if self.rotary is not None:
            q, k = self.rotary.turn_next(q, first), self.rotary.turn_next(k, first)
        o = self.recurrence(q, k, v, state).flatten(2)
        if self.form == "hypenet":
            return self.o_proj(gate * self.o_norm(o))
        return self.out_proj(gate * self.norm(o))

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


def lightning_scale(options, head_dim):
    scale = options["scale"]
    if scale == "auto":
        scale = "1/sqrt(d)" if options["form"] == "hypenet" or options["decay"] == "paper" else "none"
    return {"1/sqrt(d)": head_dim**-0.5, "1/d": 1 / head_dim, "none": 1.0}[scale]


def lightning_log_decay(decay, heads, layer, layers):
    if decay in ("alibi", "hypenet"):
        power = 2 ** (heads.bit_length() - 1)
        slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
        slopes += [2 ** (-8 * (2 * h + 1) / (2 * power)) for h in range(heads - power)]
        depth = layer / (layers - 1) if layers > 1 else 0.0
        factor = 1.0 if decay == "hypenet" else 1 - depth + 1e-5
        return -torch.tensor(slopes, dtype=torch.float64).mul(factor).float()
    if decay == "minimax":
        base = 1 / (2 ** (8 / heads))
        return -(base ** torch.arange(1, heads + 1)).float().mul(1 - layer / (layers - 1 + 1e-5) + 1e-5)
    if decay == "paper":
        return -(8 / heads) * (1 - layer / layers) * torch.arange(heads, dtype=torch.float64).float()
    return torch.zeros(heads)


ATTENTION["lightning"] = LightningAttention
