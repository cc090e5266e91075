"""List the data sets that the programs know by name: layout on disk, splits, scoring protocols, licence, source."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from data.layouts.base import AnyOf, Layout
from data.layouts.folders import FolderLayout, OwnVideos
from data.layouts.known import (
    DAVIS16_IN_17_LAYOUT,
    DAVIS16_LAYOUT,
    DAVIS17_LAYOUT,
    DAVIS17_UNSUPERVISED_LAYOUT,
    FBMS_LAYOUT,
    PAIRS_LAYOUT,
    SEGTRACK_LAYOUT,
    YTVIS_LAYOUT,
    YTVOS_LAYOUT,
    make_movi_layout,
)
from data.layouts.splits import SplitFile, Subfolders
from data.sprites.writer import FRAMES, LABELS, SPLITS, ensure_sprites
from utils.flags.choices import OWN_VIDEO, PAIRS, SPRITES_ROOT
from utils.scoring.annotations import VOID

# Protocols for data sets with one object; `davis` would choose the foreground by matching it with the annotation.
FOREGROUND_PROTOCOLS = ("foreground", "oracle")
# Protocols for data sets with several objects, which can also be scored as one foreground.
OBJECT_PROTOCOLS = ("davis", "paper", "slots", "tracks", *FOREGROUND_PROTOCOLS)


@dataclass(frozen=True)
class DatasetSpec:
    """Describe a data set.

    Attributes:
        name: value of `--dataset`.
        title: name in the literature.
        layout: finds its videos below its root.
        splits: the splits of its download, the default split first. Layouts that read split files accept others too.
        protocols: scoring protocols, the usual one first; empty if the data set has no annotations.
        licence: licence of the data.
        citation: paper to cite.
        download: address of its page, or why there is none.
        default_root: root if the user gives none.
        generate: writes the missing files of a split of a generated data set below its root.
        archive: which of several files on the download page to take.
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
    generate: Callable[[Path, str], object] | None = None
    archive: str = ""

    @property
    def training_split(self) -> str:
        """`train` if there is such a split, else the default split."""
        return "train" if "train" in self.splits else self.default_split

    @property
    def default_split(self) -> str:
        return self.splits[0]

    @property
    def single_object(self) -> bool:
        """Tell whether all objects are merged to one foreground."""
        return self.layout.merged

    @property
    def void(self) -> int | None:
        """The label of pixels that are not scored; None if all pixels are."""
        return None if self.single_object or not self.protocols else VOID

    @property
    def sparse(self) -> bool:
        """Tell whether frames without an annotation are allowed."""
        return self.layout.sparse

    @property
    def split_source(self) -> str:
        """Where the names of the videos of a split come from, in words."""
        return self.layout.split_source


def _order_protocols(*usual: str) -> tuple[str, ...]:
    """Return the protocols for several objects, the usual ones first."""
    return (*usual, *(protocol for protocol in OBJECT_PROTOCOLS if protocol not in usual))


# ------------------------------------------------------------------ entries

_DAVIS_LICENCE = "CC BY-NC 4.0"
_YOUTUBE_LICENCE = "annotations CC BY 4.0; non-commercial research only"
_YTVOS_CITATION = "Xu et al., arXiv 1809.03327, 2018"
_YTVIS_CITATION = "Yang et al., ICCV 2019"
_MOVI = {
    "splits": ("validation", "train", "test"),
    "protocols": _order_protocols("slots"),
    "licence": "Apache 2.0 (Kubric); see the download page",
    "citation": "Greff et al., CVPR 2022",
    "download": "https://github.com/google-research/kubric/tree/main/challenges/movi",
}

