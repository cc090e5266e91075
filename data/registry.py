"""The datasets known by name: one entry each says how its download looks, by what it is scored, whose it is."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from data.annotations import VOID, fbms_annotations, fbms_unread, label_files, merged_masks
from data.clips import index_videos
from data.layouts.base import AnyOf, Layout
from data.layouts.folders import FolderLayout, OwnVideos
from data.layouts.instances import InstanceLayout
from data.layouts.records import RecordLayout
from data.layouts.splits import (
    FrameList,
    Listed,
    MetaKeys,
    SplitFile,
    Subfolders,
    frames_in_bmf,
    frames_in_meta,
    frames_in_pairs,
)
from data.sprites import DEFAULT_ROOT, FRAMES, LABELS, SPLITS, ensure_sprites
from data.videos import FrameFolder, Video
from utils.errors import UserError
from utils.names import listed_names, plain_name

FOREGROUND = ("foreground", "oracle")  # protocols for one object: matching it by `davis` would choose with the truth
OBJECTS = ("davis", "paper", "slots", "tracks", *FOREGROUND)  # for several, which may be scored as one too


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset.

    title: as the literature calls it.
    layout: the object that knows its tree.
    splits: those of its download, the default one first. Layouts that read split files take others too.
    protocols: by which it is scored, the usual one first; none: it has no annotation.
    default_root: where it lies if nothing is said. generate: writes what is missing of it below its root.
    """

    name: str
    title: str
    layout: Layout
    splits: tuple[str, ...]
    protocols: tuple[str, ...]
    licence: str
    citation: str
    download: str
    default_root: str | None = None
    generate: Callable[[Path], object] | None = None

    @property
    def default_split(self) -> str:
        return self.splits[0]

    @property
    def single_object(self) -> bool:
        """All objects are merged to one foreground."""
        return self.layout.merged

    @property
    def void(self) -> int | None:
        """The label of pixels that are not scored, None where every pixel is."""
        return None if self.single_object or not self.protocols else VOID

    @property
    def sparse(self) -> bool:
        """Not every frame need be annotated."""
        return self.layout.sparse

    @property
    def split_source(self) -> str:
        """Where the names of the videos of a split come from, in words."""
        return self.layout.split_source


def _objects(*usual: str) -> tuple[str, ...]:
    """The protocols for several objects, with these first."""
    return (*usual, *(protocol for protocol in OBJECTS if protocol not in usual))


# ------------------------------------------------------------------ what the literature fixes

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

_DAVIS17 = FolderLayout(
    frames="JPEGImages/480p/{name}",
    annotations="Annotations/480p/{name}",
    source=SplitFile("ImageSets/2017/{split}.txt"),
    unannotated=("test-dev", "test-challenge"),
)
_DAVIS17_UNSUPERVISED = replace(
    _DAVIS17,
    annotations="Annotations_unsupervised/480p/{name}",
    source=SplitFile(
        "ImageSets/2017/{split}.txt",
        special={"test-dev": "ImageSets/2019/test-dev.txt", "test-challenge": "ImageSets/2019/test-challenge.txt"},
    ),
)
_DAVIS16_IN_17 = replace(
    _DAVIS17, labels=merged_masks, merged=True, unannotated=(), source=SplitFile("ImageSets/2016/{split}.txt"),
    marker="ImageSets/2016",
)  # fmt: skip
_DAVIS16 = replace(
    _DAVIS16_IN_17, source=SplitFile("ImageSets/480p/{split}.txt", frames=True), marker="ImageSets/480p",
    frame_list=FrameList("ImageSets/480p/{split}.txt", frames_in_pairs),
)  # fmt: skip
_FBMS_SPLITS = Listed({"test": FBMS_TEST, "train": FBMS_TRAIN})
_FBMS = FolderLayout(
    frames="{split}/{name}",
    annotations="{split}/{name}/GroundTruth",
    source=_FBMS_SPLITS,
    labels=fbms_annotations,
    merged=True,
    sparse=True,
    folders={"test": "Testset", "train": "Trainingset"},
    marker="T*set",
    marker_in_words="a folder Testset or Trainingset",
    frame_list=FrameList("{split}/{name}/{name}.bmf", frames_in_bmf),
    unread=fbms_unread,
)
_SEGTRACK = FolderLayout(
    frames="JPEGImages/{name}",
    annotations="GroundTruth/{name}",
    source=Listed({"all": SEGTRACK}),
    labels=merged_masks,
    merged=True,
    marker="GroundTruth",
)
_YTVOS = FolderLayout(
    frames="{split}/JPEGImages/{name}",
    annotations="{split}/Annotations/{name}",
    source=MetaKeys("{split}/meta.json"),
    sparse=True,
    unannotated=("valid", "test"),  # only the first frame of each object is public
    frame_list=FrameList("{split}/meta.json", frames_in_meta, annotated=True),
    own_annotations=True,
)
_YTVIS = InstanceLayout(
    frames="{split}/JPEGImages", json=("{split}/instances.json", "{split}/{split}.json", "{split}.json")
)
_PAIRS = FolderLayout(
    frames="frames/{name}",
    annotations="annotations/{name}",
    source=Subfolders("frames"),
    sparse=True,
    marker="frames",
    own_annotations=True,
)


