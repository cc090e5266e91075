"""The benchmarks start and measure something: a smoke test, not a timed one."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.sprites.writer import write_sprites
from model.objects.motion import Motion
from model.segmenter import key_frame_indices
from model.training.targets import ObjectMaps
from model.training.validation import EncodedVideo
from tests.benchmarks import gpu, true_targets, yardstick
from tests.benchmarks import inference as benchmark
from tests.benchmarks import run as benchmark_run
from tests.benchmarks import scoring as benchmark_scoring
from tests.benchmarks import training as benchmark_training
from utils.errors import UserError
from utils.png import read_label_png

ROOT = Path(__file__).resolve().parents[2]


def columns_of(name):
    """Of a table in assets/, to which the commands beside it append."""
    with (ROOT / "assets" / name).open() as file:
        return next(csv.reader(file))


def test_a_table_with_other_columns_is_refused(tmp_path):
    benchmark.write_csv(tmp_path / "a.csv", [{"x": 1}])
    benchmark.write_csv(tmp_path / "a.csv", [{"x": 2}])
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    with pytest.raises(UserError, match=r"--csv .*a\.csv: .*name another file"):
        benchmark.write_csv(tmp_path / "a.csv", [{"y": 1}])


@pytest.fixture
def run_benchmark(monkeypatch):
    """Run a benchmark and its measurements in this process; `test_faults.py` tests the process of each measurement."""

    def run(module, *arguments) -> None:
        if hasattr(module, "run_in_own_process"):
            monkeypatch.setattr(module, "run_in_own_process", lambda work, *given: work(*given))
        monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
        module.main()

    return run


@pytest.fixture(scope="module")
def small_sprites(tmp_path_factory) -> Path:
    """A tree of two short videos, to be read."""
    folder = tmp_path_factory.mktemp("sprites")
    return write_sprites(folder, height=64, num_train=1, num_val=1, num_frames=9, workers=1, progress=False)


def test_benchmark_of_scoring(run_benchmark, capsys):
    run_benchmark(benchmark_scoring, "--frames", 1, "--workers", 1)
    assert "per pair" in capsys.readouterr().out


def test_benchmark_of_inference(small_sprites, tmp_path, run_benchmark, monkeypatch, capsys):
    """Every engine on a generated video."""
    (frames,) = (small_sprites / "JPEGImages/480p").glob("val*")
    monkeypatch.setenv("STARTED_BY", str(tmp_path))
    sizes = ["--resolution", 56, 56, "--num_frames", 12, "--ratio", 3, "--repeats", 1]
    run_benchmark(benchmark, "--basepath", frames, *sizes, "--csv", tmp_path / "out.csv", "--neighbour")
    assert not processes_with(f"STARTED_BY={tmp_path}")  # the neighbours least of all
    assert "exact gives 100.000 % of the tokens the label that plain gives" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = [name for engine in ("exact", "fast")
            for name in (engine, benchmark.BESIDE.format(engine), benchmark.RATIO.format(engine))]  # fmt: skip
    assert [row["engine"] for row in rows] == ["plain", *ours]
    assert list(rows[0]) == columns_of("benchmark.csv")
    assert {row["key_frames"] for row in rows} == {"4"}
    assert all(float(row["backbone"]) > 0 for row in rows)
    assert all((float(row["peak_gb"] or 0) > 0) == (not row["engine"].endswith("quiet")) for row in rows)


def processes_with(entry):
    """Numbers of the processes that have `entry` in their environment; where the system tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if entry.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def gone(pid):
    """Whether a process ends within seconds."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_the_neighbour_has_a_session_of_its_own_and_ends_with_the_measurement():
    started = []

    def measure():
        with benchmark.busy_neighbour() as neighbour:
            started.append(neighbour)
            assert os.getsid(neighbour.pid) == neighbour.pid != os.getsid(0)
            assert neighbour.poll() is None
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()
    assert started[0].poll() == -signal.SIGKILL


STARTER = """
import os, signal, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], start_new_session=True)
print(process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_neighbour_ends_with_a_benchmark_that_is_killed():
    done = subprocess.run(
        [sys.executable, "-c", STARTER, benchmark.SPIN], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert gone(int(done.stdout))


def test_ratios_of_a_stage_that_took_no_time_are_left_out():
    quiet = dict.fromkeys(benchmark.STAGES, 2.0) | {
        "decode": 0.0,
        "clustering / backbone": 1.0,
        "peak_gb": 1.0,
        "frames": 3,
    }
    row = benchmark.ratios("x", quiet, quiet | {"objects": 3.0})
    assert (row["decode"], row["objects"], row["write"]) == ("", 1.5, 1.0)
    assert (row["engine"], row["frames"], row["peak_gb"]) == ("x", 3, "")


def test_benchmark_of_whole_runs(small_sprites, tmp_path, monkeypatch):
    """The stages of a run add up to its time, whether videos are segmented or all results are there."""
    flags = ["--config", str(ROOT / "configs/embedded.yaml"), "--basepath", str(small_sprites), "--workers", "1"]
    flags += ["--resolution", "64", "96"]
    cold, again = (benchmark_run.run_once(flags, tmp_path / "a folder" / "results") for _ in range(2))
    assert cold["backbone"] > 0 == again["backbone"]
    for seconds in (cold, again):
        parts = ("start", *benchmark_run.OF_VIDEOS, "rest", "scoring", "report", "exit")
        whole = sum(seconds[part] for part in parts) - seconds[benchmark_run.OVERLAPPED]
        assert whole == pytest.approx(seconds["wall"], abs=1e-6)
    (tmp_path / "filled").symlink_to(tmp_path / "a folder" / "results")
    runs = iter([cold, cold, cold, again])  # the first fills the cache
    monkeypatch.setattr(benchmark_run, "run_once", lambda *_: dict(next(runs)))
    monkeypatch.setattr(benchmark_run, "run_in_own_process", lambda work, *given: work(*given))
    rows = list(benchmark_run.measure(flags, tmp_path, repeats=1, neighbour=False))
    assert [row["run"] for row in rows] == list(benchmark_run.RUNS)
    for row in rows:
        assert row["wall / backbone alone"] == pytest.approx(row["wall"] / row["backbone alone"], rel=0.1)
    table = benchmark_run.make_table(rows)
    assert {len(line) for line in table} == {1 + len(rows)}
    assert "wall / backbone alone" in {line[0] for line in table}


def test_wrong_flags_of_whole_runs_are_refused_before_anything_is_measured(run_benchmark):
    with pytest.raises(UserError, match="--neighbor: .*--neighbour"):
        run_benchmark(benchmark_run, "--neighbor")


def test_rehearsal_of_the_checks_of_a_gpu(small_sprites, tmp_path, run_benchmark, capsys):
    (frames,) = (small_sprites / "JPEGImages/480p").glob("val*")
    sizes = ["--device", "cpu", "--grids", "4x4", "--num_frames", 3, "--steps", 1]
    run_benchmark(gpu, "--basepath", frames, *sizes, "--csv", tmp_path / "out.csv")
    printed = capsys.readouterr().out.splitlines()
    assert len(set(printed)) == len(printed)  # the precision tells rows apart
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    parity, speed = ([row for row in rows if (row["what"] == "parity") == wanted] for wanted in (True, False))
    assert [float(row["value"].split("by ")[-1].split()[0]) for row in parity] == [100, 100, 0, 0]
    assert [row["engine"] for row in speed] == ["plain", "exact", "fast"] * 2 + ["plain", "train.py", "train.py"]
    assert all(float(row["peak_gb"]) > 0 and 0 <= float(row["waits"]) <= 1 for row in speed)
    assert all(row["backbone"].endswith(" GB") for row in speed if row["what"] == "inference")


def test_the_checks_of_a_gpu_say_that_there_is_none(monkeypatch, run_benchmark):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match="--device cuda"):
        run_benchmark(gpu)


def test_time_of_kernels_that_overlap():
    assert gpu.measure_union(np.array([[5, 6], [0, 3], [1, 2], [2, 4.0]])) == 5
    assert gpu.measure_union(np.zeros((0, 2))) == 0


def test_benchmark_of_training(small_sprites, tmp_path, run_benchmark):
    """Both engines give the same losses."""
    some = ["--basepath", small_sprites, "--resolution", 64, 96, "--steps", 1]
    run_benchmark(benchmark_training, *some, "--csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        plain, ours = csv.DictReader(file)
    assert list(plain) == columns_of("benchmark_training.csv")
    for loss in ("semantic", "motion"):
        assert float(ours[loss]) > 0
        assert float(ours[loss]) == pytest.approx(float(plain[loss]), rel=1e-4, abs=2e-6)


def test_comparisons_of_the_benchmark_of_training():
    row = {"step": 2.0, "cpu": 2.0, "backbone": 1.0, "base_gb": 1.0, "peak_gb": 1.5}
    rows = {"plain": row | {"step": 3.0, "cpu": 4.0, "peak_gb": 2.0}, benchmark_training.PROGRAM: row,
            benchmark_training.COMPILED: row | {"step": 2.2}}  # fmt: skip
    first, second, third = benchmark_training.comparisons(rows)
    assert first == "a step of train.py takes 2.00 times its backbone"
    assert "1.50 times as fast as plain (2.00 times by seconds computed), in 0.75 of its memory" in second
    assert second.endswith("libraries and weights in 0.50")
    assert third == "train.py, compiled: 1.100 times the time, 1.000 times the computing"
    assert benchmark_training.comparisons({"plain": row}) == []


def test_growth(tmp_path):
    """What a sweep changes, and the picture of it."""
    args = benchmark.make_parser().parse_args(["--sweep", "frames", "tokens", "--num_frames", "12", "--ratio", "3"])
    points = list(benchmark.sweep_points(args))
    assert [point.num_frames for name, point in points if name == "frames"] == [6, 12, 24, 48]
    for name, point in points:
        frames = key_frame_indices(point.num_frames, point.ratio, point.max_key_frames)
        assert name == "tokens" or len(frames) == 4
        assert all(side % 8 == 0 for side in point.resolution)
    assert len({point.resolution for name, point in points if name == "tokens"}) == 4
    few = ["--sweep", "tokens", "key_frames", "--backbone", "x", "--num_frames", "12"]
    points_of_few = list(benchmark.sweep_points(benchmark.make_parser().parse_args(few)))
    assert all(side % 56 == 0 for name, point in points_of_few if name == "tokens" for side in point.resolution)
    assert len({(point.resolution, point.ratio) for _, point in points_of_few}) == len(points_of_few)
    rows = [
        {"sweep": name, "engine": "exact", "tokens": f"{point.resolution[0]}x{point.resolution[1]}", "key_frames": 4,
         "frames": point.num_frames, **dict.fromkeys(benchmark.STAGES, 1.0 * point.num_frames)}
        for name, point in points
    ]  # fmt: skip
    benchmark.draw(rows, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_the_yardstick_measures_blocks_beside_the_training_free_one(finished_run, tiny_network, run_benchmark, capsys):
    davis, run = finished_run
    run_benchmark(yardstick, *tiny_network, "--davis_path", davis, "--blocks", run / "last.pt", run / "last.pt")
    printed = capsys.readouterr().out
    assert printed.count("J of objects ") == 3
    blocks = r"^(?:training-free|\S+/last\.pt \(thresholds times [\d.]+\))\n  agreement [\d.]+$"
    assert len(re.findall(blocks, printed, re.MULTILINE)) == 3
    last = dict(line.split(", ", 1) for line in printed.splitlines()[-5:])
    assert last.keys() == {"agreement"} | {f"J of {kind}" for kind in yardstick.KINDS}
    before, after, difference, low, high = map(float, last["J of objects"].split(", "))
    assert difference == pytest.approx(after - before, abs=0.11)
    assert low <= difference <= high


def test_the_yardstick_compares_uses_of_motion(davis, tiny_network, run_benchmark, capsys):
    run_benchmark(yardstick, *tiny_network, "--davis_path", davis, "--ablate_motion")
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S.*)\n  agreement", printed, re.MULTILINE) == [
        "training-free", "motion in the ranking only", "without motion"
    ]  # fmt: skip
    assert printed.count("\nJ of foreground, ") == 2
    with pytest.raises(UserError, match="--ablate_motion: .*leave --blocks out"):
        run_benchmark(yardstick, *tiny_network, "--davis_path", davis, "--ablate_motion", "--blocks", "x.pt")


def test_motion_is_removed_in_two_steps():
    motion = Motion(np.ones((2, 3, 4), np.float32), np.ones((2, 3, 4), bool))
    video = EncodedVideo("ant", None, None, (3, 4), motion, None, [])
    ranking, without = (videos[0].motion for videos in yardstick.remove_motion([video]).values())
    assert ranking.evidence.all()
    assert not any(part.any() for part in (ranking.boundaries, without.evidence, without.boundaries))


def test_the_ground_truth_corrects_targets():
    maps = np.array([[[[0, 0, 1, 1]]], [[[0, 1, 1, 1]]]], np.int16)
    found = ObjectMaps(maps, np.array([[[True, False, True, False]]]))
    shares = np.array([[[[0, 1, 0.5, 0]]], [[[0, 0, 0.2, 0.05]]]])
    corrected = true_targets.correct_maps(found, shares)
    assert corrected.maps.tolist() == [[[[0, 2, 2, 1]]], [[[0, 2, 2, 1]]]]
    assert corrected.is_boundary.tolist() == [[[True, False, True, False]]]
    assert true_targets.correct_maps(found, shares[:0]) is found  # no object is annotated


def test_a_run_toward_corrected_targets(davis, tmp_path, tiny_training, run_benchmark, run_train):
    flags = [*tiny_training, "--basepath", davis, "--init", "identity", "--output_path", tmp_path / "run"]
    with pytest.raises(UserError, match="--targets none: .*add --targets objects"):
        run_benchmark(true_targets, *flags)
    run_benchmark(true_targets, *flags, "--targets", "objects", "--overwrite")
    with np.load(next((tmp_path / "run/targets/round_1").rglob("ant.npz"))) as content:
        paths = sorted((davis / "Annotations_unsupervised/480p/ant").iterdir())
        labels = np.stack([read_label_png(path) for path in paths])
        inside = measure_inside(labels > 0, content["maps"].shape[2:]) & ~content["is_boundary"]
        for one in content["maps"]:  # all tokens of the disk, and no other, have one label
            (label,) = np.unique(one[inside])
            assert not (one[measure_inside(labels == 0, one.shape[1:])] == label).any()
    with pytest.raises(UserError, match="corrected_by_ground_truth; .*start a new run"):
        run_train(*flags, "--targets", "objects", "--num_train_steps", 8, "--resume_path", "auto")
    with pytest.raises(UserError, match="no label PNG in Annotations_unsupervised or Annotations; give --basepath"):
        true_targets.find_annotation(tmp_path / "JPEGImages/480p/cat/00000.jpg")


def measure_inside(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Find the tokens (T, h, w) that masks (T, H, W) cover as a whole."""
    shares = [cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA) for mask in masks]
    return np.stack(shares) > 0.99
