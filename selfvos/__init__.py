"""Segment videos without labels, from Python.

    from selfvos import Predictor
    predictor = Predictor.from_pretrained("embedded")
    result = predictor.segment("clip.mp4")
    print(result.masks.shape, result.proposals)

`pip install -e .` in a clone makes this import work everywhere. The code lies in the clone's folders `model`, `data`
and `utils`, which are imported under these names, so a program cannot use its own modules of these names too.
Imported before torch, this package lets idle threads of torch sleep instead of spin (`utils.threads`).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("model", "data", "utils")

__all__ = ["Predictor", "Proposal", "Result", "UserError"]


def _refuse_other_modules() -> None:
    """Refuse to start beside modules that have the names of our folders, or without these folders."""
    for name in FOLDERS:
        if not (ROOT / name / "__init__.py").is_file():
            raise ImportError(f"selfvos: {ROOT / name} is missing; install with `pip install -e .` in a whole clone")
        other = sys.modules.get(name)
        if other is None:
            continue
        where = getattr(other, "__file__", None) or next(iter(getattr(other, "__path__", [])), "an unknown place")
        if Path(where).resolve().parent != ROOT / name:
            raise ImportError(f"selfvos: another module '{name}' is imported already, from {where}, in the place of "
                              f"{ROOT / name}; rename it, or use selfvos in a process of its own")  # fmt: skip


@contextmanager
def _find_own_modules_first() -> Iterator[None]:
    """Put the clone first among the places of modules; the path is as before once our modules are imported."""
    sys.path.insert(0, str(ROOT))
    try:
        yield
    finally:
        sys.path.remove(str(ROOT))


_refuse_other_modules()
with _find_own_modules_first():
    from selfvos.predictor import Predictor
    from selfvos.result import Proposal, Result
    from utils.errors import UserError
