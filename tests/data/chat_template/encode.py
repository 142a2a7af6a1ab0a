#!/usr/bin/env python3
"""Ids of apply_chat_template of transformers: encode.py FOLDER OUT, for conversations with each tokenizer.json and template in FOLDER."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from families import FAMILIES  # noqa: E402

TOKENIZERS = {"bpe_smollm.json": ["smollm2", "chatml", "qwen25", "qwen3"], "bpe_llama3.json": ["llama3", "llama31"]}


def main():
    from transformers import PreTrainedTokenizerFast
    folder, out = sys.argv[1:]
    turns = [{"role": "system", "content": "Be  kind.\n"}, {"role": "user", "content": " Grüße, 世界 🙂"},
             {"role": "assistant", "content": "Hello!\n\nI'm 12345."}, {"role": "user", "content": "\tdef f(x):\n  return x"}]
    rows = []
    bos = "<|endoftext|>"
    for name, families in TOKENIZERS.items():
        for family in families:
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, name), chat_template=FAMILIES[family], bos_token=bos)
            for count in (2, 4):
                ids = tokenizer.apply_chat_template(turns[:count], add_generation_prompt=True, return_dict=False)
                rows.append({"tokenizer": name, "bos_token": bos, "template": FAMILIES[family], "messages": turns[:count], "ids": ids})
    with open(out, "w", encoding="utf-8") as file:
        json.dump(rows, file)


if __name__ == "__main__":
    main()
