"""Export the masks of a finished results folder: JSON of COCO or YouTube-VIS, cut-outs, binary masks.

    python -m data.export outputs/clip --format coco --output_path clip.json
    python -m data.export outputs/ytvis --format ytvis --video_ids YTVIS/valid.json --output_path results.json
    python -m data.export outputs/clip --format cutout --object best --output_path cutouts
    python -m data.export outputs/clip --format webm --object foreground --output_path videos
    python -m data.export outputs/clip --format binary --object 3 --output_path third

Nothing is overwritten. Cut-outs need the frames, which are read from where eval.py read them.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.masks import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.loading import load_videos
from data.registry import DATASETS, PAIRS
from data.videos import Video, compute_fingerprint
from utils.errors import UserError, run_main
from utils.files import create_folder, read_object, refuse_existing, write_atomically
from utils.flags.choices import BEST, BINARY, COCO, CUTOUT, OWN_VIDEO, WEBM, YTVIS
from utils.flags.masks import parse_args
from utils.mask_json import LabelledVideo, make_coco_dataset, make_ytvis_results
from utils.names import natural_key
from utils.png import find_pngs, read_label_png
from utils.predictions import FOREGROUND, locate_predictions, read_kinds
from utils.video import can_write_cut_outs, open_cut_out

DAMAGED = "run eval.py again into another folder"


class Finished:
    """A folder of finished results of eval.py.

    Args:
        path: the folder, `--save_path` of eval.py.

    Attributes:
        kinds: kinds of predictions in it, such as `davis`.
        stats: name of a video -> what eval.py recorded of it, in natural order.

    Raises:
        UserError: it is no such folder, is damaged, or no video in it is finished.
    """

    def __init__(self, path: Path):
        self.path = path
        if not (path / "settings.json").is_file():
            raise UserError(
                f"{path}: no results of eval.py; give a folder that eval.py wrote, with settings.json in it"
            )
        self.settings = read_object(path / "settings.json", mend=DAMAGED)
        self.kinds = read_kinds(self.settings, path / "settings.json", mend=DAMAGED)
        if not self.kinds:
            raise UserError(f"{path}/settings.json: names no kind of predictions; {DAMAGED}")
        files = sorted((path / "stats").glob("*.json"), key=lambda file: natural_key(file.stem))
        if not files:
            whole = path.parent if (path.parent / "stats").is_dir() else None
            mend = f"give the whole folder, {whole}" if whole else "let eval.py finish a video"
            raise UserError(f"{path}: no finished video; {mend}")
        self.stats = {file.stem: read_object(file, mend=DAMAGED) for file in files}

    def choose_kind(self, chosen: str | None) -> str:
        """Return the kind of predictions that has an object: `foreground`, or proposals for all others.

        Raises:
            UserError: the results do not have it.
        """
        if chosen == FOREGROUND:
            found = FOREGROUND if FOREGROUND in self.kinds else None
        else:
            found = next((kind for kind in self.kinds if kind != FOREGROUND), None)
        if found is None:
            wanted = FOREGROUND if chosen == FOREGROUND else "davis"
            raise UserError(f"{self.path}: holds {' and '.join(self.kinds)} alone, without "
                            f"{'the foreground' if chosen == FOREGROUND else 'proposals'}; run eval.py with "
                            f"--protocol {wanted}")  # fmt: skip
        return found

    def list_scores(self, video: str, kind: str) -> dict[int, float]:
        """List the score of each proposal of a video, by id."""
        try:
            entries = self.stats[video]["proposals"][kind]
            return {int(entry["id"]): float(entry["score"]) for entry in entries}
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self.path}/stats/{video}.json: lists no scores of {kind}; {DAMAGED}") from None

    def list_roots(self) -> dict[Path, list[str]]:
        """List the places that videos were read from: file or folder -> names of the videos."""
        roots: dict[Path, list[str]] = {}
        for name, stats in self.stats.items():
            if not isinstance(root := stats.get("root"), str):
                raise UserError(f"{self.path}/stats/{name}.json: does not say where the frames lie; run eval.py "
                                "on the video again, which adds that")  # fmt: skip
            roots.setdefault(Path(root), []).append(name)
        return roots

    def find_maps(self, video: str, kind: str) -> dict[str, Path]:
        """Find the label PNGs of a video: name of the frame -> file, in order."""
        folder = locate_predictions(self.path, self.kinds, kind) / video
        pngs, count = find_pngs(folder), self.stats[video].get("frames")
        if not pngs or len(pngs) != count:
            raise UserError(f"{folder}: {len(pngs)} label PNGs of {count} frames; {DAMAGED}")
        return pngs


# ------------------------------------------------------------------ JSON


def export_json(results: Finished, form: str, output: Path, *, video_ids: Path | None) -> None:
    """Write all proposals of all videos as one JSON file.

    Raises:
        UserError: `video_ids` does not describe a video, or not its frames.
    """
    kind = results.choose_kind(None)
    known = None if video_ids is None else read_video_ids(video_ids)
    names = tqdm(results.stats, unit="video", leave=False, disable=None)
    videos = (_open_labelled(results, kind, index, name, known, video_ids) for index, name in enumerate(names, 1))
    content = make_coco_dataset(videos) if form == COCO else make_ytvis_results(videos)
    with write_atomically(output) as temporary:
        temporary.write_text(json.dumps(content))


def _open_labelled(
    results: Finished, kind: str, number: int, name: str, known: dict[str, tuple[int, list[str]]] | None,
    source: Path | None,
) -> LabelledVideo:  # fmt: skip
    pngs = results.find_maps(name, kind)
    frames = list(pngs)
    if known is not None:
        number, frames = known.get(name, (0, []))
        lacking = next((frame for frame in frames if frame not in pngs), None)
        if not frames or lacking is not None:
            fault = f"{results.path} has no mask of its frame {name}/{lacking}" if frames else f"it has no video {name}"
            raise UserError(f"--video_ids {source}: {fault}; give the JSON of the split that eval.py segmented")
    maps = (read_label_png(pngs[frame]) for frame in frames)
    files = [f"{name}/{frame}.png" for frame in frames]
    return LabelledVideo(number, name, files, maps, results.list_scores(name, kind))


def read_video_ids(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Read the JSON of a split of YouTube-VIS: name of a video -> its id, and the names of its frames without ending.

    Raises:
        UserError: there is no such file, or its videos are not described as in YouTube-VIS.
    """
    if not path.is_file():
        raise UserError(f"--video_ids {path}: no such file; give the JSON of the split")
    found = {}
    try:
        for video in read_object(path, mend="download it again")["videos"]:
            files = [Path(file) for file in video["file_names"]]
            found[files[0].parent.name] = (int(video["id"]), [file.stem for file in files])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise UserError(
            f"--video_ids {path}: its videos have no id and file_names; give a JSON as of YouTube-VIS"
        ) from None
    return found


