"""transformers' side of tests/interop/hugging_face_interop_test.cpp.

hugging_face.py check FOLDER...   loads each FOLDER/model, and prints one line of JSON: its class, what was missing or unexpected
                                  among the weights, the largest error of its logits against FOLDER/expected.safetensors
                                  (input_ids, logits, prompt, greedy_ids), the largest logit, and what it generates greedily.
hugging_face.py make FOLDER       saves small random models as FOLDER/NAME, with inputs and outputs of each in FOLDER/NAME.safetensors
                                  as `longreach verify --checkpoint` reads them.
"""
import json
import os
import sys
import tempfile

os.environ["HF_HOME"] = tempfile.mkdtemp()  # code of models is copied there
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.0, 2.0, 4.0, 8.0]}
MODELS = {
    "llama": ("Llama", {}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}),
    "llama_wide_heads": ("Llama", {"head_dim": 24}),
    "llama_biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 16}),
    "mistral_dense": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "minimax": ("MiniMax", {"num_local_experts": 1, "num_experts_per_tok": 1, "block_size": 16, "full_attn_alpha_factor": 1.5,
                            "linear_attn_beta_factor": 0.5, "mlp_alpha_factor": 1.25}),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4}}),
    "dynamic": ("Llama", {"max_position_embeddings": 32, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}),
    "yarn": ("Llama", {"rope_parameters": {**YARN, "rope_theta": 1e4}}),
    "longrope": ("Llama", {"rope_parameters": {**LONGROPE, "original_max_position_embeddings": 32}}),
    "longrope_short": ("Llama", {"max_position_embeddings": 512, "rope_parameters": {
        **LONGROPE, "original_max_position_embeddings": 128, "attention_factor": 1.25}}),
    "llama3": ("Llama", {"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}),
}


def generate(model, prompt, new_tokens):
    # An end of text that no token is: as many tokens as are wanted.
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new_tokens, do_sample=False,
                            eos_token_id=-1, pad_token_id=0)
    return tokens[:, prompt.shape[1]:]


def check(folder):
    expected = load_file(folder + "/expected.safetensors")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder + "/model", dtype=torch.float32, output_loading_info=True, trust_remote_code=True, attn_implementation="eager")
    with torch.no_grad():
        logits = model(expected["input_ids"]).logits
    return {
        "class": type(model).__name__,
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": sorted(str(key) for key in info["mismatched_keys"]),
        "error": (logits - expected["logits"]).abs().max().item(),
        "largest": expected["logits"].abs().max().item(),
        "greedy_ids": generate(model, expected["prompt"], expected["greedy_ids"].shape[1]).tolist(),
    }


def make(folder, name, family, options):
    torch.manual_seed(sum(map(ord, name)))
    config = getattr(transformers, family + "Config")(**{**SIZES, **options})
    model = getattr(transformers, family + "ForCausalLM")._from_config(config, attn_implementation="eager")
    for parameter in model.parameters():  # norms and biases that matter
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(f"{folder}/{name}")
    ids = torch.randint(0, SIZES["vocab_size"], (2, 24 if name == "dynamic" else 64))
    with torch.no_grad():
        logits = model(ids).logits
    save_file({"in.input_ids": ids, "out.logits": logits, "out.greedy_ids": generate(model, ids, 8).contiguous()},
              f"{folder}/{name}.safetensors", {"mechanism": "causal_lm", "config": "{}"})


def main():
    torch.set_num_threads(1)
    command, *folders = sys.argv[1:]
    if command == "check":
        for folder in folders:
            print(json.dumps(check(folder)), flush=True)
    else:
        for name, (family, options) in MODELS.items():
            make(folders[0], name, family, options)
            print(name)


if __name__ == "__main__":
    main()
