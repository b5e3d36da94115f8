"""Tables that a script computes, in documents that show them."""

import argparse
import sys
from pathlib import Path


def write_or_check(description: str, document: Path, begin: str, end: str, table: str) -> int:
    """Put `table` between two marks of a document; with --check, compare only, and return 1 if they differ."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare and write nothing; exit 1 if they differ")
    check = parser.parse_args().check
    text = document.read_text("utf-8")
    before, rest = text.split(begin)
    wanted = before + begin + table + end + rest.split(end)[1]
    if check and wanted != text:
        print(f"{document}: the table differs from the computed one; run make performance-tables", file=sys.stderr)
        return 1
    if not check:
        document.write_text(wanted, "utf-8")
    return 0
