"""Write the pages of a report: `index.html`, which lists the videos, and `report/`, which holds everything else.

<folder>/index.html                       the page to open, from the disk, without a server
<folder>/report/video.html                the player of one video
<folder>/report/videos/<video>/           its frames as JPEG, its masks and figures in data.js
<folder>/report/report.json               which results are shown

HTML, CSS and JavaScript lie in `page/` and are copied, both pages with the head in head.html; what differs between
reports is data.js.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from tqdm import tqdm

from utils.errors import UserError
from utils.files import replace_folder, write_atomically, write_object
from utils.names import natural_key
from utils.progress import log_line
from utils.report.encode import ABOUT, DATA, PICTURES, About, compute_digest, read_about, write_video
from utils.report.jpegs import KEPT, choose_pixels
from utils.report.place import INDEX, MARKER, REPORT, check_report_folder, identify_results
from utils.report.results import Results, choose_main_protocol
from utils.report.sources import Source
from utils.scoring.bootstrap import LEVEL
from utils.scoring.protocols import PROTOCOLS
from utils.scoring.tables import Scores
from utils.visual import make_distinct_colours

PAGE = Path(__file__).parent / "page"
VIDEO = "video.html"
VIDEOS = f"{REPORT}/videos"
LABELS = {"frame": "Frame", "truth": "Ground truth", "masks": "Masks"}


def write_report(
    path: Path, sources: Iterable[Source], *, folder: Path | None = None, scores_path: Path | None = None, flag: str
) -> Path:
    """Write the report of a folder of results, or complete it: a video that has not changed is left as it is.

    Videos that were reported before and still have results stay in the report. One whose about.json is damaged counts
    as not reported: it is written again if it is among the sources, and else left out, with a note.

    Args:
        path: the folder of results.
        sources: the videos to show.
        folder: where the report goes; with the results if not given.
        scores_path: the folder below which their scores lie; with the results if not given.
        flag: the option that gave `folder`, for error messages.

    Returns:
        The page to open.

    Raises:
        UserError: `folder` holds another report; or as `write_video`.
    """
    folder, results, sources = folder or path, Results(path, scores_path), list(sources)
    check_report_folder(folder, [path], flag=flag)
    write_object(folder / MARKER, {"results": identify_results(folder, [path])})
    _remove_outdated_videos(folder, results)
    earlier, pixels = _read_abouts(folder), plan_pixels(folder, sources)
    for source in tqdm(sources, "report", unit="video", leave=False, disable=None):
        digest = compute_digest(source, results, pixels=pixels)
        if source.name in earlier and earlier[source.name].digest == digest:
            continue
        with replace_folder(folder / VIDEOS / source.name) as partial:
            write_video(partial, source, results, pixels=pixels, digest=digest)
    if folder == path:
        shutil.rmtree(path / KEPT, ignore_errors=True)  # the report has them now
    abouts = _read_abouts(folder)
    if lost := sorted({path.parent.name for path in (folder / VIDEOS).glob(f"*/{ABOUT}")} - abouts.keys()):
        log_line(f"note: {folder / VIDEOS}: {', '.join(lost)} left out; {ABOUT} is damaged or of an older version")
    return _write_pages(folder, _describe_report(results, abouts))


def plan_pixels(folder: Path, sources: Sequence[Source]) -> int:
    """Plan the pixels of every frame of the report in `folder`, with these videos beside those that it shows."""
    earlier = _read_abouts(folder)
    counts = [earlier[name].frames for name in earlier.keys() - {source.name for source in sources}]
    return choose_pixels([*counts, *(len(source.frame_names) for source in sources)])


def refuse_to_lose_frames(folder: Path, *, flag: str) -> None:
    """Refuse a folder whose report shows frames, before a report without frames takes its place.

    Args:
        flag: the option that gave `folder`, for the error message.

    Raises:
        UserError: see above.
    """
    if next((folder / VIDEOS).glob("*/00000.jpg"), None):
        raise UserError(f"{flag} {folder}: its report shows frames; give --frames too, or choose another folder for "
                        "masks alone")  # fmt: skip


def write_comparison(
    folder: Path, results: Sequence[Path], names: Sequence[str], *, columns: list[dict[str, Any]],
    values: dict[str, dict[str, float]], facts: list[list[str]], notes: list[str], sort: str,
    descending: bool,
) -> Path:  # fmt: skip
    """Write a report that shows two folders of results beside each other, made of the reports of both.

    Args:
        results: folders A and B, both with a report.
        names: the videos to show, in any order.
        columns: of the list of videos, see `_describe_columns`.
        values: video -> key of a column -> value.
        facts: [name, text, small print] of each figure at the top.
        notes: lines below these.
        sort, descending: key of the column by which videos are sorted at first, and whether its largest come first.

    Raises:
        UserError: a report is missing, is of other frames than the other one, or `folder` holds something else.
    """
    check_report_folder(folder, results, flag="--html")
    for path in results:
        if not (path / MARKER).is_file():
            raise UserError(f"{path}: has no report; {_mend(path)}")
    abouts = {name: _read_comparable(results, name) for name in names}
    write_object(folder / MARKER, {"results": identify_results(folder, results)})
    for name in tqdm(names, "report", unit="video", leave=False, disable=None):
        with replace_folder(folder / VIDEOS / name) as partial:
            _copy_videos(partial, results, name, abouts[name])
    labels = [f"{side}: {path}" for side, path in zip("AB", results, strict=True)]
    videos = []
    for name in names:
        shown = [{"label": LABELS[picture], "file": f"{picture}.jpg"} for picture in _shared_pictures(abouts[name])]
        shown += [{"label": f"Masks of {side}", "file": f"masks_{side.lower()}.jpg"} for side in "AB"]
        videos.append({"name": name, "pictures": shown, "values": values[name], "data": ["a.js", "b.js"]})
    return _write_pages(folder, {
        "title": "Comparison", "runs": labels, "facts": facts, "notes": [*labels, *notes], "columns": columns,
        "sort": {"key": sort, "descending": descending}, "videos": videos,
        "settings": _compare_settings([Results(path).settings for path in results]),
    })  # fmt: skip


def _read_comparable(results: Sequence[Path], name: str) -> About:
    """Read what A's report keeps of a video, after checking that B's report shows the same frames of it.

    Raises:
        UserError: a report lacks the video, or the frames differ.
    """
    abouts = [read_about(path / VIDEOS / name) for path in results]
    for path, about in zip(results, abouts, strict=True):
        if about is None:
            file = path / VIDEOS / name / ABOUT
            raise UserError(f"{file}: missing, damaged or of an older version; {_mend(path)}")
    first, second = (about.names for about in abouts)
    if first != second:
        both = zip(first, second, strict=False)  # of other lengths, perhaps
        differing = next(((f"frame {a}", f"frame {b}") for a, b in both if a != b), None)
        a, b = differing or (f"{len(first)} frames", f"{len(second)} frames")
        raise UserError(f"{name}: {a} in {results[0]} but {b} in {results[1]}; compare results of the same frames")
    return abouts[0]


def _shared_pictures(about: About) -> list[str]:
    """List the small pictures that do not depend on the masks."""
    return [picture for picture in PICTURES[:2] if picture in about.pictures]


def _copy_videos(folder: Path, results: Sequence[Path], name: str, about: About) -> None:
    """Copy the frames that A's report shows of a video, and the masks and data of both.

    Raises:
        UserError: a report lacks a file.
    """
    shared = [f"{picture}.jpg" for picture in _shared_pictures(about)]
    if "frame" in about.pictures:
        shared += [f"{index:05d}.jpg" for index in range(len(about.names))]
    wanted = [(results[0], file, file) for file in shared]
    for side, path in zip("ab", results, strict=True):
        wanted += [(path, DATA, f"{side}.js"), (path, "masks.jpg", f"masks_{side}.jpg")]
    for path, file, copy in wanted:
        source = path / VIDEOS / name / file
        if not source.is_file():
            raise UserError(f"{source}: missing; remove the folder it lay in, then {_mend(path)}")
        shutil.copyfile(source, folder / copy)


def _mend(results: Path) -> str:
    """Say how the report of a folder of results is made again."""
    return f"run eval.py again, or python -m utils.report --results {results} --html {results} --frames DIR"


# ------------------------------------------------------------------ the list of videos


def _describe_report(results: Results, abouts: dict[str, About]) -> dict[str, Any]:
    """Describe what index.html shows: figures at the top, columns and values of every video, settings."""
    scored = {name: results.read_scores(name) for name in abouts}
    protocols = [name for name in PROTOCOLS if any(name in scores for scores in scored.values())]
    main = choose_main_protocol(set(protocols))
    columns = _describe_columns(protocols, main)
    videos = []
    for name, about in abouts.items():
        seconds, proposals = results.read_stats(name)
        values = {"frames": about.frames} | _list_values(scored[name], main)
        values |= {} if seconds is None else {"proposals": len(proposals), "seconds": seconds}
        pictures = [{"label": LABELS[picture], "file": f"{picture}.jpg"} for picture in about.pictures]
        videos.append({
            "name": name, "pictures": pictures, "values": values, "data": [DATA], "attention": about.attention,
        })  # fmt: skip
    used = {key for video in videos for key in video["values"]}
    path = os.path.normpath(results.path)
    return {
        "title": Path(path).name or path, "runs": [], "videos": videos,
        "columns": [column for column in columns if column["key"] in used],
        "facts": _list_facts(scored, main, videos), "notes": _list_notes(scored, protocols, main),
        "sort": {"key": "name", "descending": False}, "settings": _list_settings(results.settings),
    }  # fmt: skip


def _describe_columns(protocols: list[str], main: str | None) -> list[dict[str, Any]]:
    """Describe the columns of the list of videos: key of the value, head, its meaning, and the kind of number."""
    columns = []
    if main:
        meaning = f"protocol {main}: {PROTOCOLS[main].meaning}"
        hints = {"J": "region IoU", "F": "boundary F-measure", "J&F": "mean of J and F"}
        columns += [{"key": key, "label": key, "hint": f"{hint}; {meaning}", "kind": "percent"}
                    for key, hint in hints.items()]  # fmt: skip
        columns.append({
            "key": "gap", "label": "Gap", "kind": "points",
            "hint": "identity gap: J&F with the best assignment of every frame minus J&F with one assignment",
        })  # fmt: skip
    for name in protocols:
        measure = PROTOCOLS[name].scores.HEADLINE.removesuffix("-Mean")
        if name != main:
            hint = f"protocol {name}: {PROTOCOLS[name].meaning}"
            columns.append({"key": name, "label": f"{measure} {name}", "hint": hint, "kind": "percent"})
    return [
        *columns,
        {"key": "proposals", "label": "Proposals", "hint": "number of proposals", "kind": "count"},
        {"key": "frames", "label": "Frames", "hint": "number of frames", "kind": "count"},
        {"key": "seconds", "label": "Seconds", "hint": "to segment the video, all stages", "kind": "seconds"},
    ]


def _list_values(scores: dict[str, Any], main: str | None) -> dict[str, float]:
    """List the scores of a video by column; those that it lacks are left out."""
    values = {}
    if main in scores and scores[main].j:
        found = scores[main]
        values |= {"J": found.j_mean, "F": found.f_mean, "J&F": (found.j_mean + found.f_mean) / 2}
        values |= {"gap": found.identity.gap} if found.identity else {}
    for name in scores.keys() - {main}:
        if not hasattr(PROTOCOLS[name].scores, "pooled"):
            total, weight = scores[name].measures()[PROTOCOLS[name].scores.HEADLINE]
            values |= {name: total / weight} if weight else {}
    return values


def _list_facts(scored: dict[str, dict[str, Any]], main: str | None, videos: list[dict]) -> list[list[str]]:
    """List the figures at the top, [name, text, small print]: means of the data set, and its size."""
    facts = []
    if main:
        scores = Scores(main, tuple(each[main] for each in scored.values() if main in each))
        summary = scores.summary()
        interval = scores.interval("J&F-Mean")
        known = [(key, summary[f"{key}-Mean"]) for key in ("J&F", "J", "F") if not math.isnan(summary[f"{key}-Mean"])]
        facts += [[key, f"{100 * value:.1f}", ""] for key, value in known]
        if facts and interval:
            facts[0][2] = f"{LEVEL:.0%} interval {100 * interval.low:.1f} to {100 * interval.high:.1f}"
        gap = scores.sequences and PROTOCOLS[main].scores.total_row(scores).get("gap")
        facts += [["Identity gap", f"{100 * gap:.1f}", ""]] if gap is not None else []
    frames = sum(video["values"]["frames"] for video in videos)
    facts.append(["Videos", str(len(videos)), f"{frames} frames"])
    timed = [video["values"] for video in videos if "seconds" in video["values"]]
    if timed:
        seconds = sum(values["seconds"] for values in timed)
        each = seconds / max(sum(values["frames"] for values in timed), 1)
        facts.append(["Seconds a frame", f"{each:.2f}", f"{seconds:.0f} s in all"])
    return facts


def _list_notes(scored: dict[str, dict[str, Any]], protocols: list[str], main: str | None) -> list[str]:
    """List the lines below the title: by which protocols the results were scored, and what these mean."""
    if not protocols:
        return ["Not scored: there is no ground truth, or the results were not scored."]
    notes = [f"{name}: {PROTOCOLS[name].meaning}" for name in protocols]
    if without := [name for name, scores in scored.items() if main and main not in scores]:
        notes.append(f"Not scored: {', '.join(without)}")
    return notes


def _list_settings(settings: dict[str, Any]) -> list[list[str]]:
    """List [name, value] of every setting, nested ones with their path as name."""
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += [[f"{key} {name}", text] for name, text in _list_settings(value)]
        elif value is not None:
            found.append([key, " ".join(map(str, value)) if isinstance(value, list) else str(value)])
    return found


def _compare_settings(both: list[dict[str, Any]]) -> list[list[str]]:
    """List [name, value] of the settings in which A and B differ."""
    first, second = (dict(_list_settings({k: v for k, v in each.items() if k != "origin"})) for each in both)
    differing = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    return [[name, f"A: {first.get(name, 'none')}  B: {second.get(name, 'none')}"] for name in differing]


# ------------------------------------------------------------------ files


def _write_pages(folder: Path, data: dict[str, Any]) -> Path:
    """Copy the pages, write what they show, and write index.html last; return its path."""
    for video in data["videos"]:  # bytes of the file's name, so that any name can be opened
        video["url"] = quote(os.fsencode(video["name"]), safe="")
    text = f"const REPORT = {json.dumps({**data, 'palette': make_distinct_colours().tolist()})};\n"
    with write_atomically(folder / REPORT / DATA) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for file in PAGE.iterdir():
        if file.suffix != ".html":
            with write_atomically(folder / REPORT / file.name) as temporary:
                shutil.copyfile(file, temporary)
    _write_page(VIDEO, folder / REPORT / VIDEO, to_files="")
    _write_page(INDEX, folder / INDEX, to_files=f"{REPORT}/")
    return folder / INDEX


def _write_page(name: str, path: Path, *, to_files: str) -> None:
    """Write a page with its head; `to_files` leads from it to the other files."""
    head = Template((PAGE / "head.html").read_text(encoding="utf-8")).substitute(folder=to_files)
    with write_atomically(path) as temporary:
        temporary.write_text(
            Template((PAGE / name).read_text(encoding="utf-8")).substitute(head=head), encoding="utf-8"
        )


def _remove_outdated_videos(folder: Path, results: Results) -> None:
    """Remove the videos of a report whose results are gone."""
    for about in (folder / VIDEOS).glob(f"*/{ABOUT}"):
        if not (results.predictions / about.parent.name).is_dir():
            shutil.rmtree(about.parent)


def _read_abouts(folder: Path) -> dict[str, About]:
    """Read what a report keeps of its videos, in natural order of their names; those that are damaged are left out."""
    names = sorted((path.parent.name for path in (folder / VIDEOS).glob(f"*/{ABOUT}")), key=natural_key)
    return {name: about for name in names if (about := read_about(folder / VIDEOS / name))}
