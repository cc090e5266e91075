"""Read the value of a flag from its text, for the `type` of a flag."""

import argparse
from collections.abc import Callable

from utils.flags.choices import ANY, AUTO


def _read(text: str, kind: Callable[[str], float], *, what: str) -> float:
    """Read a number; the error says in words what the flag takes, where argparse would name a function of ours."""
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid value '{text}', give {what}") from None


def positive_int(text: str) -> int:
    if (value := _read(text, int, what="a whole number")) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def non_negative_int(text: str) -> int:
    if (value := _read(text, int, what="a whole number")) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def dropout_rate(text: str) -> float:
    if not 0 <= (value := _read(text, float, what="a number")) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0 and below 1")
    return value


def non_negative_float(text: str) -> float:
    if not 0 <= (value := _read(text, float, what="a number")) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of at least 0")
    return value


def positive_float(text: str) -> float:
    if not 0 < (value := _read(text, float, what="a number")) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def positive_float_or_auto(text: str) -> float | str:
    return text if text == AUTO else positive_float(text)


def cluster_count(text: str) -> int | str:
    return text if text == ANY else positive_int(text)
