import itertools
import json
import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.objects.proposals import normalise_proposals, object_options
from model.objects.upsampling import UPSAMPLING, nearest
from model.segmenter import Segmenter
from tests.conftest import TINY_BACKBONE, snapshot
from tests.processes import ROOT, end, run_ranks, start_ranks
from utils import distributed
from utils.errors import UserError, run_main
from utils.export import export_block
from utils.png import read_label_png
from utils.report.tables import format_costs
from utils.run.checkpoints import hash_file, load_tensors


def test_every_frame_gets_a_png_at_its_own_size(davis, tmp_path, run_eval, capsys):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out)
    for name in ("ant", "bee"):
        assert sorted(path.name for path in (out / name).iterdir()) == [f"{index:05d}.png" for index in range(7)]
        with Image.open(out / name / "00006.png") as image:
            assert (image.mode, image.size) == ("P", (100, 60))
    scores = json.loads((out / "scores/davis/scores-val.json").read_text())
    assert scores["protocol"] == "davis"
    assert scores["provenance"]["block"] == {"training_free": True, "temperature": 3.0}
    assert len(scores["provenance"]["backbone"]["sha256"]) == 64
    assert (out / "scores/davis/global_results-val.csv").is_file()
    printed = capsys.readouterr().out
    for word in ("protocol davis", "ant", "clusters", "backbone", "clustering", "peak memory", "scoring:"):
        assert word in printed


