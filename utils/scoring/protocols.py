"""The protocols by which label maps are scored, by name (docs/method.md, section 6)."""

from typing import NamedTuple

from utils.scoring.sequence import ForegroundScores, SequenceScores, SlotSequence, TrackSequence

MAX_PROPOSALS = 20


class ProtocolInfo(NamedTuple):
    """Description of one protocol.

    Attributes:
        predictions: the kind of eval.py's label maps that it scores.
        meaning: one line for tables.
        scores: class of its scores of a sequence.
        options: fields of `utils.scoring.evaluators.Options` that it depends on.
    """

    predictions: str
    meaning: str
    scores: type
    options: tuple[str, ...] = ("toolkit_exact",)


PROTOCOLS = {
    "davis": ProtocolInfo(
        "davis",
        f"one assignment per sequence, at most {MAX_PROPOSALS} proposals (official DAVIS-2017)",
        SequenceScores,
    ),
    "paper": ProtocolInfo(
        "paper",
        "a new assignment in every frame, any number of proposals (identity over time is not scored)",
        SequenceScores,
    ),
    "foreground": ProtocolInfo("foreground", "every id above 0 against all objects merged", ForegroundScores),
    "oracle": ProtocolInfo(
        "paper",
        "the union of proposals with the best IoU over the whole sequence, chosen WITH the ground truth",
        ForegroundScores,
    ),
    "slots": ProtocolInfo(
        "paper",
        "FG-ARI, ARI, mBO and mIoU of all proposals, background one of them (object-centric learning)",
        SlotSequence,
        ("first_frame_objects",),
    ),
    "tracks": ProtocolInfo(
        "paper",
        "class-agnostic AP and AR of proposals as tubes, the first ranked best (YouTube-VIS)",
        TrackSequence,
        (),
    ),
}
