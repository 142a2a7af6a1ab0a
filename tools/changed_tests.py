"""What `./longreach test --changed` builds and runs: changed_tests.py FOLDER COMMIT, of a build folder that is configured.

Prints a line `build TARGET` for every test program that depends on a file which differs from COMMIT's, and a line `test
REGEX` for CTest. What depends on what stands in ninja's own graph: in build.ninja, and for headers in the compilers' lists of
the last build (`ninja -t deps`); an object without such a list counts as changed. Three rules go beyond that graph:
- An object of one mechanism (layers/attention/NAME) is linked into everything. For it count all tests of the folders
  layers/attention/NAME, layers/attention itself, models and train/verify, and elsewhere the test files that name the
  mechanism and the tests whose parameter it is, as in the matrix test.
- A file that no compiler reads, a vector or a page, counts as a change of the files under tests/ that name it or its folder.
- CMake's files concern everything; a deleted source, the objects of its neighbours.
"""
import collections
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CPP = (".cpp", ".h", ".cu", ".cuh")
CMAKE = re.compile(r"(.*/)?CMakeLists\.txt$|CMakePresets\.json$|cmake/")
MECHANISM = re.compile(r"(?:tests/)?layers/attention/(?!common/)(\w+)/")
SUITE = re.compile(r"^(?:TYPED_)?TEST(?:_[FP])?\((\w+),", re.MULTILINE)


def changed_files(commit):
    """Relative to the root: changed, added, deleted, and not yet known to git."""
    git = ["git", "-C", ROOT, "-c", "safe.directory=*"]
    names = subprocess.check_output([*git, "diff", "--name-only", "--no-renames", "-z", commit, "--"])
    names += subprocess.check_output([*git, "ls-files", "--others", "--exclude-standard", "-z"])
    return sorted(set(names.decode().split("\0")) - {""})


