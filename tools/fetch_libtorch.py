"""Unpacks LibTorch from the pinned wheels: fetch_libtorch.py LOCK cpu|cuda ROOT.

A wheel is a zip file, and a C++ program needs its headers and libraries only, so nothing is installed: pip downloads
one wheel at a time and checks its sha256, the needed members are unpacked into ROOT.partial, and a finished ROOT.partial
is renamed to ROOT. A run that was cut short goes on with the first wheel that is missing. The caller holds a lock.
"""
import os
import re
import shutil
import subprocess
import sys
import zipfile
from typing import NamedTuple

# Members that a C++ program can use: headers, libraries, licences. libtorch_python.so needs an interpreter.
_WANTED = {
    "cpu": re.compile(r"torch/include/|torch/lib/lib(torch_cpu|c10|gomp)\.so|nvidia/.*\.so|.*\.dist-info/.*(LICENSE|NOTICE|METADATA)"),
    "cuda": re.compile(r"torch/include/|torch/lib/(?!libtorch_python)[^/]*\.so|nvidia/.*(\.so|/include/)|.*\.dist-info/.*(LICENSE|NOTICE|METADATA)"),
}
_GLIBC = range(36, 4, -1)  # wheels are tagged with the glibc they need: manylinux_2_N


class Wheel(NamedTuple):
    name: str
    version: str
    download_mb: int
    unpacked_mb: int
    sha256: str

    def __str__(self):
        return f"{self.name} {self.version} ({self.download_mb} MB)"


def fail(message):
    sys.exit(f"longreach: {message}")


def read_lock(path, wanted_set):
    wheels = []
    with open(path) as lock:
        for line in lock:
            if line.strip() and not line.startswith("#"):
                kind, name, version, download, small, full, sha256 = line.split()
                if kind == "cpu" or kind == wanted_set:
                    wheels.append(Wheel(name, version, int(download), int(small if wanted_set == "cpu" else full), sha256))
    return wheels


def check_free_space(wheels, folder):
    needed = sum(wheel.unpacked_mb for wheel in wheels) + max(wheel.download_mb for wheel in wheels)
    free = shutil.disk_usage(folder).free // 10**6
    if free < needed:
        fail(f"disk full: LibTorch needs {needed / 1000:.1f} GB in {folder}, {free / 1000:.1f} GB are free "
             "(XDG_CACHE_HOME chooses another place)")


def download(wheel, folder, kept):
    """The path of the downloaded wheel; pip has checked its sum."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    requirements = os.path.join(folder, "requirements.txt")
    with open(requirements, "w") as file:
        file.write(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    platforms = [word for n in _GLIBC for word in ("--platform", f"manylinux_2_{n}_x86_64")]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--require-hashes", "--retries", "2",
               "--disable-pip-version-check", "--python-version", "3.11", "--only-binary", ":all:", *platforms,
               "--platform", "manylinux2014_x86_64", "--progress-bar", "off", "--dest", folder, "--requirement", requirements]
    environment = dict(os.environ, TMPDIR=folder, PIP_REQUIRE_VIRTUALENV="0")
    result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors="replace")
    found = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if result.returncode == 0 and len(found) == 1:
        return os.path.join(folder, found[0])
    fail(f"could not fetch {wheel} from the Python package index: {reason(result.stdout)}; what has arrived is kept in "
         f"{kept}, and the same command goes on from there")


def reason(output):
    if re.search(r"No module named pip", output):
        return "this Python has no pip (Debian package python3-pip)"
    if re.search(r"No space left", output):
        return "disk full"
    if re.search(r"DO NOT MATCH THE HASHES", output):
        return "its sha256 is not the pinned one"
    if re.search(r"NewConnectionError|Temporary failure in name|ConnectTimeout|Read timed out|Connection broken|ProxyError|"
                 r"Network is unreachable|Connection reset|MaxRetryError|IncompleteRead", output):
        return "no network, or it broke off"
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return errors[-1][:300] if errors else "pip failed"


def unpack(path, pattern, target):
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if pattern.match(member) and not member.endswith("/"):
                archive.extract(member, target)


def fetch_for_tests(wheel, name, wanted, programs=()):
    """Unpacks what `wanted` matches into the folder of the first argument, by default longreach/NAME-VERSION in the cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(cache, "longreach", f"{name}-{wheel.version}")
    if os.path.exists(root):
        return
    partial = root + ".partial"
    os.makedirs(partial, exist_ok=True)
    check_free_space([wheel], partial)
    print(f"longreach: fetching {wheel}", file=sys.stderr, flush=True)
    downloads = os.path.join(partial, "downloads")
    unpack(download(wheel, downloads, partial), wanted, partial)
    for program in programs:
        os.chmod(os.path.join(partial, program), 0o755)
    shutil.rmtree(downloads)
    os.rename(partial, root)


def main():
    lock, wanted_set, root = sys.argv[1:]
    partial = root + ".partial"
    os.makedirs(partial, exist_ok=True)
    done = os.path.join(partial, "wheels-unpacked")  # names, one a line
    finished = open(done).read().split() if os.path.exists(done) else []
    wheels = read_lock(lock, wanted_set)
    missing = [wheel for wheel in wheels if wheel.sha256 not in finished]
    if missing:
        check_free_space(missing, partial)
    for wheel in missing:
        print(f"longreach: fetching {wheel}", file=sys.stderr, flush=True)
        downloads = os.path.join(partial, "downloads")
        try:
            unpack(download(wheel, downloads, partial), _WANTED[wanted_set], partial)
        except OSError as error:
            fail(f"could not unpack {wheel} into {partial}: {error.strerror or error}")
        with open(done, "a") as file:
            file.write(wheel.sha256 + "\n")
        shutil.rmtree(downloads)
    os.rename(partial, root)


if __name__ == "__main__":
    main()
