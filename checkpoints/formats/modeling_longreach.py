"""A model that Longreach has trained, in plain PyTorch, for transformers 4.45 and later (trust_remote_code).

Made from a file for the decoder and one for each kind of attention in the model. It is meant to be read: attention is
computed from its formula, with memory T x T, and gives what the program gives.
"""
import math
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

ATTENTION = {}  # kind -> class; the files of the kinds add theirs


class LongreachConfig(PretrainedConfig):
    """`longreach` holds the keys of [model] of the program, with one table of `attention` for each layer."""

    model_type = "longreach"


class LongreachCache:
    """What the layers carry from token to token: one dictionary each."""

    def __init__(self, layers):
        self.tokens = 0
        self.states = [{} for _ in range(layers)]

    def get_seq_length(self, layer_idx=0):
        return self.tokens

    def reorder_cache(self, rows):
        for state in self.states:
            for name, tensor in state.items():
                state[name] = tensor.index_select(0, rows.to(tensor.device))


def rms_norm(x, weight, eps):
    normed = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps)
    return (normed if weight is None else normed * weight.float()).to(x.dtype)


class Norm(nn.Module):
    """rmsnorm, or srmsnorm, which has no weight."""

    def __init__(self, kind, size, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size)) if kind == "rmsnorm" else None

    def forward(self, x):
        return rms_norm(x, self.weight, self.eps)


class Mlp(nn.Module):
    """swiglu, or sglu, which has no activation."""

    def __init__(self, config):
        super().__init__()
        self.activation = config.mlp == "swiglu"
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x):
        gate = self.gate_proj(x)
        return self.down_proj((functional.silu(gate) if self.activation else gate) * self.up_proj(x))


def yarn_frequencies(inverse, rotary, theta, dim, original):
    def feature(rotations):
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = feature(rotary["beta_fast"]), feature(rotary["beta_slow"])
    if rotary["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)
    return inverse / rotary["factor"] * ramp + inverse * (1 - ramp)


def llama3_frequencies(inverse, rotary, original):
    wavelength = 2 * math.pi / inverse
    low, high, factor = rotary["low_freq_factor"], rotary["high_freq_factor"], rotary["factor"]
    smooth = (original / wavelength - low) / (high - low)
    blended = (1 - smooth) * inverse / factor + smooth * inverse
    scaled = torch.where(wavelength > original / low, inverse / factor, blended)
    return torch.where(wavelength < original / high, inverse, scaled)


class Rotary:
    """Rotary embedding of `dim` features, of which feature i turns with feature i + dim / 2."""

    def __init__(self, config, dim):
        self.rotary, self.theta, self.dim = config.rope_scaling, config.rope_theta, dim
        self.original = self.rotary["original_max_position_embeddings"] or config.max_position_embeddings

    def inverse_frequencies(self, length):
        kind, theta, factor = self.rotary["rope_type"], self.theta, self.rotary["factor"]
        if kind == "dynamic":
            stretch = max(length, self.original) / self.original
            theta = theta * (factor * stretch - (factor - 1)) ** (self.dim / (self.dim - 2))
        inverse = theta ** (-torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        if kind == "linear":
            return inverse / factor
        if kind == "yarn":
            return yarn_frequencies(inverse, self.rotary, theta, self.dim, self.original)
        if kind == "longrope":
            factors = self.rotary["long_factor" if length > self.original else "short_factor"]
            return inverse / torch.tensor(factors, dtype=torch.float64)
        return llama3_frequencies(inverse, self.rotary, self.original) if kind == "llama3" else inverse

    def magnitude(self):
        kind, factor = self.rotary["rope_type"], self.rotary["factor"]
        if kind == "yarn":
            return self.rotary["attention_factor"] or 0.1 * math.log(factor) + 1.0
        if kind == "longrope":
            return self.rotary["attention_factor"] or math.sqrt(1 + math.log(factor) / math.log(self.original))
        return 1.0

    def turn(self, x, positions, length):
        """x [B, T, H, dim] at positions [T] of a sequence of `length` tokens, on which `dynamic` and `longrope` depend."""
        angles = torch.outer(positions.double().cpu(), self.inverse_frequencies(length))
        cos = (angles.cos() * self.magnitude()).float().to(x.device)[:, None]
        sin = (angles.sin() * self.magnitude()).float().to(x.device)[:, None]
        a, b = x.float().chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    def turn_next(self, x, first):
        """Tokens [B, T, heads, dim], the first of which stands at position `first`; those before it are kept as they turned."""
        length = first + x.shape[1]
        kind = self.rotary["rope_type"]
        crossed = length > self.original if kind == "dynamic" else first <= self.original < length
        if first and kind in ("dynamic", "longrope") and crossed:
            raise ValueError(f"{kind} rotary embeddings generate up to {self.original} tokens: beyond, kept keys would turn")
        return self.turn(x, torch.arange(first, length), length)


class SoftmaxAttention(nn.Module):
    """Projections, rotary embedding and cache of attention with a softmax; a kind says what is visible."""

    def __init__(self, config, options, layer):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        inner, kv_inner = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_inner, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_inner, bias=config.attention_bias)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=config.attention_output_bias)
        self.q_norm = Norm("rmsnorm", self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = Norm("rmsnorm", self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.rotary = Rotary(config, self.head_dim) if options.get("rope", True) else None
        # Outputs of the heads times sigmoid of a projection of x.
        self.o_gate = nn.Linear(config.hidden_size, inner, bias=False) if options.get("output_gate") else None

    def visible(self, queries, keys):
        """Positions [T, 1] and [1, S] -> bool [T, S], or [H, T, S] where heads differ."""
        raise NotImplementedError

    def split(self, x):
        """x [B, T, C] -> q [B, T, H, D], k and v [B, T, HK, D], not turned yet."""
        def heads(y, count):
            return y.view(x.shape[0], x.shape[1], count, self.head_dim)

        q, k, v = heads(self.q_proj(x), self.heads), heads(self.k_proj(x), self.kv_heads), heads(self.v_proj(x), self.kv_heads)
        return (q, k, v) if self.q_norm is None else (self.q_norm(q), self.k_norm(k), v)

    def turn(self, x, first):
        """Tokens [B, T, heads, D], the first of which stands at position `first`."""
        return x if self.rotary is None else self.rotary.turn_next(x, first)

    def project(self, x, first):
        q, k, v = self.split(x)
        return self.turn(q, first), self.turn(k, first), v

    def attend(self, q, k, v, visible):
        """visible: bool, of a shape that [B, H, T, S] takes."""
        group = self.heads // self.kv_heads
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, heads, T, D]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        scores = (q.float() @ k.float().transpose(-1, -2)) / math.sqrt(self.head_dim)
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1).masked_fill(~visible, 0.0)  # 0 where nothing is visible
        return (weights @ v.float()).to(v.dtype).transpose(1, 2)

    def merge(self, o):
        return self.o_proj(o.reshape(o.shape[0], o.shape[1], self.heads * self.head_dim))

    def attended(self, x, first, state):
        """The outputs of the heads [B, T, H, D]."""
        q, k, v = self.project(x, first)
        k, v = remember(state, "k", k), remember(state, "v", v)
        queries = torch.arange(first, first + x.shape[1], device=x.device)[:, None]
        keys = torch.arange(k.shape[1], device=x.device)[None]
        return self.attend(q, k, v, self.visible(queries, keys))

    def forward(self, x, first, state):
        o = self.attended(x, first, state)
        return self.merge(o if self.o_gate is None else o * torch.sigmoid(self.o_gate(x)).view(o.shape))


