"""Trains small tokenizers with the libraries that define them and writes what they answer.

Usage: python3 make_tokenizer_files.py FOLDER [--interop SEED]
Writes tokenizer.json and .model files and tokenizer_cases.json: {"file": [{"text", "ids", "decoded"}]}. The files in
this folder came from `tokenizers` 0.23.3 and `sentencepiece` 0.2.3. With --interop the models also carry the full
normalization rules of SentencePiece, and far more random texts are asked.
"""

import argparse
import io
import json
import os
import random
import unicodedata

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PROSE = """The river ran past the mill, and the miller's daughter counted the boats: one, two, three, 14, 15, 16.
"Don't go," she said; "they're late, and we'll wait until it's dark." He'd never seen so many sails!
In 1842 the harbour held 1,250 ships, 37 of them from the north. They carried salt, iron, wool and letters.
The attention of a long sequence grows with the square of its length, unless the window is kept small.
A model reads a token, keeps a state, forgets a little, and writes the next token; this is what it learns to do.
for (int i = 0; i < 10; ++i) { total += values[i] * 2; }  // adds them up
def read(path):\n    with open(path) as file:\n        return file.read()
Die Straße führt über die Brücke zum Café. El niño comió piñas. Le garçon a mangé une crêpe à Orléans.
Русский текст и ещё немного слов. Ελληνικά γράμματα. 日本語の文章です。中文句子，没有空格。한국어 문장입니다.
There was a time when every road led to the river, and every river to the sea, and nobody asked why the sea was salt.
What the wind had taken the wind would bring again; the old men said so, and the old men had always been right.
She walked through the market, through the gate, along the wall, and down to where the fishermen mended their nets.
""".splitlines()

HARD = [
    "Hello, world!", "  leading and   multiple spaces\n\n\tTabs\r\nCRLF",
    "I've we'll they'd it's I'M DON'T YOU'RE 'S 'Ve 'lL 'ſ rock'n'roll ''s",
    "1234567890 3.14159 2024-01-31 ½ ٣ Ⅷ ²³ ①⑳ ٠١٢٣٤٥ १२३ 一二三", "naïve Straße Ελληνικά Русский 日本語 한국어 العربية हिन्दी",
    "😀👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈 \u200b zero\u00a0nbsp \u3000wide\u3000\u3000space \u2028line \u0085nel \u1680",
    "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|> <|endoftext|><sep>x  <|endoftext|> <pad> y <|im_end|", "a" * 64,
    "def f(x):\n    return x**2  # comment\n\n\n", "!!!???...---", "", "\n", "\x01\x7f", "end space ", "   ",
    "\n \n  \n\t\t x", "x" + " " * 33 + "y", "\ud7ff\ue000\ufffd", "e\u0301a\u0300\u0323 cafe\u0301 \u0915\u094d\u0937 ﬁ ＡＢ",
    "没有空格的一段文字，包括标点。「引号」和数字123", "\r\n\r\n \r\n\n\r", "$100 + €20 = ¥5 ^_^ ~~ `code`", "\ufeffBOM 𝐁𝐨𝐥𝐝 𝟙𝟚 🇩🇪 \U0010fffd",
    "a\u0323\u0301 a\u0301\u0323 \u1100\u1161\u11a8 \uac01 \uac00\u11a8 \u0958 \u212b \u0344 \u2126 \ufdfa \u00bd \u1e9b\u0323 ﬁ\u0301",
    "hello world to the <sep> to <s> </s> ▁marks▁ here", "zzz azzz zzz. Ab  Ab",
]
FORMS = {"nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(), "nfkd": normalizers.NFKD()}
POOL = list("  \n\r\t''sStTdDmMrReEvVlLabcXY0129²½é日한ا?!.,-_$<|>😀ſK") + ["\u0301", "\u00a0", "\u3000", "\u200d", "the", " of"]


def random_text(rng):
    if rng.random() < 0.5:
        return "".join(rng.choice(POOL) for _ in range(rng.randrange(40)))
    codes = [rng.randrange(1, 0x3000) if rng.random() < 0.7 else rng.randrange(0x3000, 0x110000) for _ in range(rng.randrange(25))]
    return "".join(chr(c) * rng.choice([1, 1, 2]) for c in codes if not 0xD800 <= c < 0xE000)


def json_tokenizers():
    split = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    level = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    llama3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
              r"\s*[\r\n]+|\s+(?!\S)|\s+")
    splitters = {
        "gpt2": level(True),
        "llama3": pre_tokenizers.Sequence([split(llama3), level(False)]),
        "qwen2": pre_tokenizers.Sequence([split(llama3.replace("{1,3}", "")), level(False)]),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level(True)]),
        "merged": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\s"), "merged_with_next"),
                                           pre_tokenizers.Punctuation("merged_with_previous"), level(False)]),
    }
    for name, splitter in splitters.items():
        tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
        tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                      special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False)
        tokenizer.train_from_iterator(PROSE * 3, trainer)
        tokenizer.add_tokens([AddedToken("zzz", single_word=True), AddedToken("Ab", lstrip=True),
                              AddedToken("<pad>", lstrip=True, rstrip=True, special=True)])
        yield f"bpe_{name}.json", tokenizer
        for form, normalizer in FORMS.items():  # as Qwen2's own file has NFC
            if name == "qwen2":
                tokenizer.normalizer = normalizer
                yield f"bpe_{form}.json", tokenizer
    yield "bpe_llama2.json", marked_tokenizer()


