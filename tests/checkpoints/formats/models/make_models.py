# Writes the models of this folder, one a family, with random weights, and what transformers (5.23.0) makes of them:
#   python3 make_models.py, with the packages of tests/interop/requirements.txt
import os

import torch
from safetensors.torch import save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, MiniMaxConfig, MistralConfig, Qwen2Config, Qwen3Config)

torch.manual_seed(0)
sizes = dict(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64)
yarn = dict(rope_theta=10000.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=16, truncate=False)
families = {
    "llama": LlamaConfig(**sizes, head_dim=12, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                         rope_parameters=yarn),
    "mistral": MistralConfig(**sizes, sliding_window=8),
    "qwen2": Qwen2Config(**sizes, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "qwen3": Qwen3Config(**sizes, head_dim=12),
    "minimax": MiniMaxConfig(**sizes, num_local_experts=1, num_experts_per_tok=1, full_attn_alpha_factor=1.3,
                             full_attn_beta_factor=0.7, linear_attn_alpha_factor=1.1, linear_attn_beta_factor=0.9,
                             mlp_alpha_factor=1.2, mlp_beta_factor=0.8, block_size=8),
}
here = os.path.dirname(os.path.abspath(__file__))
for name, config in families.items():
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2) if parameter.dim() == 1 else parameter.mul_(8)
        ids = sequence = torch.randint(0, 31, (2, 24))
        logits = model(ids).logits
        for _ in range(8):
            likeliest = model(sequence, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            sequence = torch.cat([sequence, likeliest], 1)
    folder = os.path.join(here, name)
    model.save_pretrained(folder, max_shard_size="8KB" if name == "qwen2" else "5GB")
    os.remove(os.path.join(folder, "generation_config.json"))
    save_file({"in.input_ids": ids.int(), "out.logits": logits.contiguous(), "out.greedy_ids": sequence[:, 24:].int().contiguous()},
              os.path.join(folder, "logits.safetensors"),
              metadata={"mechanism": "causal_lm", "case": name, "config": "{}",
                        "source": "transformers 5.23.0, AutoModelForCausalLM in float32"})
