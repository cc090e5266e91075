"""Exit 0 if this interpreter's packages satisfy a requirements file, else name what does not and exit 1.

    python utils/requirements.py requirements.txt

Runs before anything is installed, so it needs nothing but Python itself. Understands what the files here hold: lines
of `name>=version`, comments, and `-r other.txt`.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def unsatisfied(path: Path) -> list[str]:
    """Lines of a requirements file that the installed packages do not satisfy."""
    problems = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r"):
            problems += unsatisfied(path.parent / line[2:].strip())
        elif line:
            name, _, wanted = line.partition(">=")
            try:
                if _numbers(version(name)) < _numbers(wanted):
                    problems.append(f"{line} (installed: {version(name)})")
            except PackageNotFoundError:
                problems.append(f"{line} (not installed)")
    return problems


def _numbers(text: str) -> tuple[int, ...]:
    """2.6.0+cpu -> (2, 6, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:3])


if __name__ == "__main__":
    missing = unsatisfied(Path(sys.argv[1]))
    if missing:
        print("not satisfied: " + ", ".join(missing), file=sys.stderr)
        sys.exit(1)
