"""Runs the tests labelled `slow` of a build folder, cheapest first, for a number of seconds: slow_tests.py FOLDER SECONDS.

What a test costs stands in tests/slow_costs.txt, from where CMake gives it to CTest as the property COST (negative: CTest
starts the highest first). A test whose cost no longer fits is not started; one that the deadline cuts off is not counted
as failed. Every test that was not reached, or not finished, is named. Exit code: CTest's.
"""
import json
import os
import re
import subprocess
import sys
import time

MARGIN = 1.5  # another machine may be slower by this


def slow_tests(folder):
    """{name: seconds}, cheapest first."""
    listing = json.loads(subprocess.check_output(["ctest", "--test-dir", folder, "-L", "^slow$", "--show-only=json-v1"]))
    costs = {}
    for test in listing["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        costs[test["name"]] = -float(properties.get("COST", 0))
    return dict(sorted(costs.items(), key=lambda item: item[1]))


def choose(costs, seconds):
    chosen, total = [], 0
    for name, cost in costs.items():
        total += cost * MARGIN
        if total > seconds:
            break
        chosen.append(name)
    return chosen


def forget_failures(folder):
    """CTest would start the tests that failed last time first, whatever they cost; it lists them after a `---`."""
    path = os.path.join(folder, "Testing", "Temporary", "CTestCostData.txt")
    if os.path.exists(path):
        with open(path) as file:
            costs = file.read().split("---\n")[0]
        with open(path, "w") as file:
            file.write(costs + "---\n")


def run_ctest(folder, names, seconds):
    """(exit code, {name: CTest's verdict}); prints CTest's output as it comes."""
    forget_failures(folder)
    expression = "^(" + "|".join(re.sub(r"([.+*?()\[\]|^$\\])", r"\\\1", name) for name in names) + ")$"
    stop = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    report = os.path.join(os.path.abspath(folder), "Testing", "slow.xml")
    process = subprocess.Popen(["ctest", "--test-dir", folder, "-L", "^slow$", "-R", expression, "-j", "2", "--output-on-failure",
                                "--output-junit", report, "--stop-time", stop], stdout=subprocess.PIPE, text=True, errors="replace")
    verdicts = {}
    for line in process.stdout:
        print(line, end="", flush=True)
        if match := re.match(r"\s*\d+/\d+ Test\s+#\d+: (\S+) \.*\s*(\**\w+)", line):
            verdicts[match.group(1)] = match.group(2)
    return process.wait(), verdicts


def main():
    folder, seconds = sys.argv[1], int(sys.argv[2])
    begin = time.monotonic()
    costs = slow_tests(folder)
    chosen = choose(costs, seconds)
    late = [name for name in costs if name not in chosen]
    if late:
        print(f"not reached, {seconds} s are left:", *late, sep="\n  ")
    if not chosen:
        return 0
    code, verdicts = run_ctest(folder, chosen, seconds)
    if time.monotonic() - begin < seconds - 2:
        return code
    cut = [name for name in chosen if verdicts.get(name) in (None, "***Timeout")]
    print("the deadline has passed; not finished:", *cut, sep="\n  ")
    return 0 if all(verdicts.get(name) == "Passed" for name in chosen if name not in cut) else code


if __name__ == "__main__":
    sys.exit(main())
