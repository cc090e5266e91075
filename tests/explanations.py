"""Read what eval.py --explore keeps: the scripts of a video as numbers, and rows of attention computed from them."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import torch

from model import clustering as plain
from utils.report.attention import CLUSTERS, LOG_STEPS, SMALLEST


def read_arguments(file: Path) -> list:
    """The arguments with which a script calls its function."""
    return json.loads("[" + re.fullmatch(r"\w+\((.*)\);\n", file.read_text(), re.S)[1] + "]")


def decode(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def decode_tokens(values: str, scales: str) -> torch.Tensor:
    scale = decode(scales, "<f4").astype(np.float64)
    return torch.from_numpy(decode(values, "<i2").reshape(len(scale), -1) * scale[:, None])


def read_rows(folder: Path, position: int) -> torch.Tensor:
    """Attention rows (N, S) of a frame from the kept files, in float64."""
    (about,) = read_arguments(folder / CLUSTERS)
    keys = [decode_tokens(*read_arguments(folder / f"key_{frame:05d}.js")[1:]) for frame in about["keyFrames"]]
    queries = decode_tokens(*read_arguments(folder / f"query_{position:05d}.js")[1:3])
    heads = (about["heads"], about["width"] // about["heads"])
    return plain.attention(*(part.unflatten(1, heads).transpose(0, 1) for part in (queries, torch.cat(keys))))


def read_centres(folder: Path) -> torch.Tensor:
    (about,) = read_arguments(folder / CLUSTERS)
    steps = decode(about["centres"], "<u2").reshape(about["clusters"], -1).astype(np.float64)
    return torch.from_numpy(np.exp(steps / LOG_STEPS * np.log(SMALLEST)))
