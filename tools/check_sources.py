"""Rules about the sources that no compiler checks: which folder may include which, sizes, words.

check_sources.py          prints a line for each violation; exit code 1 when there is one
check_sources.py --list   prints the C++ files of the tree, one a line
check_sources.py --files  prints every file of the tree, one a line
"""
import fnmatch
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Top folders of the product; tests may include any of them.
FOLDERS = ("core", "data", "checkpoints", "distributed", "layers", "models", "train")
TORCH = re.compile(r"(torch|ATen|c10|caffe2)/")
# Headers that cost seconds in every file that sees them: the files that may.
HEAVY = {
    "torch/torch.h": (),
    "torch/csrc/autograd/custom_function.h": ("layers/ops/common/autograd.cpp",),
    "ATen/Parallel.h": ("layers/ops/cpu/parallel.cpp", "distributed/threads.cpp"),
    "torch/csrc/distributed/c10d/TCPStore.hpp": ("distributed/rendezvous.cpp",),
    "torch/csrc/distributed/c10d/ProcessGroupGloo.hpp": ("distributed/gloo.cpp", "train/bench/gloo_peer.cpp"),
    "ATen/ATen.h": (),
}
KERNEL = re.compile(r"layers/ops/(.*/)?(cpu/(?!parallel\.cpp)[^/]*|kernels\.h|[^/]*\.cuh)$")
FUSED = re.compile(r"layers/(.*/)?op\.cpp$")
# Arithmetic on whole tensors, which in a fused operator would mean a tensor of scores or a pass over memory too many.
TENSOR_ARITHMETIC = re.compile(
    r"(?:at::|\.|->)(matmul|mm|bmm|baddbmm|addmm|einsum|softmax|log_softmax|logsumexp|cumsum|cumprod|index|index_select|"
    r"index_put_?|gather|scatter|scatter_add_?|masked_fill_?|tril|triu|scaled_dot_product_attention)\(")
MAX_FILE, MAX_FUNCTION, MAX_WIDTH = 500, 80, 110
WORDS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|TB" r"D|PLACE" r"HOLDER|[Pp]lace" r"holder|lorem " r"ipsum)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.])/(home|root|work|Users|opt/wheels)/")
REGISTRIES = re.compile(r"\b(pypi|pythonhosted|huggingface|deb\.debian|snapshot\.debian|download\.pytorch)\.(org|co|com)\b|\bhf\.co\b")
CPP = (".cpp", ".h", ".cu", ".cuh")
# What prose and allow-lists name as a file of the tree; `*`, words of capitals and a leading x stand for any name.
NAMED_FILE = re.compile(r"(?<![\w./*-])((?:[\w.*-]+/)*[\w.*-]+\.(?:cpp|cuh?|h|py|sh|cmake|md|toml|lock|txt))(?![\w/*-]|\.\w)")
ANY_NAME = re.compile(r"(?<![A-Za-z0-9])[A-Z]+(?![A-Za-z0-9])|(?<![^/])x(?=[_.])")
# Files of other programs, and what builds, runs and fetches write.
FOREIGN_FILE = re.compile(r"(torch|ATen|hwy|asm)/.*|(.*/)?(prepare|data_common)\.py|(config|run)\.toml|(images|llama)\.cpp|"
                          r"(.*/)?(static_table|log|LICENSE|SOURCE|requirements|NormalizationTest|CTestCostData|NAME\.ARCH)\.txt")
DATA = re.compile(r"tests/(vectors|data/files)/|tests/(.*/)?vectors/")
SKIPPED_FOLDERS = re.compile(r"^(build.*|exp|assets|\.git|__pycache__)$")


def files():
    """Every file of the tree, relative to it: git's when this is a checkout, else what lies there."""
    listing = subprocess.run(["git", "-C", ROOT, "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"],
                             capture_output=True) if os.path.exists(os.path.join(ROOT, ".git")) and which("git") else None
    if listing and listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
    else:
        names = []
        for folder, children, leaves in os.walk(ROOT):
            children[:] = [name for name in children if not SKIPPED_FOLDERS.match(name)]
            names += [os.path.relpath(os.path.join(folder, leaf), ROOT) for leaf in leaves]
    return sorted(name for name in set(names) if name and os.path.isfile(os.path.join(ROOT, name)))


def which(program):
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in os.environ.get("PATH", "").split(":"))


def read_units():
    """{unit: units it may include} of cmake/units.txt, which says what a unit is."""
    with open(os.path.join(ROOT, "cmake/units.txt"), encoding="utf-8") as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    return {unit: set(uses) | {unit} for unit, _, *uses in rows}


UNITS = read_units()


