"""Lay out the data sets that the programs know by name: splits fixed by the literature, folders below the root."""

from dataclasses import replace
from functools import partial

from data.annotations.fbms import find_fbms_annotations, find_undefined_fbms_images
from data.annotations.images import find_frame_labels, find_merged_masks
from data.layouts.base import AnyOf
from data.layouts.folders import FolderLayout
from data.layouts.instances import InstanceLayout
from data.layouts.records import RecordLayout
from data.layouts.splits import (
    FrameList,
    Listed,
    MetaKeys,
    SplitFile,
    Subfolders,
    read_annotated_frames,
    read_bmf_frames,
    read_frame_pairs,
)

# ------------------------------------------------------------------ splits fixed by the literature

FBMS_TEST = (
    "camel01", "cars1", "cars10", "cars4", "cars5", "cats01", "cats03", "cats06", "dogs01", "dogs02", "farm01",
    "giraffes01", "goats01", "horses02", "horses04", "horses05", "lion01", "marple12", "marple2", "marple4", "marple6",
    "marple7", "marple9", "people03", "people1", "people2", "rabbits02", "rabbits03", "rabbits04", "tennis",
)  # fmt: skip
FBMS_TRAIN = (
    "bear01", "bear02", "cars2", "cars3", "cars6", "cars7", "cars8", "cars9", "cats02", "cats04", "cats05", "cats07",
    "ducks01", "horses01", "horses03", "horses06", "lion02", "marple1", "marple10", "marple11", "marple13", "marple3",
    "marple5", "marple8", "meerkats01", "people04", "people05", "rabbits01", "rabbits05",
)  # fmt: skip
SEGTRACK = (
    "bird_of_paradise", "birdfall", "bmx", "cheetah", "drift", "frog", "girl", "hummingbird", "monkey", "monkeydog",
    "parachute", "penguin", "soldier", "worm",
)  # fmt: skip

# ------------------------------------------------------------------ layouts

DAVIS17_LAYOUT = FolderLayout(
    frames="JPEGImages/480p/{name}",
    annotations="Annotations/480p/{name}",
    source=SplitFile("ImageSets/2017/{split}.txt"),
    unannotated=("test-dev", "test-challenge"),
)
DAVIS17_UNSUPERVISED_LAYOUT = replace(
    DAVIS17_LAYOUT,
    annotations="Annotations_unsupervised/480p/{name}",
    source=SplitFile(
        "ImageSets/2017/{split}.txt",
        special={"test-dev": "ImageSets/2019/test-dev.txt", "test-challenge": "ImageSets/2019/test-challenge.txt"},
    ),
)
DAVIS16_IN_17_LAYOUT = replace(
    DAVIS17_LAYOUT, find_annotations=find_merged_masks, merged=True, unannotated=(),
    source=SplitFile("ImageSets/2016/{split}.txt"), marker="ImageSets/2016",
)  # fmt: skip
DAVIS16_LAYOUT = replace(
    DAVIS16_IN_17_LAYOUT, source=SplitFile("ImageSets/480p/{split}.txt", frames=True), marker="ImageSets/480p",
    frame_list=FrameList("ImageSets/480p/{split}.txt", read_frame_pairs),
)  # fmt: skip
FBMS_SPLITS = Listed({"test": FBMS_TEST, "train": FBMS_TRAIN})
FBMS_LAYOUT = FolderLayout(
    frames="{split}/{name}",
    annotations="{split}/{name}/GroundTruth",
    source=FBMS_SPLITS,
    find_annotations=find_fbms_annotations,
    merged=True,
    sparse=True,
    folders={"test": "Testset", "train": "Trainingset"},
    marker="T*set",
    marker_in_words="a folder Testset or Trainingset",
    frame_list=FrameList("{split}/{name}/{name}.bmf", read_bmf_frames),
    find_unread=find_undefined_fbms_images,
)
SEGTRACK_LAYOUT = FolderLayout(
    frames="JPEGImages/{name}",
    annotations="GroundTruth/{name}",
    source=Listed({"all": SEGTRACK}),
    find_annotations=find_merged_masks,
    merged=True,
    marker="GroundTruth",
)
YTVOS_LAYOUT = FolderLayout(
    frames="{split}/JPEGImages/{name}",
    annotations="{split}/Annotations/{name}",
    source=MetaKeys("{split}/meta.json"),
    sparse=True,
    unannotated=("valid", "test"),  # only the first frame of each object is public
    frame_list=FrameList("{split}/meta.json", read_annotated_frames, annotated=True),
    folders_per_split=True,
)
YTVIS_LAYOUT = InstanceLayout(
    frames=("{split}/JPEGImages", "JPEGImages"),
    json=(
        "{split}/instances.json", "{split}/{split}.json", "{split}.json", "annotations/instances_{split}.json",
        "annotations/{split}.json", "annotations/instances.json",
    ),
)  # fmt: skip
PAIRS_LAYOUT = FolderLayout(
    frames="frames/{name}",
    annotations="annotations/{name}",
    source=Subfolders("frames"),
    sparse=True,
    marker="frames",
    folders_per_split=True,
)


def make_movi_layout(variant: str) -> AnyOf:
    folders = (f"movi_{variant}/256x256/1.0.0", f"movi_{variant}/128x128/1.0.0", "256x256/1.0.0", "1.0.0", ".")
    exported = FolderLayout(
        frames="{split}/{name}/frames",
        annotations="{split}/{name}/masks",
        source=Subfolders("{split}"),
        marker="*/*/frames",
        marker_in_words="folders <split>/<video>/frames",
    )
    masks_among_frames = replace(
        exported, frames="{split}/{name}", annotations="{split}/{name}", mask_ending="_mask",
        find_annotations=partial(find_frame_labels, ending="_mask"), marker="*/*/*_mask.[pP][nN][gG]",
        marker_in_words="masks <split>/<video>/<frame>_mask.png",
    )  # fmt: skip
    return AnyOf((RecordLayout(f"movi_{variant}", folders), exported, masks_among_frames))


def _change_size(layout: FolderLayout, size: str) -> FolderLayout:
    """Return a layout of DAVIS with frames and annotations of another size than 480p."""
    frames, annotations = (path.replace("480p", size) for path in (layout.frames, layout.annotations))
    return replace(layout, frames=frames, annotations=annotations)


# Layouts of other sizes of a data set, by which an error tells the user that the wrong archive was unpacked.
OTHER_SIZES = {
    name: tuple(_change_size(layout, size) for size in ("Full-Resolution", "1080p") for layout in layouts)
    for name, layouts in {
        "davis17u": (DAVIS17_UNSUPERVISED_LAYOUT,), "davis17": (DAVIS17_LAYOUT,),
        "davis16": (DAVIS16_LAYOUT, DAVIS16_IN_17_LAYOUT),
    }.items()
}  # fmt: skip
