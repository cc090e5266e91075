"""Find from time stamps how many frames a video should have, which are missing, and its frame rate."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate

import numpy as np

from data.decoding.base import LIMITS, check_rate
from utils.video import DEFAULT_RATE


@dataclass
class ScanResult:
    """Collect what one pass of a reader over a file finds.

    frame_times, packet_times: presentation times of decoded frames and of packets, in units of the stream.
    sizes: (height, width) -> the first frame of that size.
    faults: number of damaged packets and frames.
    skipped: number of frames in the index of the file that are not to be shown.
    end: latest end of any packet of any stream, in seconds.
    turned: whether the last frame is to be shown on its side.
    """

    frame_times: list[int | None] = field(default_factory=list)
    packet_times: list[int | None] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    faults: int = 0
    skipped: int = 0
    end: float = 0.0
    turned: bool = False


def measure_rate(found: ScanResult, stated: Fraction | None, unit: Fraction | None, *, missing: int) -> Fraction:
    """Return the frame rate that the header states, or that of the time stamps if the two differ.

    Args:
        unit: seconds of one unit of the time stamps.
        missing: number of frames that would fill the gaps between the time stamps.
    """
    times = [time for time in found.frame_times if time is not None]
    if len(times) < 2 or not unit or times[-1] <= times[0]:
        return stated or DEFAULT_RATE
    measured = check_rate((len(times) - 1 + missing) / ((times[-1] - times[0]) * unit))
    if measured is None or (stated and (found.faults or abs(measured / stated - 1) <= LIMITS.rate_share)):
        return stated or DEFAULT_RATE
    return measured.limit_denominator(1001)


def count_frames(
    found: ScanResult, *, indexed: int, duration: float, rate: Fraction, gaps: dict[int, int]
) -> tuple[int, list[int]]:
    """Return how many frames the video should have, and the positions of the decoded ones.

    Args:
        indexed: number of frames in the index of the file, or 0 if it has none. The number is then estimated from
            the duration in the header and from the faults.
        duration: seconds stated in the header.
        gaps: see `find_gaps`; only counted as missing frames if other damage is certain.
    """
    decoded = len(found.frame_times)
    total = max(indexed - found.skipped, decoded)
    missing_seconds = duration - found.end
    if not indexed and missing_seconds > max(LIMITS.end_seconds, LIMITS.end_frames / rate):
        total = max(total, decoded + round(missing_seconds * rate))
    in_gaps = sum(gaps.values()) if found.faults or total > decoded else 0
    total += in_gaps
    if found.faults:
        total = max(total, len(found.packet_times))
    if in_gaps and decoded + in_gaps >= len(found.packet_times):
        return total, list(accumulate((1 + gaps.get(index, 0) for index in range(decoded - 1)), initial=0))
    places = {time: place for place, time in enumerate(sorted(t for t in found.packet_times if t is not None))}
    positions = [places.get(time, -1) for time in found.frame_times]
    if total == decoded or len(places) < len(found.packet_times) or sorted({*positions} - {-1}) != positions:
        positions = list(range(decoded))  # none are missing, or the time stamps do not tell which
    return total, positions


def find_gaps(times: Sequence[int | None]) -> dict[int, int]:
    """Find where frames may be missing from a video of constant frame rate.

    All intervals but the gaps must be equal, up to rounding of the times, and the gaps whole multiples of them. Nothing
    is found in a video of varying frame rate, as phones and screen recorders write them.

    Args:
        times: presentation times of the decoded frames, in units of the stream.

    Returns:
        Number of the frame before each gap -> number of frames that would fill it.
    """
    if None in times or len(times) < 2:
        return {}
    intervals = np.diff(np.array(times, np.int64))
    usual = np.median(intervals)
    wide = intervals >= LIMITS.gap * usual
    regular = intervals[~wide]
    rounding = 1 if usual >= LIMITS.rounded_units else 0  # in units, between the longest and the shortest interval
    is_constant = len(regular) and regular.min() > 0 and np.ptp(regular) <= rounding
    if not is_constant or len(regular) < LIMITS.intervals_per_gap * wide.sum():
        return {}
    lengths = intervals[wide] / regular.mean()
    steps = lengths.round()
    # The mean of the intervals is known to a fraction of a unit only, and that counts for every step.
    if (np.abs(lengths - steps) * regular.mean() > rounding * (1 + steps / len(regular))).any():
        return {}
    return dict(zip(np.flatnonzero(wide).tolist(), (steps.astype(int) - 1).tolist(), strict=True))