def unit_of(name):
    """(unit, what NAME stands for) of a file: the longest unit that begins its path, a folder or the file's own stem; of two
    that are equally long the one without NAME."""
    parts = name.split("/")
    best = (0, False, None, None)
    for unit in UNITS:
        words = unit.split("/")
        begin = parts[:len(words)]
        if len(parts) == len(words):
            begin = begin[:-1] + [begin[-1].split(".")[0]]
        if len(begin) < len(words) or any(word not in ("NAME", part) for word, part in zip(words, begin)):
            continue
        if len(parts) == len(words) and words[-1] == "NAME":
            continue  # a loose file, not a folder
        own = next((part for word, part in zip(words, begin) if word == "NAME"), None)
        best = max(best, (len(words), own is None, unit, own), key=lambda found: found[:2])
    return best[2:]


def may_include(name, header):
    """Whether cmake/units.txt lets the file include the header."""
    (unit, own), (target, other) = unit_of(name), unit_of(header)
    if unit is None or target is None:
        return True
    if target == unit and own == other or target != unit and target in UNITS[unit]:
        return True
    if unit.startswith(f"{target}/") and own is not None and own == other:  # layers/ops/NAME/verify, of its own folder
        return True
    return f"{target}/NAME.h" in UNITS[unit] and header == f"{target.replace('NAME', other)}/{other}.h"


def check_includes(name, lines):
    folder = name.split("/")[0]
    mechanism = re.match(r"tests/layers/attention/(\w+)/", name)
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quoted, header = match.group(1) == '"', match.group(2)
        if header in HEAVY and name not in HEAVY[header]:
            allowed = ", ".join(HEAVY[header]) or "nobody"
            yield f"{name}:{number}: includes {header}, which {allowed} may"
        if TORCH.match(header) and (KERNEL.match(name) or folder in ("core", "data")):
            yield f"{name}:{number}: includes {header}; kernels, core and data include no torch header"
        if not quoted:
            continue
        if folder in FOLDERS and (header.split("/")[0] not in FOLDERS or not os.path.exists(os.path.join(ROOT, header))):
            yield f"{name}:{number}: includes \"{header}\", which is no path from the root of the tree"
        elif folder in FOLDERS and not may_include(name, header):
            yield f"{name}:{number}: {unit_of(name)[0]} must not include \"{header}\" (cmake/units.txt)"
        elif folder not in FOLDERS and unit_of(header)[0] == "layers/attention/NAME" and not (
                mechanism and mechanism.group(1) == unit_of(header)[1]):
            yield f"{name}:{number}: includes \"{header}\"; but for its own tests, mechanisms are reached through mechanisms.h"


def function_lengths(lines):
    """(first line, length) of what looks like a function in formatted code: a head that starts at the margin, or one step in
    (methods), and has a parenthesis, up to the closing brace at the same margin."""
    for indent in ("", "  "):
        margin = re.compile(indent + r"(?!class |struct |namespace |enum |union |extern |public:|private:)[\w~:<\[]")
        head = start = None
        for number, line in enumerate(lines, 1):
            if start is not None:
                if line.startswith(indent + "}"):
                    yield start, number - start + 1
                    head = start = None
                continue
            if margin.match(line):
                head = number if "(" in line else None
            if head and line.endswith("{"):
                start = head
            elif line.endswith((";", "}")):
                head = None


def check_sizes(name, lines):
    if len(lines) > MAX_FILE:
        yield f"{name}: {len(lines)} lines; at most {MAX_FILE}"
    if name.endswith(CPP):
        for start, length in function_lengths(lines):
            if length > MAX_FUNCTION:
                yield f"{name}:{start}: a function of {length} lines; at most {MAX_FUNCTION}"


def check_words(name, lines):
    for number, line in enumerate(lines, 1):
        for pattern, what in ((WORDS, "an unfinished word"), (MACHINE_PATHS, "a path of one machine"),
                              (REGISTRIES, "the host of a package registry")):
            if match := pattern.search(line):
                yield f"{name}:{number}: `{match.group(0)}` is {what}"


def check_fused(name, lines):
    for number, line in enumerate(lines, 1):
        if match := TENSOR_ARITHMETIC.search(line.split("//")[0]):
            yield f"{name}:{number}: a fused operator computes in its kernel, not with {match.group(1)}()"


def check_links(name, lines):
    """Links to files of the tree must lead somewhere."""
    folder = os.path.dirname(os.path.join(ROOT, name))
    for number, line in enumerate(lines, 1):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line):
            if not re.match(r"https?:", target) and not os.path.exists(os.path.join(folder, target)):
                yield f"{name}:{number}: link to {target}, which does not exist"


def prose(name, line):
    """What of a line speaks of files: in C++ its comment, elsewhere all of it."""
    if name.endswith(CPP):
        begin = next((match.start() for match in re.finditer(r'"(?:\\.|[^"\\])*"|//', line) if match.group(0) == "//"), len(line))
        line = line[begin:]
    return re.sub(r"\w+://\S+|\$\{?longreach_root\}?/|\$\{?\w+\}?/\S*", "", line)


