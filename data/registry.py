"""The datasets known by name: where in its download each keeps what (METHOD.md 6)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.frames import list_images
from data.sprites import FRAMES, LABELS, SPLITS, ensure_sprites
from data.videos import FrameFolder, Video, VideoFile
from utils.annotations import LabelFolder
from utils.errors import UserError


@dataclass(frozen=True)
class DatasetSpec:
    """Layout of a dataset, all paths relative to its root. Void pixels of every annotation carry 255.

    default_root: where it lies if nothing is said. generate: writes what is missing of it below its root.
    """

    title: str
    frames: str
    annotations: str
    split_file: str
    default_root: str | None = None
    generate: Callable[[Path], object] | None = None


DATASETS = {
    "davis17u": DatasetSpec(
        title="DAVIS-17-Unsupervised",
        frames="JPEGImages/480p",
        annotations="Annotations_unsupervised/480p",
        split_file="ImageSets/2017/{split}.txt",
    ),
    "sprites": DatasetSpec(
        title="Sprites",
        frames=FRAMES,
        annotations=LABELS,
        split_file=f"{SPLITS}/{{split}}.txt",
        default_root="datasets/sprites",
        generate=ensure_sprites,
    ),
}
# Anybody's own: a video file, a folder of frames, or a folder of such; no annotation.
OWN_VIDEO = "video"
DATASET_NAMES = (*DATASETS, OWN_VIDEO)


def root_of(dataset: str, *, davis_path: str | None, basepath: str | None) -> tuple[Path, str]:
    """The root of a dataset and the flag that names it.

    Raises:
        UserError: the flag was not given and the dataset has no place of its own.
    """
    given, flag = basepath, "--basepath"
    if dataset.startswith("davis"):
        given, flag = davis_path or basepath, "--davis_path"
    if given is None and dataset in DATASETS:
        given = DATASETS[dataset].default_root
    if given is None:
        raise UserError(f"{flag} is missing; give the root of --dataset {dataset}")
    return Path(given), flag


def training_list(dataset: str, root: Path) -> str:
    """The file, relative to `root`, that names the training videos of a dataset; a generated one is written first."""
    spec = DATASETS[dataset]
    if spec.generate:
        spec.generate(root)
    return spec.split_file.format(split="train")


def load_videos(dataset: str, root: Path, *, split: str, flag: str, sequences: list[str] | None = None) -> list[Video]:
    """The videos of a dataset, in the order of its split file.

    Args:
        dataset: one of `DATASET_NAMES`.
        root: the dataset's root; for `video` the file or folder itself.
        split: which split file, such as `val`.
        flag: the option that named `root`, for messages.
        sequences: keep only these.

    Raises:
        UserError: anything of the layout missing, annotations that do not match the frames, an unknown sequence.
    """
    if dataset == OWN_VIDEO:
        videos = _own_videos(root, flag=flag)
    else:
        videos = _annotated_videos(DATASETS[dataset], root, split=split, flag=flag)
    if sequences:
        unknown = sorted(set(sequences) - {video.name for video in videos})
        if unknown:
            raise UserError(f"--sequences {unknown[0]}: not among the {len(videos)} of {root}")
        videos = [video for video in videos if video.name in sequences]
    return videos


def _annotated_videos(spec: DatasetSpec, root: Path, *, split: str, flag: str) -> list[Video]:
    if spec.generate:
        spec.generate(root)
    split_file = root / spec.split_file.format(split=split)
    if not split_file.is_file():
        raise UserError(f"{flag} {root}: lacks {split_file.relative_to(root)}; give the root of {spec.title}")
    names = split_file.read_text().split()
    if not names:
        raise UserError(f"{split_file}: names no sequence; restore the split file")
    return [_annotated_video(spec, root, name) for name in names]


def _annotated_video(spec: DatasetSpec, root: Path, name: str) -> Video:
    folder, annotations = root / spec.frames / name, root / spec.annotations / name
    if not folder.is_dir() or not (frames := list_images(folder)):
        raise UserError(f"{folder}: no frames; the split file names this sequence, so complete the download")
    if not annotations.is_dir():
        raise UserError(f"{annotations}: no annotations; the split file names this sequence, so complete the download")
    masks = {path.stem for path in annotations.glob("*.png")}
    stray = sorted(masks ^ {path.stem for path in frames})
    if stray:
        raise UserError(f"{annotations}: {len(masks)} annotations for {len(frames)} frames in {folder}; "
                        f"first without a partner: {stray[0]}")  # fmt: skip
    return FrameFolder(name, frames, LabelFolder(annotations))


def _own_videos(path: Path, *, flag: str) -> list[Video]:
    if path.is_file():
        return [VideoFile(path.stem, path)]
    if not path.is_dir():
        raise UserError(f"{flag} {path}: no such video file or folder of frames")
    if frames := list_images(path):
        return [FrameFolder(path.resolve().name, frames)]
    videos = [FrameFolder(p.name, images) for p in sorted(path.iterdir()) if p.is_dir() and (images := list_images(p))]
    if not videos:
        raise UserError(
            f"{flag} {path}: neither frames (jpg, png, ...) nor folders of frames; name a video file or folder"
        )
    return videos
