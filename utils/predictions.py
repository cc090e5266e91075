"""Say which kinds of predictions a folder of results holds, and where the label PNGs of each lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.names import check_name

MEND = "run eval.py again"  # what the user can do about damaged results
FOREGROUND = "foreground"  # the kind that is one mask; the others are proposals


def read_kinds(settings: dict[str, Any], source: Path, *, mend: str) -> list[str]:
    """Read the kinds of predictions, such as `davis`, from the settings of results; empty for another program's.

    Args:
        settings: content of settings.json.
        source, mend: the file, and what to do if it is damaged, for error messages.

    Raises:
        UserError: they are no list of names.
    """
    kinds = settings.get("predictions", [])
    if not isinstance(kinds, list):
        raise UserError(f"{source}: 'predictions' is no list of names; {mend}")
    return [check_name(kind, source) for kind in kinds]


def locate_predictions(results: Path, kinds: Sequence[str], kind: str | None) -> Path:
    """Return the folder that has one folder of PNGs per video for a kind of predictions.

    It is the folder of results itself where there is one kind only, else a subfolder.
    """
    return results / kind if kind is not None and len(kinds) > 1 else results
