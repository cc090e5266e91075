"""Check that the installed packages satisfy a requirements file and can be imported; otherwise say why and exit 1.

    python utils/requirements.py requirements.txt

It runs before anything is installed, so it uses only Python itself. It understands lines of `name>=version`, comments,
and `-r other.txt`.

A package of a sufficient version may still fail to import, as scikit-learn 1.3 beside NumPy 2. Trying takes seconds, so
a success is recorded in the user's cache until any installed package changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Modules that are imported for the check, where their name differs from the package's.
MODULES = {
    "matplotlib": "matplotlib.figure",
    "opencv-python": "cv2",
    "pillow": "PIL.Image",
    "pycocotools": "pycocotools.mask",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "safetensors": "safetensors.torch",
    "scikit-learn": "sklearn",
    "scipy": "scipy.optimize",
    "tensorboard": "torch.utils.tensorboard",
}


def list_unsatisfied(path: Path) -> list[str]:
    """List the requirements of a file that the installed packages do not satisfy, with the reason."""
    lines = _lines(path)
    return [problem for line in lines if (problem := _too_old(line))] or list_unimportable(lines)


def list_unimportable(lines: list[str]) -> list[str]:
    """List the packages of lines `name>=version` that are installed but cannot be imported, with the mend."""
    marker = _marker(lines)
    if marker.exists():
        return []
    problems = []
    for name in (line.partition(">=")[0] for line in lines):
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        except Exception as error:  # of any kind: compiled against another NumPy, a library of the system missing, ...
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            problems.append(f"{name} {version(name)} (installed, but cannot be imported: {detail}; "
                            f"{sys.executable} -m pip install --upgrade {name})")  # fmt: skip
    if not problems:
        with contextlib.suppress(OSError):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return problems


def _lines(path: Path) -> list[str]:
    """Read the requirements of a file and of the files that it includes, without comments."""
    found = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r"):
            found += _lines(path.parent / line[2:].strip())
        elif line:
            found.append(line)
    return found


def _too_old(line: str) -> str | None:
    """Return `line` with the installed version if that is too old or missing, otherwise None."""
    name, _, wanted = line.partition(">=")
    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"{line} (not installed)"
    return f"{line} (installed: {installed})" if _numbers(installed) < _numbers(wanted) else None


def _marker(lines: list[str]) -> Path:
    """Return the file that records that these packages could be imported by this interpreter and environment."""
    installed = sorted(info.name for folder in sys.path for info in Path(folder).glob("*.*-info"))
    key = repr((sys.version, sys.prefix, installed, lines)).encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "betrayed-by-attention" / f"importable-{hashlib.sha256(key).hexdigest()[:32]}"


def _numbers(text: str) -> tuple[int, ...]:
    """Parse a version: 2.6.0+cpu -> (2, 6, 0)."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+")[0])[:4])


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules could hide others of the same name
    missing = list_unsatisfied(Path(sys.argv[1]))
    if missing:
        print("not satisfied: " + ", ".join(missing), file=sys.stderr)
        sys.exit(1)
