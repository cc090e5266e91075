"""Read JSON files that may have been edited, cut short or mixed up."""

import json
from pathlib import Path
from typing import Any

from utils.errors import UserError


def read_object(path: Path, *, mend: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        mend: what the user can do where the file is damaged, such as "download it again"; ends the message.

    Raises:
        UserError: not JSON, nested too deeply to read, or a list or a single value.
    """
    try:
        content = json.loads(path.read_bytes())  # of bytes: a byte order mark is understood
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__} and no JSON object; {mend}")
    return content