class Graph:
    """The nodes of build.ninja: files, relative to the root where they lie in the tree, else as ninja names them."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        self.users = collections.defaultdict(set)  # of each input: the outputs made from it
        self.objects = {}  # of each object: its source
        self.read_edges()
        self.read_headers()

    def node(self, name):
        name = name.replace("$:", ":").replace("\1", " ").replace("$$", "$")
        path = os.path.normpath(os.path.join(self.folder, name))
        inside = path.startswith(ROOT + os.sep) and not path.startswith(self.folder + os.sep)
        return os.path.relpath(path, ROOT) if inside else os.path.relpath(path, self.folder)

    def read_edges(self):
        with open(os.path.join(self.folder, "build.ninja"), encoding="utf-8") as file:
            text = file.read().replace("$\n", "").replace("$ ", "\1").replace("${cmake_ninja_workdir}", "")
        for outputs, rule, inputs in re.findall(r"^build ((?:[^:$\n]|\$.)+): (\S+)(.*)$", text, re.MULTILINE):
            outputs = {self.node(name) for name in outputs.split() if name != "|"}
            inputs = [self.node(name) for name in inputs.split() if not name.startswith("|")]
            for name in inputs:
                self.users[name] |= outputs
            if rule.startswith("CXX_COMPILER"):
                self.objects.update((name, inputs[0]) for name in outputs if name.endswith(".o"))

    def read_headers(self):
        """The lists of the compilers; what has none yet, and is no C++ object either, needs none."""
        listed, target = set(), None
        listing = subprocess.run(["ninja", "-C", self.folder, "-n", "-t", "deps"], capture_output=True, text=True).stdout
        for line in listing.splitlines():
            if not line.startswith(" "):
                target = self.node(line.split(": #deps")[0]) if ": #deps" in line else None
                listed.add(target)
            elif target:
                self.users[self.node(line.strip())].add(target)
        self.unlisted = set(self.objects) - listed

    def near(self, name):
        """The objects of the sources in the same folder, or in the nearest one above that has any."""
        while name:
            name = os.path.dirname(name)
            found = {target for target, source in self.objects.items() if source.startswith(name + "/" if name else "")}
            if found:
                return found
        return set(self.objects)

    def above(self, starts):
        """Everything that is made from these."""
        found, waiting = set(), list(starts)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.users.get(name, ())
        return found


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as file:
        return file.read()


def namers(name, sources):
    """The sources under tests/ that name this file, or the folder it lies in."""
    folder = os.path.basename(os.path.dirname(name)) if name.startswith("tests/") else name.split("/")[0]
    words = [re.escape(os.path.basename(name))] if name.startswith("tests/") or "/" not in name else [re.escape(name)]
    words += [f'["/]{re.escape(folder)}["/]'] if "/" in name else []
    pattern = re.compile("|".join(words))
    return [source for source in sources
            if source.startswith("tests/") and pattern.search(re.sub("(?m)^#include.*", "", read(source)))]


def affected(graph, names):
    """(objects and other nodes that are made from these files at first hand, mechanisms that files lie in)."""
    nodes, kinds = set(graph.unlisted), set()
    sources = [name for name in set(graph.users) | set(graph.objects.values())
               if name.endswith(CPP) and os.path.isfile(os.path.join(ROOT, name))]
    for name in names:
        mechanism = MECHANISM.match(name)
        if CMAKE.match(name):
            nodes |= set(graph.objects)
        elif graph.users.get(name):
            nodes |= graph.users[name]
        elif name.endswith(CPP):
            deleted = name.endswith((".cpp", ".cu")) and not os.path.exists(os.path.join(ROOT, name))
            nodes |= graph.near(name) if deleted else set()
        elif mechanism and not name.endswith(".md"):
            kinds.add(mechanism.group(1))
        elif "/vectors/" in name:
            nodes |= graph.users["tests/support/vectors.h"]  # finds them in any folder
        else:
            for source in namers(name, sources):
                nodes |= graph.users[source]
    return nodes, kinds


def tests_of_kind(kind, programs, graph):
    """(program, regex of its tests' names) for a change inside one mechanism."""
    whole = re.compile(rf"layers_attention_{kind}_(\w+_)?test|layers_attention_(ptx_|gpu_|slow_)?test|models_(\w+_)?test|train_verify_test")
    word = re.compile(rf"(?i)\b{kind}(Config)?\b")
    for program in programs:
        if whole.fullmatch(program):
            yield program, ""
        elif program.startswith("end_to_end"):
            yield program, f".*/{kind}( |$)"
    for target, source in graph.objects.items():
        for program in {os.path.basename(user) for user in graph.users[target]} & programs:
            if not whole.fullmatch(program) and word.search(text := read(source)) and (suites := SUITE.findall(text)):
                yield program, f"(.*/)?({'|'.join(sorted(set(suites)))})(/[^.]*)?\\."


def main():
    graph = Graph(sys.argv[1])
    programs = {os.path.basename(name) for outputs in graph.users.values() for name in outputs
                if re.fullmatch(r"bin/\w+_test", name)}
    nodes, kinds = affected(graph, changed_files(sys.argv[2]))
    wide = set()
    for node in nodes:
        mechanism = MECHANISM.match(graph.objects.get(node, ""))
        kinds |= {mechanism.group(1)} if mechanism and node not in graph.unlisted else set()
        wide |= set() if mechanism and node not in graph.unlisted else {node}
    chosen = {(os.path.basename(name), "") for name in graph.above(wide)}
    for kind in kinds:
        chosen |= set(tests_of_kind(kind, programs, graph))
    whole = {program for program, tests in chosen if not tests}
    chosen = sorted((program, tests) for program, tests in chosen if program in programs and (not tests or program not in whole))
    targets = sorted({program for program, _ in chosen})
    print("\n".join([f"build {name}" for name in targets] + [f"test ^{program}\\.{tests}" for program, tests in chosen]))


if __name__ == "__main__":
    main()
