"""List the settings that predictions depend on."""

from collections.abc import Mapping
from typing import Any

from model.engine.windows import ENGINES
from model.weights import BackboneIdentity
from utils.run.checkpoints import hash_file

VERSION = 3  # raise it with every change of the code that changes masks, so that older results are not continued
# Flags that predictions depend on; a changed one makes other results.
KEYS = ("dataset", "split", "resolution", "image_stats", "num_t", "num_heads", "ratio", "max_key_frames", "tau",
        "clustering", "amp", "memory_gb", "proposals", "upsampling", "clusters", "max_objects",
        "motion", "fit_resolution")  # fmt: skip


def describe_settings(values: Mapping[str, Any], backbone: BackboneIdentity, kinds: list[str]) -> dict[str, Any]:
    """Collect everything that predictions depend on but the videos, which `ResultsFolder.has` compares.

    Args:
        values: of all flags.
        kinds: kinds of predictions.
    """
    fast = {key: getattr(ENGINES["fast"], key) for key in ("key_pool", "shrinkage", "row_stride")}
    path = values["resume_path"]
    trained = {"training_free": False, "sha256": hash_file(path)} if path else {}
    return {
        "version": VERSION, "predictions": kinds, **({"fast": fast} if values["clustering"] == "fast" else {}),
        **{key: values[key] for key in KEYS},
        "backbone": {"name": backbone.name, "sha256": backbone.sha256},
        "block": trained or {"training_free": True, "temperature": values["temperature"]},
    }  # fmt: skip