# ------------------------------------------------------------------ pictures


def export_pictures(results: Finished, form: str, output: Path, *, chosen: str) -> None:
    """Write a picture of one object for each frame of each video, `<video>/<frame>.png`, or for `webm` `<video>.webm`.

    Args:
        form: `binary`, 0 and 255; or `cutout` and `webm`, the frame with the object opaque, all else transparent black.
        chosen: `best`, `foreground`, or the id of a proposal.

    Raises:
        UserError: a video has no such object; there is no encoder for `webm`; for cut-outs, the frames are elsewhere or
            have changed.
    """
    kind, label = results.choose_kind(chosen), 1 if chosen in (BEST, FOREGROUND) else int(chosen)
    for name in results.stats:
        if label not in (scores := results.list_scores(name, kind)):
            raise UserError(f"--object {chosen}: {name} has {f'objects 1 to {max(scores)}' if scores else 'none'}; "
                            "give one of these")  # fmt: skip
    if form == WEBM and not can_write_cut_outs():
        raise UserError(f"--format {WEBM}: PyAV is missing or has no VP9; pip install av, or give --format {CUTOUT}")
    videos = open_videos(results) if form != BINARY else {}
    with create_folder(output, flag="--output_path") as folder:
        for name in results.stats:
            pngs, video = results.find_maps(name, kind), videos.get(name)
            if form == WEBM:
                with open_cut_out(
                    folder / f"{name}.webm", rate=video.frame_rate, pixel_aspect=video.pixel_aspect
                ) as write:
                    for _, picture in _draw_object(pngs, label, video, name):
                        write(picture)
                continue
            (folder / name).mkdir()
            for frame_name, picture in _draw_object(pngs, label, video, name):
                Image.fromarray(picture).save(folder / name / f"{frame_name}.png")


def _draw_object(pngs: dict[str, Path], label: int, video: Video | None, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and picture of each frame of a video: what `cut_out` makes, or without a video the mask, 0 and 255."""
    names, frames = (list(pngs), (None for _ in pngs)) if video is None else (video.frame_names, video.read())
    for frame_name, frame in zip(tqdm(names, name, leave=False, disable=None), frames, strict=True):
        mask = read_label_png(pngs[frame_name]) == label
        yield frame_name, mask * np.uint8(255) if frame is None else cut_out(frame.permute(1, 2, 0).numpy(), mask)


def cut_out(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Make all of a frame (H, W, 3) uint8 outside a mask (H, W) bool transparent and black: (H, W, 4) uint8."""
    return np.concatenate([frame * mask[..., None], mask[..., None] * np.uint8(255)], axis=2)


def open_videos(results: Finished) -> dict[str, Video]:
    """Open the videos of results where eval.py read them, by name.

    Raises:
        UserError: one was moved, or has changed since.
    """
    dataset, split = results.settings.get("dataset"), results.settings.get("split")
    if dataset not in DATASETS:
        raise UserError(f"{results.path}/settings.json: names no data set; {DAMAGED}")
    found = {}
    for root, names in results.list_roots().items():
        if not root.exists():
            raise UserError(f"{root}: the frames of {results.path} lay there and are gone; move them back, or run "
                            "eval.py on their new place")  # fmt: skip
        # With --annotations, the root of pairs holds the folders of frames itself.
        bare = dataset == PAIRS and not DATASETS[PAIRS].layout.has_split(root, split, annotated=False)
        layout = OWN_VIDEO if bare else dataset
        videos = load_videos(layout, root, split=None if bare else split, flag="",
                             sequences=None if layout == OWN_VIDEO else names, allow_damaged=True)  # fmt: skip
        found |= {video.name: video for video in videos if video.name in names}
        for name in names:
            if name not in found:
                raise UserError(f"{root}: has no video {name} any more, which {results.path} has; restore it")
            made_of = str(results.stats[name].get("video")).partition(", flow ")[0]
            if (now := compute_fingerprint(found[name])) != made_of:
                raise UserError(f"{root}: {name} is not what {results.path} was made of ({made_of}, now {now}); "
                                "restore it, or run eval.py again")  # fmt: skip
    return found


# ------------------------------------------------------------------ the command


def main() -> None:
    args = parse_args(__doc__)
    refuse_existing(args.output_path, flag="--output_path")
    results = Finished(args.results)
    if args.format in (COCO, YTVIS):
        export_json(results, args.format, args.output_path, video_ids=args.video_ids)
    else:
        export_pictures(results, args.format, args.output_path, chosen=args.object or BEST)
    print(args.output_path)


if __name__ == "__main__":
    run_main(main)
