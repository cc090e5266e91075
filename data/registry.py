"""The datasets known by name: one entry each says how its download looks, by what it is scored, whose it is."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from data.annotations import fbms_annotations, fbms_unread, label_files, merged_masks
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
from data.sprites.writer import DEFAULT_ROOT, FRAMES, LABELS, SPLITS, ensure_sprites
from data.videos import FrameFolder, Video, check_whole
from utils import distributed
from utils.errors import UserError
from utils.names import listed_names, plain_name
from utils.scoring.annotations import VOID

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
    archive: which of the files of its download has it, where there are several.
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
    archive: str = ""

    @property
    def training_split(self) -> str:
        """What is trained on: all that there is where nothing else is set apart for it."""
        return "train" if "train" in self.splits else self.default_split

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
    frames=("{split}/JPEGImages", "JPEGImages"),
    json=(
        "{split}/instances.json", "{split}/{split}.json", "{split}.json", "annotations/instances_{split}.json",
        "annotations/{split}.json", "annotations/instances.json",
    ),
)  # fmt: skip
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
        mask_ending="_mask", marker="*/*/*_mask.[pP][nN][gG]", marker_in_words="masks <split>/<video>/<frame>_mask.png",
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
        archive="DAVIS-2017-Unsupervised-trainval-480p.zip, or that of its test splits",
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
        archive="DAVIS-2017-trainval-480p.zip, or that of its test splits",
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
        archive="DAVIS-data.zip of DAVIS-2016",
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
        citation="generated by data/sprites/writer.py",
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

# Other names of theirs, the reference's among them, in lower case and without what stands between letters and digits.
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


def dataset_name(text: str) -> str:
    """The registry's name of a dataset, for argparse: in any case, however words are divided, or one of `ALIASES`.

    Raises:
        argparse.ArgumentTypeError: unknown; it suggests the nearest.
    """
    known = ALIASES | {_squeezed(name): name for name in DATASETS}
    if (word := _squeezed(text)) in known:
        return known[word]
    close = difflib.get_close_matches(word, known, n=1)
    hint = f"did you mean {known[close[0]]}?" if close else f"choose from {', '.join(DATASETS)}"
    raise argparse.ArgumentTypeError(f"there is no data set {text!r}; {hint}")


def _squeezed(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


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
        given, flag = (basepath, flag) if basepath and not davis_path else (davis_path, davis_flag)
    elif davis_path is not None:
        raise UserError(f"--davis_path {davis_path}: --dataset {dataset} is not DAVIS; give --dataset davis17u or "
                        "another of DAVIS, or name the root as --basepath")  # fmt: skip
    given = given or DATASETS[dataset].default_root
    if given is None:
        raise UserError(f"{flag} is missing; give the root of --dataset {dataset}")
    return Path(given), flag


def check_place(dataset: str, root: Path, *, split: str | None, flag: str) -> None:
    """Refuse an impossible root or split before anything is generated or read.

    Raises:
        UserError: an impossible split, or nothing at the root of a dataset that is not generated, or a file where it
            has to be a folder.
    """
    known_split(DATASETS[dataset], split)
    if not DATASETS[dataset].generate and not root.exists():
        raise UserError(f"{flag} {root}: no such file or folder")
    if dataset != OWN_VIDEO and root.is_file():
        raise UserError(f"{flag} {root}: is a file; give the folder where the download of --dataset {dataset} was "
                        f"unpacked, or --dataset {OWN_VIDEO} for a video file")  # fmt: skip


def guess_own_video(basepath: str | None, *, otherwise: str | None) -> str | None:
    """The dataset where none was named: `OWN_VIDEO` where --basepath is clearly one, and a line on stderr says so."""
    if basepath is None or otherwise == OWN_VIDEO or not _is_own_video(Path(basepath)):
        return otherwise
    if distributed.is_main():
        print(f"note: --basepath {basepath} is taken as --dataset {OWN_VIDEO}", file=sys.stderr, flush=True)
    return OWN_VIDEO


def _is_own_video(root: Path) -> bool:
    """Whether a path is a file that is no archive, or holds frames where no dataset has them."""
    if root.is_file():
        return root.suffix.lower() not in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
    try:
        return bool(DATASETS[OWN_VIDEO].layout.names(root, "all"))
    except UserError:
        return False


def load_videos(
    dataset: str, root: Path, *, split: str | None = None, flag: str, sequences: list[str] | None = None,
    videos: str | None = None, annotations: Path | None = None, allow_damaged: bool = False,
) -> list[Video]:  # fmt: skip
    """The videos of a dataset, in the order in which its split names them.

    Args:
        dataset: one of `DATASET_NAMES`.
        root: the dataset's root, or a folder with it; for `video` the file or folder itself.
        split: which split, such as `val`; the dataset's default if not given.
        flag: the option that named `root`, for messages.
        sequences: keep only these.
        videos: "A:B", keep only videos A to B - 1 of the split, counted from 0; either may be left out.
        annotations: for `pairs`, the folder of folders of label PNGs; `root` is then that of folders of frames.
        allow_damaged: video files of which only a part can be decoded are warned about, not refused.

    Raises:
        UserError: anything of the layout missing, a damaged video file, annotations that do not match the frames, an
            unknown sequence.
    """
    spec = DATASETS[dataset]
    layout = layout_of(spec, annotations)
    split = known_split(spec, split)
    if spec.generate:
        spec.generate(root)
    root = place_of(spec, layout, root, split)
    names = select(split_names(spec, layout, root, split, flag=flag), videos)
    if sequences:
        if unknown := sorted(set(sequences) - set(names)):
            raise UserError(f"--sequences {unknown[0]}: not among the {len(names)} of {root}")
        names = [name for name in names if name in sequences]
    found = [layout.video(root, split, name) for name in names]
    check_whole(found, allow_damaged=allow_damaged)
    return found


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
    split = spec.training_split
    if spec.generate:
        spec.generate(root)
    place = place_of(spec, spec.layout, root, split, annotated=False)
    names = split_names(spec, spec.layout, place, split, flag="--basepath", annotated=False)
    if train_list is not None:
        names = _keep_listed(names, root, train_list)
    found = {}
    for name in names:
        video = spec.layout.video(place, split, name, annotated=False)
        if not isinstance(video, FrameFolder):
            raise UserError(f"--basepath {root}: TFRecords cannot be trained on; export the frames of --dataset "
                            f"{dataset} to <split>/<video>/frames")  # fmt: skip
        found[name] = video.paths
    return found


def _keep_listed(names: list[str], root: Path, train_list: str) -> list[str]:
    wanted = set(listed_names(root, train_list, known=names))
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


def split_names(
    spec: DatasetSpec, layout: Layout, root: Path, split: str, *, flag: str, annotated: bool = True
) -> list[str]:
    """The names of a split of which there are frames and, if `annotated` and public, annotations at all.

    Raises:
        UserError: what is missing; of the root itself it names the flag that gave it, and what does lie there.
    """
    try:
        names = layout.names(root, split)
        if (missing := layout.lacks(root, split, annotated=annotated)) is not None:
            raise UserError(f"{root}: lacks {missing.relative_to(root)}")
        return names
    except UserError as error:
        if str(error).startswith(f"{root}: "):
            raise UserError(f"{flag} {error}{_what_fits(spec, root, split, annotated=annotated)}") from None
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


# ------------------------------------------------------------------ what lies at a root

MAX_PLACES = 500  # folders below a root that are looked at


def place_of(spec: DatasetSpec, layout: Layout, root: Path, split: str, *, annotated: bool = True) -> Path:
    """The folder of a dataset's tree: its root, or the one folder up to two levels below that holds the split.

    Archives are unpacked into a folder of their own as often as not; where that is so a line on stderr says it.
    """
    if layout.holds(root, split, annotated=annotated):
        return root
    found = [place for place in _places(root) if layout.holds(place, split, annotated=annotated)]
    if len(found) != 1:
        return root
    if distributed.is_main():
        print(f"note: {spec.title} is read from {found[0]}", file=sys.stderr, flush=True)
    return found[0]


def _places(root: Path) -> Iterator[Path]:
    """Folders one and two levels below a root, the first `MAX_PLACES` of them."""
    folders = (path for pattern in ("*", "*/*") for path in sorted(root.glob(pattern)))
    return islice((path for path in folders if path.is_dir() and not path.name.startswith(".")), MAX_PLACES)


def _what_fits(spec: DatasetSpec, root: Path, split: str, *, annotated: bool) -> str:
    """What can be read at a root, or one or two levels below, in place of a split that cannot, and else the mend."""
    family = [other for other in DATASETS.values() if other.name[:5] == spec.name[:5]]
    others = dict.fromkeys(other.name for other in (spec, *family, *DATASETS.values()))
    for place in (root, *_places(root)):
        bare = spec.layout.holds(place, split, annotated=False)  # the split is there, but for its annotations
        where = "there" if place == root else f"in {place}"
        for name in others:
            for part in dict.fromkeys((split, *DATASETS[name].splits)):
                if part not in DATASETS[name].splits or (name == spec.name and (bare or part == split)):
                    continue
                if DATASETS[name].layout.holds(place, part, annotated=annotated):
                    option = "" if part == DATASETS[name].default_split else f" --split {part}"
                    return f"; give --dataset {name}{option}, whose files lie {where}"
        if any(layout.holds(place, split, annotated=False) for layout in _OTHER_SIZES.get(spec.name, ())):
            return f"; what lies {where} has the full resolution, but DAVIS is scored at 480p: give {spec.archive}"
    return f"; unpack there {spec.archive}" if spec.archive else "; check the root of the data set"


def _at_size(layout: FolderLayout, size: str) -> FolderLayout:
    """A layout of DAVIS with frames and annotations of another size than 480p."""
    frames, annotations = (path.replace("480p", size) for path in (layout.frames, layout.annotations))
    return replace(layout, frames=frames, annotations=annotations)


_OTHER_SIZES = {
    name: tuple(_at_size(layout, size) for size in ("Full-Resolution", "1080p") for layout in layouts)
    for name, layouts in {
        "davis17u": (_DAVIS17_UNSUPERVISED,), "davis17": (_DAVIS17,), "davis16": (_DAVIS16, _DAVIS16_IN_17),
    }.items()
}  # fmt: skip
