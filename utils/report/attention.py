"""Keep what the page of a video needs to explain its masks: queries, keys and centres, in scripts that it loads.

<results>/explore/<video>/about.json         version, digest, frames
<results>/explore/<video>/clusters.js        grid, heads, tau, centres
<results>/explore/<video>/key_<frame>.js     keys of a key frame
<results>/explore/<video>/query_<frame>.js   queries, clusters and log sums of a frame that the report shows

Queries and keys are int16 with one scale a token. On 700 tokens of DINOv2 and four key frames, training-free at
temperature 3, entries of rows are then off by less than 1e-4 and distances by less than 1e-3 nats. With float16, which
takes as much, it is 1.3e-3 and 9e-3, with int8 1.6e-2 and 0.15.
"""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.explanation import Explanation
from utils.files import link_or_copy, read_object, replace_folder
from utils.progress import log_line

EXPLORE = "explore"  # folder of all videos in a folder of results
ATTENTION = "attention"  # folder of the files of one video in a report
VERSION = 2  # raise it with every change of the files; those of older versions are then made again
ABOUT, CLUSTERS = "about.json", "clusters.js"
SMALLEST = float(np.finfo(np.float32).tiny)  # probabilities are clipped here, as in `model.clustering`
LOG_STEPS = 65535  # -log p of a centre, from 0 to -log SMALLEST, in uint16: steps of 0.0013 nats
USUAL_CLUSTERS = 21  # where the number is not known before
MEND = "remove the folder it lies in and run eval.py --explore again"


# ------------------------------------------------------------------ sizes


def estimate_bytes(
    *, frames: int, key_frames: int, tokens: int, width: int, heads: int, clusters: int | None
) -> int:  # fmt: skip
    """Estimate the bytes that are kept of a video.

    Args:
        frames: number of frames that the report shows.
        tokens: of a frame. width, heads: of a token.
        clusters: their largest number; None if it is not known.
    """
    token = 2 * width + 4  # int16, and a scale
    centres = 2 * (clusters or USUAL_CLUSTERS) * key_frames * tokens
    return 4 * (frames * tokens * (token + 4 * heads + 2) + key_frames * tokens * token + centres) // 3  # base64


def announce_space(sizes: Mapping[str, int], folder: Path) -> None:
    """Check that the disk has room for what is kept of videos (name -> bytes), and print how much that is.

    The report has the same files again, which take no room where the file system has hard links.

    Raises:
        UserError: all videos take more than the disk has left.
    """
    if not sizes:
        return
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    copies = 1 if _has_links(existing) else 2
    total = copies * sum(sizes.values())
    if total > (free := shutil.disk_usage(existing).free):
        raise UserError(f"--explore: keeps {_format_bytes(total)}, and the disk of --save_path {folder} has "
                        f"{_format_bytes(free)} left; free space, or leave out --explore")  # fmt: skip
    log_line(f"note: --explore keeps about {_format_bytes(total)} of disk in {folder}"
             f"{', with copies for the report' * (copies > 1)}")  # fmt: skip


def _has_links(folder: Path) -> bool:
    """Tell whether a file in `folder` can get a second name. Nothing is left behind."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place, "file")
        file.touch()
        try:
            os.link(file, Path(place, "link"))
        except OSError:
            return False
        return True


def _format_bytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


# ------------------------------------------------------------------ writing


def write_explanation(folder: Path, explanation: Explanation, positions: Sequence[int]) -> None:
    """Write the files of a video to `folder`, all or none, with one frame in memory at a time.

    Args:
        positions: numbers of the frames that the report shows.
    """
    height, width = explanation.grid
    with replace_folder(folder) as partial:
        digest = hashlib.blake2b(digest_size=16)

        def write(name: str, call: str, *values: Any) -> None:
            text = f"{call}({', '.join(json.dumps(value, separators=(',', ':')) for value in values)});\n"
            (partial / name).write_text(text, encoding="ascii")
            digest.update(text.encode())

        write(CLUSTERS, "addClusters", {
            "grid": [height, width], "heads": explanation.num_heads, "width": explanation.keys.shape[-1],
            "keyFrames": list(explanation.key_frames), "tau": explanation.tau, "clustering": explanation.clustering,
            "clusters": len(explanation.centres), "centres": encode_centres(explanation.centres),
        })  # fmt: skip
        for position, keys in zip(explanation.key_frames, explanation.keys, strict=True):
            write(f"key_{position:05d}.js", "addKeys", position, *encode_tokens(keys))
        for position in positions:
            labels = _to_base64(explanation.labels[position], "<u2")
            queries, sums = explanation.read_queries(position)
            write(f"query_{position:05d}.js", "addQueries", position, *encode_tokens(queries), labels,
                  _to_base64(sums, "<f4"))  # fmt: skip
        about = {"version": VERSION, "digest": digest.hexdigest(), "key_frames": list(explanation.key_frames),
                 "frames": list(positions)}  # fmt: skip
        (partial / ABOUT).write_text(json.dumps(about) + "\n")


def encode_tokens(tokens: np.ndarray) -> tuple[str, str]:
    """Encode tokens (N, C) as int16 and a float32 scale for each, both in base64."""
    scale = np.maximum(np.abs(tokens).max(axis=1, keepdims=True), SMALLEST) / np.iinfo(np.int16).max
    return _to_base64(np.rint(tokens / scale), "<i2"), _to_base64(scale, "<f4")


def encode_centres(centres: np.ndarray) -> str:
    """Encode the logarithms of centres (K, S) as uint16 in base64, see `LOG_STEPS`."""
    logs = np.log(np.clip(centres, SMALLEST, 1)) / np.log(SMALLEST)
    return _to_base64(np.rint(logs * LOG_STEPS), "<u2")


def _to_base64(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind)).decode()


# ------------------------------------------------------------------ kept files


def is_kept(folder: Path) -> bool:
    """Tell whether the files of a video are there, all of them and of this version."""
    if not (folder / ABOUT).is_file():
        return False
    about = read_object(folder / ABOUT, mend=MEND)
    return about.get("version") == VERSION and all((folder / name).is_file() for name in _list_files(folder, about))


def link_explanation(folder: Path, kept: Path) -> list[int]:
    """Put the files of a video, kept in `kept`, into the existing folder of a report; return the key frames.

    They become second names of the same files where the file system can do that, and take no room then.

    Raises:
        UserError: files are missing, damaged, or of another version.
    """
    if not is_kept(kept):
        raise UserError(f"{kept}: not all files of --explore are there, or they are of another version; "
                        "remove this folder, or run eval.py --explore again")  # fmt: skip
    about = read_object(kept / ABOUT, mend=MEND)
    (folder / ATTENTION).mkdir()
    for name in _list_files(kept, about):
        link_or_copy(kept / name, folder / ATTENTION / name)
    return about["key_frames"]


def _list_files(folder: Path, about: dict[str, Any]) -> list[str]:
    try:
        keys = [f"key_{position:05d}.js" for position in about["key_frames"]]
        return [CLUSTERS, *keys, *(f"query_{position:05d}.js" for position in about["frames"])]
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{folder / ABOUT}: not of this program ({error!r}); {MEND}") from error