def test_objects_are_ranked_and_described(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--protocol", "both", "--sequences", "ant")
    stats = json.loads((out / "stats/ant.json").read_text())
    assert {"objects", "upsample"} <= set(stats["seconds"])
    told = stats["proposals"]["paper"]
    assert [entry["id"] for entry in told] == list(range(1, stats["objects"] + 1))
    assert [entry["score"] for entry in told] == sorted((entry["score"] for entry in told), reverse=True)
    assert sum(entry["share"] for entry in told) == pytest.approx(1, abs=0.01)
    row = next(line.split() for line in format_costs(out).splitlines() if line.startswith("ant"))
    assert row[:4] == ["ant", "7", str(stats["clusters"]), str(stats["objects"])]
    assert float(row[-1]) == pytest.approx(sum(stats["seconds"].values()) / 7, abs=1e-3)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["proposals"] == "objects"


@pytest.mark.parametrize(("words", "expected"), [
    (["reassign"], {"reassign": True, "merge": False, "split": False, "join": False}),
    (["split", "merge", "split"], {"reassign": False, "merge": True, "split": True, "join": False}),
    (["split", "join", "reassign", "merge"], {"reassign": True, "merge": True, "split": True, "join": True}),
    (["objects"], {"reassign": True, "merge": True, "split": True, "join": True}),
    (["clusters"], None),
])  # fmt: skip
def test_the_steps_that_make_objects_are_chosen_one_by_one(words, expected):
    assert object_options(normalise_proposals(words)) == expected


def test_the_order_in_which_steps_are_named_does_not_matter(davis, tmp_path, run_eval):
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--save_path", tmp_path / "results")
    run_eval(*some, "--proposals", "split", "merge")
    before = snapshot(tmp_path)
    run_eval(*some, "--proposals", "merge", "split")
    assert snapshot(tmp_path) == before
    for words in (("objects", "merge"), ("reassign", "clusters")):
        with pytest.raises(UserError, match=f"--proposals {' '.join(words)}: (objects|clusters) "):
            run_eval(*some, "--proposals", *words, "--save_path", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_two_runs_at_a_time_in_one_folder_are_refused(davis, tmp_path, run_eval):
    """They would take each other's unfinished videos away."""
    out = tmp_path / "results"
    some = ("--davis_path", davis, "--training_free", "--save_path", out)
    hold = "import sys, pathlib\nfrom utils.files import lock_folder\n"
    hold += "with lock_folder(pathlib.Path(sys.argv[1]), flag=''): print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(out)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=f"--save_path .*results: .*process {other.pid} .*another folder"):
            run_eval(*some)
        other.communicate(b"\n")
    out.mkdir(exist_ok=True)
    (out / ".lock").write_text("a process that was killed")  # is no foreign file
    run_eval(*some)
    assert (out / "ant/00006.png").is_file()


def test_boundary_tokens_and_cached_features_are_passed_on(davis, tmp_path, run_eval, monkeypatch):
    """Boundary tokens of `find_objects` reach the upsampling frame by frame; statistics count cached features."""
    passed = []

    def upsample(labels, frame, boundary_tokens):
        passed.append(boundary_tokens.numpy().copy())
        return nearest(labels, frame)

    def with_boundary_tokens(labels, features, **options):
        return labels, np.arange(labels.size).reshape(labels.shape) % 5 == 0

    monkeypatch.setitem(UPSAMPLING, "guided", upsample)
    monkeypatch.setattr("model.segmenter.find_objects", with_boundary_tokens)
    for place, cached in (("first", 0), ("again", 7)):
        out = tmp_path / place
        run_eval("--davis_path", davis, "--training_free", "--sequences", "ant", "--feature_cache", tmp_path / "kept",
                 "--save_path", out)  # fmt: skip
        assert json.loads((out / "stats/ant.json").read_text())["cached"] == cached
    assert len(passed) == 14
    expected = np.arange(7 * passed[0].size) % 5 == 0
    assert (np.stack(passed[:7]).ravel() == expected).all()


def test_any_tau_gives_the_clusters_wanted(davis, tmp_path, run_eval):
    found = []
    for tau in (0.001, 50):
        out = tmp_path / str(tau)
        some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--clustering", "fast", "--tau", tau)
        run_eval(*some, "--clusters", 3, 9, "--save_path", out)
        found.append(json.loads((out / "stats/ant.json").read_text()))
    for stats in found:
        assert 3 <= stats["clusters"] <= 9
    assert found[0]["tau"] == found[1]["tau"]
    for wrong in ((9, 3), (9,), ("any", 3), (3, 9, 12)):
        with pytest.raises(UserError, match=f"--clusters {wrong[0]}.*: give two numbers"):
            run_eval(*some, "--clusters", *wrong, "--save_path", tmp_path / "none")


@pytest.mark.parametrize("proposals", ["objects", "clusters"])
def test_the_best_proposals_are_kept_and_nothing_else_changes(davis, tmp_path, run_eval, proposals):
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--tau", 0.05, "--protocol", "both",
            "--proposals", proposals)  # fmt: skip
    run_eval(*some, "--save_path", tmp_path / "all")
    run_eval(*some, "--save_path", tmp_path / "best", "--max_objects", 1)
    whole, best = (json.loads((tmp_path / name / "stats/ant.json").read_text()) for name in ("all", "best"))
    assert len(whole["proposals"]["paper"]) > 1
    assert best["proposals"] == {kind: told[:1] for kind, told in whole["proposals"].items()}
    labels, kept = (read_label_png(tmp_path / name / "paper/ant/00003.png") for name in ("all", "best"))
    assert np.array_equal(kept, np.where(labels == 1, labels, 0))


def test_a_tau_that_gives_too_few_clusters_is_replaced_with_a_note(davis, tmp_path, run_eval, capsys):
    """For whole objects; the paper's clusters keep it, and so does `any`."""
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "bee", "--tau", 50)
    taus = {}
    for name, more in {
        "objects": [], "any": ["--clusters", "any"], "paper": ["--proposals", "clusters"],
        "asked": ["--proposals", "clusters", "--clusters", 5, 21],
    }.items():  # fmt: skip
        run_eval(*some, *more, "--save_path", tmp_path / name)
        taus[name] = json.loads((tmp_path / name / "stats/ant.json").read_text())["tau"]
        said = "--tau 50: --clusters chose another in" in capsys.readouterr().err
        assert said == (taus[name] != 50)
    assert taus["any"] == taus["paper"] == 50
    assert taus["objects"] == taus["asked"] < 50


def test_half_precision_backbone(davis, tmp_path, monkeypatch, run_eval):
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16")
    monkeypatch.setattr("utils.device.CPU_FEATURES", tmp_path / "cpuinfo")
    for amp in ("bf16", "auto"):  # the second finds the results of the first
        run_eval(
            "--davis_path", davis, "--training_free", "--amp", amp, "--sequences", "ant", "--save_path", tmp_path / "r"
        )
    assert json.loads((tmp_path / "r/stats/ant.json").read_text())["clusters"] >= 1
    assert json.loads((tmp_path / "r/settings.json").read_text())["amp"] == "bf16"


