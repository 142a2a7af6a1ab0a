"""Writes unicode_table.inc: the major general category of every code point, as ranges.

Usage: python3 make_unicode_table.py > unicode_table.inc
Needs the `unicodedata2` package in version 16.0.0: Unicode 16.0 is what the regular expressions of Hugging Face's
tokenizers 0.2x know, so \\p{L} and \\p{N} split the same places.
"""

import unicodedata2

CLASSES = "CLMNPZS"  # the order of CharClass in unicode_classes.h


def main():
    assert unicodedata2.unidata_version == "16.0.0", unicodedata2.unidata_version
    entries, previous = [], None
    for code in range(0x110000):
        kind = CLASSES.index(unicodedata2.category(chr(code))[0])
        if kind != previous:
            entries.append(f"0x{code << 3 | kind:x}")
            previous = kind
    print("// Made by make_unicode_table.py from Unicode 16.0.0: (first code point << 3 | CharClass), ascending.")
    print("// clang-format off")
    for at in range(0, len(entries), 11):
        print(", ".join(entries[at:at + 11]) + ",")
    print("// clang-format on")


main()
