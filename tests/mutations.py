"""Break the code as tests/mutations.md says, one line at a time, and see that the named test fails.

    python tests/mutations.py            every row
    python tests/mutations.py packing    the rows that mention a word

Works on a copy of the checkout. A row whose line is not found, or whose test passes all the same, is reported.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| `(?P<test>[^`]+)` \| `(?P<file>[^`]+)` \| `(?P<line>[^`]+)` \| `(?P<broken>[^`]*)` \|$", re.M)


def main() -> None:
    words = sys.argv[1:]
    rows = [match.groupdict() for match in ROW.finditer((ROOT / "tests" / "mutations.md").read_text(encoding="utf-8"))]
    rows = [row for row in rows if all(word in " ".join(row.values()) for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", ".*_cache", "__pycache__"))
        survived = [row for row in rows if not fails(copy, row)]
    print(f"{len(rows) - len(survived)} of {len(rows)} breaks were noticed")
    sys.exit(bool(survived) or not rows)


def fails(copy: Path, row: dict[str, str]) -> bool:
    """Whether the test passes on the whole code and fails on the broken one."""
    path = copy / row["file"]
    whole = path.read_text(encoding="utf-8")
    if whole.count(row["line"]) != 1:
        print(f"NOT FOUND ONCE  {row['file']}: {row['line']}")
        return False
    path.write_text(whole.replace(row["line"], row["broken"]), encoding="utf-8")
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "-p", "no:cacheprovider", row["test"]],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
    ).returncode
    path.write_text(whole, encoding="utf-8")
    print(f"{'noticed' if code == 1 else f'SURVIVED ({code})'}  {row['test']}", flush=True)
    return code == 1


if __name__ == "__main__":
    main()