def _movi(variant: str) -> AnyOf:
    folders = (f"movi_{variant}/256x256/1.0.0", f"movi_{variant}/128x128/1.0.0", "256x256/1.0.0", "1.0.0", ".")
    plain = FolderLayout(
        frames="{split}/{name}/frames",
        annotations="{split}/{name}/masks",
        source=Subfolders("{split}"),
        marker="*/*/frames",
        marker_in_words="folders <split>/<video>/frames",
    )
    beside = replace(
        plain, frames="{split}/{name}", annotations="{split}/{name}", labels=partial(label_files, ending="_mask"),
        mask_ending="_mask", marker="*/*/*_mask.png", marker_in_words="masks <split>/<video>/<frame>_mask.png",
    )  # fmt: skip
    return AnyOf((RecordLayout(f"movi_{variant}", folders), plain, beside))


# ------------------------------------------------------------------ entries

# Anybody's own: a video file, a folder of frames, or a folder of such; no annotation.
OWN_VIDEO = "video"
# Anybody's folders of frames and folders of label PNGs.
PAIRS = "pairs"

_DAVIS_LICENCE = "CC BY-NC 4.0"
_YOUTUBE_LICENCE = "annotations CC BY 4.0; non-commercial research only"
_YTVOS_CITATION = "Xu et al., arXiv 1809.03327, 2018"
_YTVIS_CITATION = "Yang et al., ICCV 2019"
_MOVI = {
    "splits": ("validation", "train", "test"),
    "protocols": _objects("slots"),
    "licence": "Apache 2.0 (Kubric); see the download page",
    "citation": "Greff et al., CVPR 2022",
    "download": "https://github.com/google-research/kubric/tree/main/challenges/movi",
}