def file_exists(name, all_names, endings):
    """As a path from the root, or the end of one; a pattern must fit some file."""
    if os.path.normpath(name) in endings or FOREIGN_FILE.fullmatch(name):
        return True
    pattern = ANY_NAME.sub("*", name).replace("**/", "*")
    return "*" in pattern and any(fnmatch.fnmatch(other, pattern) or fnmatch.fnmatch(other, "*/" + pattern) for other in all_names)


def check_named_files(all_names):
    """Every file that a comment, a page or an allow-list names exists."""
    endings = {"/".join(name.split("/")[begin:]) for name in all_names for begin in range(name.count("/") + 1)}
    for name, lines in texts(all_names):
        for number, line in enumerate(lines, 1):
            for named in NAMED_FILE.findall(prose(name, line)):
                beside = os.path.join(ROOT, os.path.dirname(name), named)
                if not os.path.exists(beside) and not file_exists(named, all_names, endings):
                    yield f"{name}:{number}: names {named}, which does not exist"


def check_includers(all_names):
    """Every header has an includer, in the tests or the package's consumer at least."""
    included = {header for _, lines in texts(all_names) for line in lines
                for header in re.findall(r'^\s*#\s*include\s+[<"]([^">]+)', line)}
    for name in all_names:
        if name.endswith((".h", ".cuh")) and name not in included:
            yield f"{name}: nobody includes this header"


def texts(all_names):
    """(name, lines) of what people have written."""
    for name in all_names:
        if name.endswith(CPP + (".py", ".sh", ".cmake", ".md", ".toml", ".txt")) and not DATA.match(name):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                yield name, file.read().split("\n")


def check_quotes(name, lines):
    """A block of code under `<!-- quoted from FILE -->` is a piece of that file."""
    for number, line in enumerate(lines, 1):
        if not (match := re.fullmatch(r"<!-- quoted from (\S+) -->", line)):
            continue
        block = "\n".join(lines[number:]).split("```")
        path = os.path.join(ROOT, match.group(1))
        if len(block) < 3 or block[0] or not os.path.exists(path):
            yield f"{name}:{number}: no block of code, or no file {match.group(1)}, follows the mark"
            continue
        with open(path, encoding="utf-8") as file:
            if block[1].split("\n", 1)[1] not in file.read():
                yield f"{name}:{number}: this block is not in {match.group(1)} any more"


TYPE_ALONE = re.compile(r"\s+(?:const |static |mutable )*[\w:<>,\s*&]+[\w>*&]$")
NAME_AND_COMMENT = re.compile(r"\s+\w+(?: = [^;]+| \{[^;]*\})?;\s+//")


def check_comments(name, lines):
    """Comments are as wide as code, and one behind a declaration does not tear it in two."""
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_WIDTH and line.lstrip().startswith("//"):
            yield f"{name}:{number}: a comment of {len(line)} columns; at most {MAX_WIDTH}"
        before = lines[number - 2] if number > 1 else ""
        torn = NAME_AND_COMMENT.match(line) and TYPE_ALONE.match(before) or (
            name.endswith(".h") and re.match(r"\s+[\w:<>,* ]+ =$", before) and re.match(r"\s+[^;/]*;\s*//", line))
        if torn and "//" not in before:
            yield f"{name}:{number}: a comment tears this declaration; above it there is room"


def check_opening(name, lines):
    """A file opens with a comment; the one of x.h speaks for x.cpp too."""
    header = re.sub(r"\.cpp$", ".h", name)
    own_header = name.endswith(".cpp") and lines and lines[0] == f'#include "{header}"'
    if not own_header and not (lines and lines[0].startswith("//")):
        yield f"{name}:1: a file opens with a comment on what it is and why"


def violations(name):
    try:
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            lines = file.read().split("\n")
    except UnicodeDecodeError:
        return  # binary
    if lines[-1] == "":
        lines.pop()
    written = name.endswith(CPP + (".py", ".sh", ".cmake", ".md", ".toml", ".txt")) or "." not in os.path.basename(name)
    if "/vectors/" in name or name.startswith("tests/data/files/"):
        return
    if written and name != "LICENSE":
        yield from check_words(name, lines)
    if name.endswith(CPP + (".py", ".sh", ".cmake")):
        yield from check_sizes(name, lines)
    if name.endswith(CPP):
        yield from check_opening(name, lines)
        yield from check_comments(name, lines)
        yield from check_includes(name, lines)
    if name.endswith(".md"):
        yield from check_links(name, lines)
        yield from check_quotes(name, lines)
    if FUSED.match(name):
        yield from check_fused(name, lines)


def main():
    names = files()
    if sys.argv[1:] == ["--files"]:
        print("\n".join(names))
        return 0
    if sys.argv[1:] == ["--list"]:
        print("\n".join(name for name in names if name.endswith(CPP)))
        return 0
    found = [line for name in names for line in violations(name)]
    found += [*check_named_files(names), *check_includers(names)]
    print("\n".join(found[:200] + [f"{len(names)} files, {len(found)} violations"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