@pytest.mark.parametrize("frames", [1, 2])
def test_own_video_of_a_few_frames(tmp_path, run_eval, frames):
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in range(frames):
        cv2.imwrite(str(folder / f"{index}.png"), np.random.default_rng(index).integers(0, 256, (50, 70, 3), np.uint8))
    run_eval("--dataset", "video", "--basepath", folder, "--training_free", "--save_path", tmp_path / "results")
    assert len(list((tmp_path / "results/clip").iterdir())) == frames
    capture = cv2.VideoCapture(str(tmp_path / "results/overlays/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FRAME_WIDTH) == 70
    assert not (tmp_path / "results/scores").exists()


def test_own_video_file(tmp_path, run_eval):
    writer = cv2.VideoWriter(str(tmp_path / "my.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for index in range(5):
        writer.write(np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    run_eval(
        "--dataset", "video", "--basepath", tmp_path / "my.mp4", "--training_free", "--save_path", tmp_path / "out"
    )
    assert sorted(p.name for p in (tmp_path / "out/my").iterdir()) == [f"{index:05d}.png" for index in range(5)]


def test_motion_is_measured_read_or_left_out(davis, tmp_path, run_eval):
    flow, out = tmp_path / "flows", tmp_path / "results"
    run = [*("--davis_path", davis, "--training_free", "--sequences", "ant", "--protocol", "foreground")]
    scores = {}
    for motion in ("flow", "none"):
        run_eval(*run, "--save_path", out / motion, "--motion", motion)
        stats = json.loads((out / motion / "stats/ant.json").read_text())
        assert ("motion" in stats["seconds"]) == (motion == "flow")
        scores[motion] = stats["proposals"]["foreground"]
    assert all("motion" in entry for entry in scores["flow"])
    assert not any("motion" in entry for entry in scores["none"])
    with pytest.raises(UserError, match=r"--flow_path: .*00000\.flo"):
        run_eval(*run, "--save_path", out / "read", "--flow_path", flow)
    assert not (out / "read").exists()
    with pytest.raises(UserError, match="--flow_path: .*give --motion flow"):
        run_eval(*run, "--save_path", out / "read", "--flow_path", flow, "--motion", "none")
    (flow / "ant").mkdir(parents=True)
    for index in range(6):
        np.save(flow / f"ant/{index:05d}.npy", np.zeros((60, 100, 2), dtype=np.float32))
    run_eval(*run, "--save_path", out / "read", "--flow_path", flow)
    described = json.loads((out / "read/stats/ant.json").read_text())["proposals"]["foreground"]
    assert all(entry["motion"] == 1 for entry in described)  # nothing moves, so nothing is preferred
    before = (out / "read/stats/ant.json").stat().st_mtime_ns
    run_eval(*run, "--save_path", out / "read", "--flow_path", flow)
    assert (out / "read/stats/ant.json").stat().st_mtime_ns == before
    moving = np.zeros((60, 100, 2), dtype=np.float32)
    moving[20:40, 30:60] = 9
    np.save(flow / "ant/00003.npy", moving)
    with pytest.raises(UserError, match="ant .*flow .*--overwrite"):
        run_eval(*run, "--save_path", out / "read", "--flow_path", flow)


def test_trained_block_and_its_backbone(davis, tmp_path, run_train, run_eval, tiny_weights):
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 1)
    checkpoint = tmp_path / "run/last.pt"
    run_eval("--davis_path", davis, "--resume_path", checkpoint, "--save_path", tmp_path / "results")
    block = json.loads((tmp_path / "results/settings.json").read_text())["block"]
    assert block == {"training_free": False, "sha256": hash_file(checkpoint)}
    arguments = ["--davis_path", davis, "--resume_path", checkpoint, "--save_path", tmp_path / "other"]
    torch.manual_seed(99)
    torch.save(timm.create_model(TINY_BACKBONE, num_classes=0).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"last\.pt: .*give those as --dino_path"):
        run_eval(*arguments, "--dino_path", tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"--num_heads 4: .*last\.pt has 8; give that"):
        run_eval(*arguments, "--num_heads", 4)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device"),
            "error: while reading or writing: No space left on device; free space",
        ),
        (PermissionError(13, "Permission denied", "out/x"), "error: out/x: Permission denied; free space"),
        (UserError("two\nlines"), "error: two lines"),
    ],
)
def test_errors_of_user_and_system_are_one_line(error, line, capsys):
    def fail():
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_main(fail)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(line)


def kill_the_second_process_at_its_first_clusters() -> None:
    if os.environ["RANK"] == "1":
        Segmenter.cluster = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


def test_two_processes_share_the_videos_and_one_that_dies_loses_its_current_video_only(
    davis, tmp_path, tiny_network, run_eval
):
    """The second process is killed with a video begun; the same command again keeps what was done and goes on. Its
    results are those of one process. A note on both videos is printed once."""
    arguments = ["--davis_path", davis, "--training_free", "--tau", 50]
    run_eval(*arguments, "--save_path", tmp_path / "one")
    again = [*tiny_network, *arguments, "--save_path", tmp_path / "two"]
    prepare = kill_the_second_process_at_its_first_clusters
    first, second = start_ranks("eval", *again, folder=tmp_path, prepare=prepare)
    assert end(second) == -signal.SIGKILL
    assert end(first) != 0
    (done,) = (tmp_path / "two/stats").glob("*.json")
    written = done.stat().st_mtime_ns
    run_ranks("eval", *again, folder=tmp_path)
    assert done.stat().st_mtime_ns == written
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    run_ranks("eval", *again, "--overwrite", folder=tmp_path)
    notes = re.findall("--clusters chose .* videos", "".join((tmp_path / f"rank{n}").read_text() for n in range(2)))
    assert notes == ["--clusters chose another in 2 of 2 videos"]


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 8))
def test_videos_are_shared_out_evenly(lengths, processes):
    shares = distributed.divide_by_cost(lengths, processes)
    assert sorted(itertools.chain(*shares)) == list(range(len(lengths)))
    for share in shares:
        assert [lengths[index] for index in share] == sorted((lengths[index] for index in share), reverse=True)
    loads = [sum(lengths[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_real_video_has_the_clusters_and_j_once_measured(shared, tmp_path, run_eval):
    """Each eighth frame of car-shadow, training-free: 11 clusters, J 61.7; rounding moves them a little."""
    data, part = shared / "data/davis17_dev", tmp_path / "DAVIS"
    for folder in ("JPEGImages/480p/car-shadow", "Annotations_unsupervised/480p/car-shadow"):
        (part / folder).mkdir(parents=True)
        for path in sorted((data / folder).iterdir())[::8]:
            (part / folder / path.name).symlink_to(path)
    (part / "ImageSets/2017").mkdir(parents=True)
    (part / "ImageSets/2017/val.txt").write_text("car-shadow\n")
    weights = shared / "weights/dinov2_vits14_fp16.pth"
    run_eval("--config", ROOT / "configs/dev8_dinov2_s14.yaml", "--davis_path", part, "--ratio", 2,
             "--backbone", "vit_small_patch14_dinov2.lvd142m", "--dino_path", weights, "--resolution", 280, 490,
             "--training_free", "--protocol", "davis", "--upsampling", "nearest", "--proposals", "clusters",
             "--save_path", tmp_path / "results")  # fmt: skip
    found = json.loads((tmp_path / "results/scores/davis/scores-val.json").read_text())
    assert 8 <= found["sequences"]["car-shadow"]["proposals"] <= 14
    assert found["global"]["J-Mean"] == pytest.approx(0.617, abs=0.04)
    assert found["global"]["F-Mean"] == pytest.approx(0.525, abs=0.04)


def test_tau_is_that_of_the_checkpoint_unless_it_is_given(davis, tmp_path, run_train, run_eval, capsys):
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--init", "identity", "--eval_freq", 4)
    content = load_tensors(tmp_path / "run/last.pt")
    export_block(tmp_path / "run/last.pt", tmp_path / "block.safetensors")
    old = old_checkpoint(content, tmp_path / "old.pt")
    for number, (flags, tau, note) in enumerate((
        (["--resume_path", tmp_path / "run/last.pt"], content["tau_auto"], "last.pt"),
        (["--resume_path", tmp_path / "block.safetensors"], content["tau_auto"], "block.safetensors"),
        (["--resume_path", tmp_path / "run/last.pt", "--tau", "0.9"], 0.9, None),
        (["--resume_path", old], 1.0, "old.pt holds none"),
        (["--training_free"], 1.0, None),
    )):  # fmt: skip
        capsys.readouterr()
        run_eval("--davis_path", davis, "--sequences", "ant", *flags, "--save_path", tmp_path / str(number))
        assert json.loads((tmp_path / str(number) / "settings.json").read_text())["tau"] == tau
        said = re.findall("note: tau .*", capsys.readouterr().err)
        assert len(said) == (note is not None)
        assert not said or note in said[0]


def old_checkpoint(content, path):
    torch.save({key: value for key, value in content.items() if key != "tau_auto"}, path)
    return path


def test_the_contact_sheet_shows_a_limited_number_of_videos(davis, tmp_path, run_eval, monkeypatch, capsys):
    """Its rows are in memory until the end of a run, however many videos that has."""
    some = ["--davis_path", davis, "--training_free", "--save_path"]
    run_eval(*some, tmp_path / "one", "--sequences", "ant")
    monkeypatch.setattr("data.overlays.SHEET_VIDEOS", 1)
    run_eval(*some, tmp_path / "both")
    one, both = (cv2.imread(str(tmp_path / name / "contact_sheet.png")) for name in ("one", "both"))
    assert one.shape == both.shape
    assert "contact_sheet.png (the first 1 of 2 videos)" in capsys.readouterr().out
