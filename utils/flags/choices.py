"""The words that flags take, in one place that imports no library, since every command line needs them.

What a word stands for is defined by `data.registry`, `model.engine.windows`, `model.objects` and
`utils.scoring.protocols`.
"""

import argparse
import difflib
import re

# ------------------------------------------------------------------ method

PLAIN = "plain"
CLUSTERINGS = ("exact", "fast", PLAIN)
MAX_KEY_FRAMES = 20  # by default
OBJECTS, CLUSTERS = "objects", "clusters"
# Steps of `find_objects`, each of which a word of --proposals turns on. `OBJECTS` is all of them, `CLUSTERS` none.
STEPS = ("reassign", "merge", "split")
PROPOSALS = (OBJECTS, *STEPS, CLUSTERS)
UPSAMPLINGS = ("guided", "nearest")

# ------------------------------------------------------------------ scoring

PROTOCOLS = ("davis", "paper", "foreground", "oracle", "slots", "tracks")

# ------------------------------------------------------------------ data sets

# The user's own video: a video file, a folder of frames, or a folder of such files or folders; no annotations.
OWN_VIDEO = "video"
# The user's own folders of frames and folders of label PNGs.
PAIRS = "pairs"

DATASET_NAMES = (
    "davis17u", "davis17", "davis16", "davis17-motion", "fbms59", "segtrackv2", "ytvos18", "ytvos19", "ytvis19",
    "ytvis21", "movi-c", "movi-e", "sprites", PAIRS, OWN_VIDEO,
)  # fmt: skip

# Other names, among them those of the released implementation: in lower case, letters and digits only.
ALIASES = {
    "davis": "davis17u",
    "davis2017": "davis17u",
    "davis2017u": "davis17u",
    "davis17unsupervised": "davis17u",
    "davis2017unsupervised": "davis17u",
    "davis2019": "davis17u",
    "davis17semisupervised": "davis17",
    "davis2017semisupervised": "davis17",
    "davis2016": "davis16",
    "davis2017motion": "davis17-motion",
    "fbms": "fbms59",
    "stv2": "segtrackv2",
    "segtrack": "segtrackv2",
    "segtrack2": "segtrackv2",
    "ytvos": "ytvos18",
    "ytvos2018": "ytvos18",
    "ytvos2019": "ytvos19",
    "youtubevos": "ytvos18",
    "youtubevos2018": "ytvos18",
    "youtubevos2019": "ytvos19",
    "ytvis": "ytvis19",
    "ytvis2019": "ytvis19",
    "ytvis2021": "ytvis21",
    "youtubevis": "ytvis19",
    "youtubevis2019": "ytvis19",
    "youtubevis2021": "ytvis21",
    "movi": "movi-c",
    "own": OWN_VIDEO,
    "videos": OWN_VIDEO,
}


def parse_dataset_name(text: str) -> str:
    """Return one of `DATASET_NAMES` for a value of `--dataset`, in any spelling, or one of `ALIASES`.

    Raises:
        argparse.ArgumentTypeError: there is no such data set; the message suggests the most similar name.
    """
    known = ALIASES | {_normalise(name): name for name in DATASET_NAMES}
    if (word := _normalise(text)) in known:
        return known[word]
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"choose from {', '.join(DATASET_NAMES)}"
    raise argparse.ArgumentTypeError(f"there is no data set {text!r}; {hint}")


def _normalise(text: str) -> str:
    """Return a name in lower case with its letters and digits only."""
    return re.sub(r"[\W_]+", "", text.lower())
