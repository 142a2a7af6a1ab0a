"""What the fuzzers begin with: python3 tests/fuzz/make_corpus.py writes tests/fuzz/corpus/NAME/*, from the tests' own files and by
Python's zipfile and gzip. tests/fuzz/corpus/store/gzip is a file with `one two three` after
`longreach data tokenize --gzip`."""
import glob
import gzip
import io
import json
import os
import struct
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TORCH_FILES = sorted(glob.glob(os.path.join(ROOT, "tests/checkpoints/formats/vectors/*.pth")))


def save(corpus, name, contents):
    folder = os.path.join(ROOT, "tests/fuzz/corpus", corpus)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(contents if isinstance(contents, bytes) else contents.encode())


def read(path):
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read()


def cut_tokenizer(name, pieces):
    """A tokenizer.json with the first pieces of its vocabulary, the merges that make them, and all its rules."""
    tree = json.loads(read(f"tests/data/files/{name}.json"))
    model = tree["model"]
    model["vocab"] = {piece: number for piece, number in model["vocab"].items() if number < pieces}
    model["merges"] = [pair for pair in model["merges"] if {*pair, "".join(pair)} <= model["vocab"].keys()]
    for token in tree["added_tokens"]:
        if token["id"] >= pieces:
            token["id"] += pieces - 600
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":"))


def pickles_and_archives():
    for path in TORCH_FILES:
        name = os.path.basename(path)[:-len(".pth")]
        contents = read(path)
        if not zipfile.is_zipfile(path):
            save("pickle", name, contents)
            continue
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:
            save("pickle", name, archive.read(next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))))
    save("zip", "torch", read(TORCH_FILES[-2]))
    for name, packing in {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}.items():
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.comment = b"a comment"
            archive.writestr(zipfile.ZipInfo("a/data.pkl"), b"}.", packing)
            with archive.open(zipfile.ZipInfo("a/data/0"), "w", force_zip64=True) as entry:
                entry.write(b"12345678")
        save("zip", name, target.getvalue())


def headers():
    for name, header in {
            "empty": {},
            "two": {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
                    "b": {"dtype": "BOOL", "shape": [], "data_offsets": [24, 25]}},
            "none": {"a": {"dtype": "BF16", "shape": [4, 0], "data_offsets": [0, 0]}}}.items():
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
        save("safetensors", name, struct.pack("<I", end) + json.dumps(header).encode())


def gguf_file(keys, tensors):
    """keys: (name, type, packed value); tensors: (name, shape with the innermost size first, type, bytes)."""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(text(name) + struct.pack("<I", kind) + value for name, kind, value in keys)
    data = b""
    for name, shape, kind, contents in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += contents + bytes(-len(contents) % 32)
    return head + bytes(-len(head) % 32) + data


def gguf_files():
    llama, word = struct.pack("<Q", 5) + b"llama", struct.pack("<IQ", 8, 2) + (struct.pack("<Q", 1) + b"a") * 2
    keys = [("general.architecture", 8, llama), ("llama.block_count", 4, struct.pack("<I", 2)), ("f", 6, struct.pack("<f", 0.5)),
            ("general.alignment", 4, struct.pack("<I", 32)), ("b", 7, b"\1"), ("tokens", 9, word), ("i", 11, struct.pack("<q", -1)),
            ("scores", 9, struct.pack("<IQ2f", 6, 2, 1, 2))]
    save("gguf", "keys", gguf_file(keys, []))
    save("gguf", "tensors", gguf_file(keys[:2], [("a", (4, 2), 0, bytes(32)), ("b", (32,), 8, bytes(34)), ("c", (3,), 1, bytes(6))]))


def records():
    examples = {
        "text": [{"text": "One document.", "id": 1}, {"text": "Another \u00e9\u4e2d."}],
        "messages": [{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}],
        "sharegpt": [{"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me."}]}],
        "completion": [{"prompt": "Who?", "completion": " Me."}],
        "alpaca": [{"instruction": "Say who.", "input": "You?", "output": "Me."}]}
    for name, values in examples.items():
        lines = "\n".join(json.dumps(value) for value in values) + "\n"
        save("jsonl", name, "l" + lines)
        save("jsonl", name + "_array", "v" + json.dumps(values))
    save("jsonl", "gzip", b"l" + gzip.compress(lines.encode(), mtime=0))


def configs():
    save("toml", "all", 'flag = true\ncount = 3\nrate = 0.25\nword = "two"\ncounts = [1, 2]\nrates = [0.5, 1e-3]\nwords = ["a"]\n')
    save("toml", "wrong", 'flag = 1\ncount = "3" # why\n[other]\nrate = nan\n[[word]]\na.b = 1979-05-27T07:32:00Z\n')
    save("toml", "strings", "word = '''\none'''\nwords = [\"\\u00e9\\\\\", 'raw', {a = 1}]\ncounts = [0x1F, 1_000]\n")


def tokenizers():
    for name, pieces in (("bpe_llama2", 300), ("bpe_llama3", 280), ("bpe_qwen2", 280), ("bpe_nfkc", 280)):
        save("tokenizer_json", name, cut_tokenizer(name, pieces))
    for name in ("unigram_rules", "unigram_fallback", "pairs_unknown"):
        save("sentencepiece", name, read(f"tests/data/files/{name}.model"))


def chat_templates():
    sources = json.loads(read("tests/data/chat_template/vectors/rendered.json"))["templates"]
    pieces = [source for name, source in sources.items() if name[1:].isdigit()]
    for name, source in sources.items():
        if source not in pieces:
            save("chat_template", name, source)
    for first in range(0, len(pieces), 10):
        save("chat_template", f"pieces_{first}", "\n".join(pieces[first:first + 10]))


pickles_and_archives()
headers()
gguf_files()
records()
configs()
tokenizers()
chat_templates()