_SPECS = (
    DatasetSpec(
        name="davis17u",
        title="DAVIS-17-Unsupervised",
        layout=_DAVIS17_UNSUPERVISED,
        splits=("val", "train", "test-dev", "test-challenge"),
        protocols=OBJECTS,
        licence=_DAVIS_LICENCE,
        citation="Caelles et al., arXiv 1905.00737, 2019",
        download="https://davischallenge.org/davis2017/code.html",
    ),
    DatasetSpec(
        name="davis17",
        title="DAVIS-17 (semi-supervised annotations)",
        layout=_DAVIS17,
        splits=("val", "train", "test-dev", "test-challenge"),
        protocols=OBJECTS,
        licence=_DAVIS_LICENCE,
        citation="Pont-Tuset et al., arXiv 1704.00675, 2017",
        download="https://davischallenge.org/davis2017/code.html",
    ),
    DatasetSpec(
        name="davis16",
        title="DAVIS-16",
        layout=AnyOf((_DAVIS16, _DAVIS16_IN_17)),
        splits=("val", "train"),
        protocols=FOREGROUND,
        licence=_DAVIS_LICENCE,
        citation="Perazzi et al., CVPR 2016",
        download="https://davischallenge.org/davis2016/code.html",
    ),
    DatasetSpec(
        name="davis17-motion",
        title="DAVIS-17-motion",
        layout=replace(_DAVIS17, annotations="Annotations_unsupervised_motion/480p/{name}"),
        splits=("val", "train"),
        protocols=OBJECTS,
        licence=f"{_DAVIS_LICENCE} (DAVIS); see the download page",
        citation="Xie et al., NeurIPS 2022",
        download="https://github.com/Jyxarthur/OCLR_model",
    ),
    DatasetSpec(
        name="fbms59",
        title="FBMS-59",
        layout=AnyOf(
            (
                _FBMS,
                replace(
                    _FBMS,
                    frames="JPEGImages/{name}",
                    annotations="Annotations/{name}",
                    marker="JPEGImages",
                    marker_in_words="",
                    frame_list=None,
                ),
            )
        ),
        splits=("test", "train"),
        protocols=FOREGROUND,
        licence="none stated; see the download page",
        citation="Ochs et al., TPAMI 2014",
        download="https://lmb.informatik.uni-freiburg.de/resources/datasets/moseg.en.html",
    ),
    DatasetSpec(
        name="segtrackv2",
        title="SegTrack-v2",
        layout=AnyOf((_SEGTRACK, replace(_SEGTRACK, annotations="Annotations/{name}", marker="Annotations"))),
        splits=("all",),
        protocols=FOREGROUND,
        licence="none stated; see the download page",
        citation="Li et al., ICCV 2013",
        download="https://web.engr.oregonstate.edu/~lif/SegTrack2/dataset.html",
    ),
    *(
        DatasetSpec(
            name=f"ytvos{year - 2000}",
            title=f"YouTube-VOS {year}",
            layout=_YTVOS,
            splits=("train", "valid", "test"),
            protocols=OBJECTS,
            licence=_YOUTUBE_LICENCE,
            citation=_YTVOS_CITATION,
            download="https://youtube-vos.org/dataset/vos/",
        )
        for year in (2018, 2019)
    ),
    *(
        DatasetSpec(
            name=f"ytvis{year - 2000}",
            title=f"YouTube-VIS {year}",
            layout=_YTVIS,
            splits=("train", "valid", "test"),
            protocols=_objects("slots", "tracks"),
            licence=_YOUTUBE_LICENCE,
            citation=_YTVIS_CITATION,
            download="https://youtube-vos.org/dataset/vis/",
        )
        for year in (2019, 2021)
    ),
    DatasetSpec(name="movi-c", title="MOVi-C", layout=_movi("c"), **_MOVI),
    DatasetSpec(name="movi-e", title="MOVi-E", layout=_movi("e"), **_MOVI),
    DatasetSpec(
        name="sprites",
        title="Sprites",
        layout=FolderLayout(
            frames=FRAMES + "/{name}", annotations=LABELS + "/{name}", source=SplitFile(SPLITS + "/{split}.txt")
        ),
        splits=("val", "train"),
        protocols=OBJECTS,
        licence="that of this repository",
        citation="generated by data/sprites.py",
        download="none: generated on first use",
        default_root=DEFAULT_ROOT,
        generate=ensure_sprites,
    ),
    DatasetSpec(
        name=PAIRS,
        title="Frames and label PNGs",
        layout=AnyOf(
            (
                _PAIRS,
                replace(
                    _PAIRS,
                    frames="JPEGImages/{name}",
                    annotations="Annotations/{name}",
                    source=Subfolders("JPEGImages"),
                    marker="JPEGImages",
                ),
            )
        ),
        splits=("all",),
        protocols=OBJECTS,
        licence="your own",
        citation="none",
        download="none: your own",
    ),
    DatasetSpec(
        name=OWN_VIDEO,
        title="Your own video",
        layout=OwnVideos(),
        splits=("all",),
        protocols=(),
        licence="your own",
        citation="none",
        download="none: your own",
    ),
)
DATASETS = {spec.name: spec for spec in _SPECS}
DATASET_NAMES = tuple(DATASETS)
# train.py takes "video" as whatever frames lie below --basepath, the others by the names of their training split.
TRAINING_NAMES = (OWN_VIDEO, *(spec.name for spec in _SPECS if "train" in spec.splits))

# ------------------------------------------------------------------ loading


def root_of(
    dataset: str, *, davis_path: str | None, basepath: str | None, davis_flag: str = "--davis_path"
) -> tuple[Path, str]:
    """The root of a dataset and the flag that names it.

    Args:
        davis_flag: the flag that names the root of DAVIS; `--basepath` where a program has no other.

    Raises:
        UserError: the flag was not given and the dataset has no place of its own, or that of DAVIS for another dataset.
    """
    given, flag = basepath, "--basepath"
    if dataset.startswith("davis"):
        given, flag = davis_path or basepath, davis_flag
    elif davis_path is not None:
        raise UserError(f"--davis_path {davis_path}: --dataset {dataset} is not DAVIS; give --dataset davis17u or "
                        "another of DAVIS, or name the root as --basepath")  # fmt: skip
    given = given or DATASETS[dataset].default_root
    if given is None:
        raise UserError(f"{flag} is missing; give the root of --dataset {dataset}")
    return Path(given), flag


def check_place(dataset: str, root: Path, *, split: str | None, flag: str) -> None:
    """What can be wrong about a root and a split before anything is generated or read.

    Raises:
        UserError: an impossible split, or nothing at the root of a dataset that is not generated.
    """
    known_split(DATASETS[dataset], split)
    if not DATASETS[dataset].generate and not root.exists():
        raise UserError(f"{flag} {root}: no such file or folder")