def marked_tokenizer():
    """Characters with byte fallback, spaces written as U+2581, as in Llama 2."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special + [f"<0x{i:02X}>" for i in range(256)],
                                  show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(["▁" + word for line in PROSE for word in line.split(" ")], trainer)
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] in special]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    rules = json.loads(tokenizer.to_str())
    fields.update(normalizer=rules["normalizer"], decoder=rules["decoder"], pre_tokenizer=None)
    return Tokenizer.from_str(json.dumps(fields))


def train_sentencepiece(path, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(PROSE * 3), model_writer=model, minloglevel=2,
                                             num_threads=1, hard_vocab_limit=False, **options)
    with open(path, "wb") as file:
        file.write(model.getvalue())


def sentencepieces(folder, interop):
    rules = os.path.join(folder, "rules.tsv")
    with open(rules, "w") as file:  # source code points, tab, what they become: a small trie
        file.write("FF21\t41\nFF22\t42\n3000\t20\n9\t20\nA\t20\nD\t20\nA0\t20\nFB01\t66 69\n65 301\tE9\n")
    defined = ["<sep>", "▁to", "hello world", "日本"]
    wanted = {
        "unigram_rules": dict(model_type="unigram", vocab_size=300, normalization_rule_tsv=rules),
        "unigram_fallback": dict(model_type="unigram", vocab_size=500, normalization_rule_name="identity", byte_fallback=True,
                                 remove_extra_whitespaces=False, user_defined_symbols=defined),
        "pairs_fallback": dict(model_type="bpe", vocab_size=600, normalization_rule_name="identity", byte_fallback=True,
                               user_defined_symbols=defined),
        "pairs_unknown": dict(model_type="bpe", vocab_size=300, normalization_rule_name="identity", add_dummy_prefix=False,
                              remove_extra_whitespaces=False, character_coverage=0.98),
    }
    if interop:
        for name in list(wanted):
            if name != "unigram_rules":
                wanted[name]["normalization_rule_name"] = "nmt_nfkc"
    for name, options in wanted.items():
        train_sentencepiece(os.path.join(folder, f"{name}.model"), **options)
        yield f"{name}.model"
    os.remove(rules)


def agreed(name, tokenizer, texts):
    """The library's Unicode is older than ours: it takes newer combining marks for letters. Texts that Python's newer tables
    normalize in another way are not asked."""
    form = name[len("bpe_"):-len(".json")]
    if form not in FORMS:
        return texts
    return [text for text in texts if unicodedata.normalize(form.upper(), text) == tokenizer.normalizer.normalize_str(text)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--interop", type=int)
    arguments = parser.parse_args()
    rng = random.Random(arguments.interop or 0)
    texts = HARD + [random_text(rng) for _ in range(20 if arguments.interop is None else 2000)]
    cases = {}
    for name, tokenizer in json_tokenizers():
        tokenizer.save(os.path.join(arguments.folder, name), pretty=False)
        asked = agreed(name, tokenizer, texts)
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in asked]
        cases[name] = [dict(text=text, ids=i, decoded=tokenizer.decode(i, skip_special_tokens=False)) for text, i in zip(asked, ids)]
    for name in sentencepieces(arguments.folder, arguments.interop is not None):
        model = sentencepiece.SentencePieceProcessor(model_file=os.path.join(arguments.folder, name))
        cases[name] = [dict(text=text, ids=model.encode(text), decoded=model.decode(model.encode(text))) for text in texts]
    with open(os.path.join(arguments.folder, "tokenizer_cases.json"), "w") as file:
        lines = [json.dumps(name) + ": [\n" + ",\n".join(json.dumps(case) for case in cases[name]) + "]" for name in cases]
        file.write("{" + ",\n".join(lines) + "}\n")


main()
