"""Check the clips that the command line names without a flag, and name their results."""

from argparse import Namespace
from collections.abc import Collection, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.flags.choices import OWN_VIDEO
from utils.flags.inputs import is_missing, suggest_similar
from utils.names import VIDEO_SUFFIXES

SEVERAL = "videos"  # name of the folder of results of several clips


def check_clip_arguments(args: Namespace, explicit: Collection[str]) -> None:
    """Refuse what the command line of eval.py says of clips, as far as no library is needed for that.

    Args:
        explicit: the flags of the command line, by `dest`.

    Raises:
        UserError: as of `check_clips` and `refuse_clips_as_sequences`.
    """
    refuse_clips_as_sequences(args.sequences or ())
    if args.clips:
        check_clips(args.clips, explicit=explicit, dataset=args.dataset)


def check_clips(clips: Sequence[str], *, explicit: Collection[str], dataset: str) -> None:
    """Refuse flags that name other data beside clips, and clips that do not exist.

    Args:
        clips: video files and folders that the command line names without a flag.
        explicit: the flags of the command line, by `dest`.
        dataset: value of `--dataset`.

    Raises:
        UserError: it begins with the clip.
    """
    others = [f"--{name}" for name in ("davis_path", "basepath", "annotations", "predictions") if name in explicit]
    if "dataset" in explicit and dataset != OWN_VIDEO:
        others.append(f"--dataset {dataset}")
    if others:
        raise UserError(f"{clips[0]}: a clip of your own beside {others[0]}; leave one of them out")
    for clip in clips:
        if is_missing(Path(clip)):
            raise UserError(f"{clip}: no such file or folder{suggest_similar(Path(clip))}")


def refuse_clips_as_sequences(sequences: Sequence[str]) -> None:
    """Refuse names of videos that are paths of clips, which came after `--sequences`, which takes all that follows.

    A name is a clip if it has a `/` or the ending of a video, whether it exists or not, or is a file here.

    Raises:
        UserError: it names the first.
    """
    for name in sequences:
        if "/" in name or Path(name).suffix.lower() in VIDEO_SUFFIXES or Path(name).is_file():
            raise UserError(f"--sequences {' '.join(sequences)}: {name} is a path; give clips before the flags")


def choose_results_name(clips: Sequence[str]) -> str:
    """Choose the name of the folder of results: that of the clip, or `videos` for several."""
    first = Path(clips[0])
    name = first.stem if first.is_file() else first.resolve().name
    return name if len(clips) == 1 and name else SEVERAL
