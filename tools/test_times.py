"""The slowest tests of a run: test_times.py REPORT..., of the files that CTest writes with --output-junit. One that is not there
is passed over."""
import os
import sys
import xml.etree.ElementTree

SHOWN = 20


def main():
    times = []
    for report in filter(os.path.exists, sys.argv[1:]):
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            times.append((float(case.get("time", 0)), case.get("name")))
    print(f"{len(times)} tests took {sum(seconds for seconds, _ in times):.0f} s, side by side or not; the slowest:")
    for seconds, name in sorted(times, reverse=True)[:SHOWN]:
        print(f"{seconds:8.1f} s  {name}")


if __name__ == "__main__":
    main()
