"""Add the flags of the method to a command line, and list the settings that predictions depend on."""

from argparse import BooleanOptionalAction
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from model.engine.windows import ENGINES
from model.network import SpatioTemporalNetwork
from model.objects.proposals import PROPOSALS
from model.objects.upsampling import UPSAMPLING
from model.segmenter import CLUSTERINGS, MAX_KEY_FRAMES
from utils.config import cluster_count, positive_float, positive_float_or_auto, positive_int
from utils.run.checkpoints import hash_file

# Flags that predictions depend on; a changed one makes other results.
KEYS = ("dataset", "split", "resolution", "image_stats", "num_t", "num_heads", "ratio", "max_key_frames", "tau",
        "clustering", "amp", "memory_gb", "proposals", "upsampling", "clusters", "max_objects",
        "motion", "fit_resolution")  # fmt: skip


def add_method_arguments(add: Callable[..., Any]) -> None:
    """Add the flags of attention, clustering, objects and upsampling to a parser or a group."""
    count = {"type": positive_int, "metavar": "N"}
    # fmt: off
    add("--training_free", action=BooleanOptionalAction, default=False, help="Use the block without training.")
    add("--ratio", **count, default=10, help="Take every N-th frame as a key frame (R).")
    add("--max_key_frames", **count, default=MAX_KEY_FRAMES, help="Take at most N key frames, spread evenly.")
    add("--tau", type=positive_float_or_auto, default=1.0, metavar="X",
           help="Cluster with this distance threshold, in nats; auto: the one stored in the checkpoint.")
    add("--clusters", type=cluster_count, nargs="+", metavar="N",
           help="Choose another tau for videos with fewer or more clusters than these two numbers; any: keep --tau.")
    add("--clustering", choices=CLUSTERINGS, default="exact",
           help="Cluster by the paper's formulas (exact, or slowly as plain), or fast with other masks.")
    add("--proposals", nargs="+", choices=PROPOSALS, default=["objects"],
           help="Make objects of the clusters, by all steps or some, or take the clusters as the paper does.")
    add("--motion", choices=("flow", "none"), default="flow",
           help="Rank objects by their motion against the camera too, as the optical flow between frames shows it.")
    add("--max_objects", **count, help="Keep the N best proposals of each video.")
    add("--upsampling", choices=tuple(UPSAMPLING), default="guided",
           help="Take masks to pixels guided by the frame's colours, or as blocks like the paper.")
    add("--memory_gb", type=positive_float, default=8.0, metavar="X", help="Limit memory but the network's to X GB.")
    add("--frame_batch", **count, default=4, help="Put N frames into a forward pass of the backbone.")
    add("--feature_cache", type=Path, metavar="DIR", help="Keep the backbone's features here for later runs.")
    # fmt: on


def describe_settings(values: Mapping[str, Any], network: SpatioTemporalNetwork, kinds: list[str]) -> dict[str, Any]:
    """Collect everything that predictions depend on but the videos, which `ResultsFolder.has` compares.

    Args:
        values: of all flags.
        kinds: kinds of predictions.
    """
    fast = {key: getattr(ENGINES["fast"], key) for key in ("key_pool", "shrinkage", "row_stride")}
    path = values["resume_path"]
    trained = {"training_free": False, "sha256": hash_file(path)} if path else {}
    return {
        "predictions": kinds, **({"fast": fast} if values["clustering"] == "fast" else {}),
        **{key: values[key] for key in KEYS},
        "backbone": {"name": network.backbone.name, "sha256": network.backbone.weights_hash()},
        "block": trained or {"training_free": True, "temperature": values["temperature"]},
    }  # fmt: skip