def load_videos(
    dataset: str, root: Path, *, split: str | None = None, flag: str, sequences: list[str] | None = None,
    videos: str | None = None, annotations: Path | None = None,
) -> list[Video]:  # fmt: skip
    """The videos of a dataset, in the order in which its split names them.

    Args:
        dataset: one of `DATASET_NAMES`.
        root: the dataset's root; for `video` the file or folder itself.
        split: which split, such as `val`; the dataset's default if not given.
        flag: the option that named `root`, for messages.
        sequences: keep only these.
        videos: "A:B", keep only videos A to B - 1 of the split, counted from 0; either may be left out.
        annotations: for `pairs`, the folder of folders of label PNGs; `root` is then that of folders of frames.

    Raises:
        UserError: anything of the layout missing, annotations that do not match the frames, an unknown sequence.
    """
    spec = DATASETS[dataset]
    layout = layout_of(spec, annotations)
    split = known_split(spec, split)
    if spec.generate:
        spec.generate(root)
    names = select(split_names(layout, root, split, flag=flag), videos)
    if sequences:
        if unknown := sorted(set(sequences) - set(names)):
            raise UserError(f"--sequences {unknown[0]}: not among the {len(names)} of {root}")
        names = [name for name in names if name in sequences]
    return [layout.video(root, split, name) for name in names]


def training_videos(dataset: str, root: Path, *, train_list: str | None = None) -> dict[str, list[Path]]:
    """The frames of the videos of a dataset's training split by name; its annotations are not looked at.

    Args:
        dataset: `OWN_VIDEO` stands for every folder of frames below `root`.
        train_list: a text file, absolute or relative to `root`, naming those to keep, one a line.

    Raises:
        UserError: anything of the layout missing, videos that are not image files, a name that the split lacks.
    """
    if dataset == OWN_VIDEO:
        return index_videos(root, train_list=train_list)
    spec = DATASETS[dataset]
    if spec.generate:
        spec.generate(root)
    names = split_names(spec.layout, root, "train", flag="--basepath")
    if train_list is not None:
        names = _keep_listed(names, root, train_list)
    found = {}
    for name in names:
        video = spec.layout.video(root, "train", name, annotated=False)
        if not isinstance(video, FrameFolder):
            raise UserError(f"--basepath {root}: TFRecords cannot be trained on; export the frames of --dataset "
                            f"{dataset} to <split>/<video>/frames")  # fmt: skip
        found[name] = video.paths
    return found


def _keep_listed(names: list[str], root: Path, train_list: str) -> list[str]:
    wanted = set(listed_names(root, train_list))
    if unknown := sorted(wanted - set(names)):
        raise UserError(f"--train_list {train_list}: {unknown[0]} is not among the {len(names)} training videos")
    return [name for name in names if name in wanted]


def layout_of(spec: DatasetSpec, annotations: Path | None) -> Layout:
    """The layout of a dataset; of `pairs`, with annotations below a folder of their own if one is given."""
    if annotations is None:
        return spec.layout
    if spec.name != PAIRS:
        raise UserError(f"--annotations {annotations}: only for --dataset {PAIRS}; leave it out")
    if not annotations.is_dir():
        raise UserError(f"--annotations {annotations}: no such folder")
    # An absolute path takes the place of the root; its braces are no fields.
    below = str(annotations.resolve()).replace("{", "{{").replace("}", "}}")
    return replace(_PAIRS, frames="{name}", annotations=f"{below}/{{name}}", source=Subfolders(""))


def known_split(spec: DatasetSpec, split: str | None) -> str:
    """A split of a dataset, its default one if none is given.

    Raises:
        UserError: not the name of one. That its files are there is for the layout to say.
    """
    split = split or spec.default_split
    choices = ", ".join(spec.splits)
    try:
        plain_name(split, "")
    except UserError:
        raise UserError(f"--split {split!r}: not the name of a split; choose from {choices}") from None
    if (spec.layout.fixed_splits or spec.generate) and split not in spec.splits:
        raise UserError(f"--split {split}: --dataset {spec.name} has no such split; choose from {choices}")
    return split


def split_names(layout: Layout, root: Path, split: str, *, flag: str) -> list[str]:
    """The names of a split; a `UserError` about the root itself names the flag that gave it."""
    try:
        return layout.names(root, split)
    except UserError as error:
        if str(error).startswith(f"{root}: "):
            raise UserError(f"{flag} {error}") from None
        raise


def select(names: list[str], videos: str | None) -> list[str]:
    """Those of `names` that "A:B" selects as a slice does; negative numbers are refused.

    Raises:
        UserError: not of this form, or nothing selected.
    """
    if videos is None:
        return names
    match = re.fullmatch(r"(\d*):(\d*)", videos)
    if not match:
        raise UserError(f"--videos {videos}: not of the form A:B, such as 600:900")
    first, last = (int(number) if number else None for number in match.groups())
    if not (selected := names[first:last]):
        raise UserError(f"--videos {videos}: selects none of the {len(names)} videos")
    return selected