_SPECS = (
    DatasetSpec(
        name="davis17u",
        title="DAVIS-17-Unsupervised",
        layout=DAVIS17_UNSUPERVISED_LAYOUT,
        splits=("val", "train", "test-dev", "test-challenge"),
        protocols=OBJECT_PROTOCOLS,
        licence=_DAVIS_LICENCE,
        citation="Caelles et al., arXiv 1905.00737, 2019",
        download="https://davischallenge.org/davis2017/code.html",
        archive="DAVIS-2017-Unsupervised-trainval-480p.zip, or that of its test splits",
    ),
    DatasetSpec(
        name="davis17",
        title="DAVIS-17 (semi-supervised annotations)",
        layout=DAVIS17_LAYOUT,
        splits=("val", "train", "test-dev", "test-challenge"),
        protocols=OBJECT_PROTOCOLS,
        licence=_DAVIS_LICENCE,
        citation="Pont-Tuset et al., arXiv 1704.00675, 2017",
        download="https://davischallenge.org/davis2017/code.html",
        archive="DAVIS-2017-trainval-480p.zip, or that of its test splits",
    ),
    DatasetSpec(
        name="davis16",
        title="DAVIS-16",
        layout=AnyOf((DAVIS16_LAYOUT, DAVIS16_IN_17_LAYOUT)),
        splits=("val", "train"),
        protocols=FOREGROUND_PROTOCOLS,
        licence=_DAVIS_LICENCE,
        citation="Perazzi et al., CVPR 2016",
        download="https://davischallenge.org/davis2016/code.html",
        archive="DAVIS-data.zip of DAVIS-2016",
    ),
    DatasetSpec(
        name="davis17-motion",
        title="DAVIS-17-motion",
        layout=replace(DAVIS17_LAYOUT, annotations="Annotations_unsupervised_motion/480p/{name}"),
        splits=("val", "train"),
        protocols=OBJECT_PROTOCOLS,
        licence=f"{_DAVIS_LICENCE} (DAVIS); see the download page",
        citation="Xie et al., NeurIPS 2022",
        download="https://github.com/Jyxarthur/OCLR_model",
    ),
    DatasetSpec(
        name="fbms59",
        title="FBMS-59",
        layout=AnyOf(
            (
                FBMS_LAYOUT,
                replace(
                    FBMS_LAYOUT,
                    frames="JPEGImages/{name}",
                    annotations="Annotations/{name}",
                    marker="JPEGImages",
                    marker_in_words="",
                    frame_list=None,
                ),
            )
        ),
        splits=("test", "train"),
        protocols=FOREGROUND_PROTOCOLS,
        licence="none stated; see the download page",
        citation="Ochs et al., TPAMI 2014",
        download="https://lmb.informatik.uni-freiburg.de/resources/datasets/moseg.en.html",
    ),
    DatasetSpec(
        name="segtrackv2",
        title="SegTrack-v2",
        layout=AnyOf(
            (SEGTRACK_LAYOUT, replace(SEGTRACK_LAYOUT, annotations="Annotations/{name}", marker="Annotations"))
        ),
        splits=("all",),
        protocols=FOREGROUND_PROTOCOLS,
        licence="none stated; see the download page",
        citation="Li et al., ICCV 2013",
        download="https://web.engr.oregonstate.edu/~lif/SegTrack2/dataset.html",
    ),
    *(
        DatasetSpec(
            name=f"ytvos{year - 2000}",
            title=f"YouTube-VOS {year}",
            layout=YTVOS_LAYOUT,
            splits=("train", "valid", "test"),
            protocols=OBJECT_PROTOCOLS,
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
            layout=YTVIS_LAYOUT,
            splits=("train", "valid", "test"),
            protocols=_order_protocols("slots", "tracks"),
            licence=_YOUTUBE_LICENCE,
            citation=_YTVIS_CITATION,
            download="https://youtube-vos.org/dataset/vis/",
        )
        for year in (2019, 2021)
    ),
    DatasetSpec(name="movi-c", title="MOVi-C", layout=make_movi_layout("c"), **_MOVI),
    DatasetSpec(name="movi-e", title="MOVi-E", layout=make_movi_layout("e"), **_MOVI),
    DatasetSpec(
        name="sprites",
        title="Sprites",
        layout=FolderLayout(
            frames=FRAMES + "/{name}", annotations=LABELS + "/{name}", source=SplitFile(SPLITS + "/{split}.txt")
        ),
        splits=("val", "train", "small", "crowd", "leave"),
        protocols=OBJECT_PROTOCOLS,
        licence="that of this repository",
        citation="generated by data/sprites/writer.py",
        download="none: generated on first use",
        default_root=SPRITES_ROOT,
        generate=ensure_sprites,
    ),
    DatasetSpec(
        name=PAIRS,
        title="Frames and label PNGs",
        layout=AnyOf(
            (
                PAIRS_LAYOUT,
                replace(
                    PAIRS_LAYOUT,
                    frames="JPEGImages/{name}",
                    annotations="Annotations/{name}",
                    source=Subfolders("JPEGImages"),
                    marker="JPEGImages",
                ),
            )
        ),
        splits=("all",),
        protocols=OBJECT_PROTOCOLS,
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
DATASETS = {spec.name: spec for spec in _SPECS}  # the names are `DATASET_NAMES`