class LinearAttention(nn.Module):
    """Attention without a softmax, whose state does not grow."""


def best_blocks(scores, count):
    """The `count` largest scores of the last dimension, ties to the first, none of those that are -inf: bool."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order, True) & (scores > -math.inf)


def remember(state, name, new):
    """The tokens so far, these included. state: None where nothing is to be kept."""
    if state is None:
        return new
    state[name] = torch.cat([state[name], new], 1) if name in state else new
    return state[name]


class DecoderLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        options = config.attention[layer]
        self.input_layernorm = Norm(config.norm, config.hidden_size, config.rms_norm_eps)
        self.self_attn = ATTENTION[options["kind"]](config, options, layer)
        self.post_attention_layernorm = Norm(config.norm, config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)
        self.prenorm, self.factors = config.residual == "prenorm", config.minimax
        self.branch = "linear_attn" if isinstance(self.self_attn, LinearAttention) else "full_attn"

    def add(self, x, normed, branch, name):
        if self.prenorm:
            return x + branch
        return self.factors[name + "_alpha_factor"] * normed + self.factors[name + "_beta_factor"] * branch

    def forward(self, x, first, state):
        normed = self.input_layernorm(x)
        x = self.add(x, normed, self.self_attn(normed, first, state), self.branch)
        normed = self.post_attention_layernorm(x)
        return self.add(x, normed, self.mlp(normed), "mlp")


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = Norm(config.norm, config.hidden_size, config.rms_norm_eps)
        self.embedding_scale = config.embedding_scale

    def forward(self, x, cache):
        first = cache.tokens if cache is not None else 0
        x = x * self.embedding_scale
        for number, layer in enumerate(self.layers):
            x = layer(x, first, cache.states[number] if cache is not None else None)
        if cache is not None:
            cache.tokens += x.shape[1]
        return self.norm(x)


class LongreachForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = LongreachConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        own = SimpleNamespace(**config.longreach)
        self.model = Decoder(own)
        # Tied: the embedding is used as it is, and there is no second module.
        self.lm_head = None if own.tie_word_embeddings else nn.Linear(own.hidden_size, own.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.data.normal_(0.0, self.config.longreach["initializer_range"])

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False  # LongreachCache is made by the first forward

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, **kwargs):
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        return {"input_ids": input_ids[:, seen:], "past_key_values": past_key_values, "attention_mask": attention_mask,
                "use_cache": True}

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, inputs_embeds=None, labels=None,
                use_cache=None, **kwargs):
        if attention_mask is not None and not attention_mask.bool().all():
            raise ValueError("rows with padding: this model takes rows of one length")
        if past_key_values is None and use_cache:
            past_key_values = LongreachCache(len(self.model.layers))
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        x = self.model(x, past_key_values)
        logits = functional.linear(x, self.model.embed_tokens.weight) if self.lm_head is None else self.lm_head(x)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
