import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import eval as eval_program
from data.decoding import PyAVReader
from model.objects.proposals import normalise_proposals, object_options
from model.objects.upsampling import nearest
from model.segmenter import Segmenter
from tests.conftest import TINY_BACKBONE, snapshot
from tests.processes import ROOT, end, start_ranks, torchrun
from utils import distributed
from utils.errors import UserError, run_main
from utils.export import export_block
from utils.pictures import read_picture
from utils.png import read_label_png
from utils.report.tables import format_costs, format_scores
from utils.run.checkpoints import hash_file, load_checkpoint, load_tensors
from utils.video import write_video


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
    for word in ("protocol davis", "ant", "clusters", "backbone", "attention", "stage 1", "Peak memory", "scoring:"):
        assert word in printed


def test_objects_are_ranked_and_told(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--protocol", "both", "--sequences", "ant")
    stats = json.loads((out / "stats/ant.json").read_text())
    assert {"objects", "upsample"} <= set(stats["seconds"])
    told = stats["proposals"]["paper"]
    assert [entry["id"] for entry in told] == list(range(1, stats["objects"] + 1))
    assert [entry["score"] for entry in told] == sorted((entry["score"] for entry in told), reverse=True)
    assert sum(entry["share"] for entry in told) == pytest.approx(1, abs=0.01)
    assert f"| ant | 7 | {stats['clusters']} | {stats['objects']} |" in format_costs(out)
    settings = json.loads((out / "settings.json").read_text())
    assert settings["proposals"] == "objects"


@pytest.mark.parametrize(("words", "expected"), [
    (["reassign"], {"reassign": True, "merge": False, "split": False}),
    (["split", "merge", "split"], {"reassign": False, "merge": True, "split": True}),
    (["split", "reassign", "merge"], {"reassign": True, "merge": True, "split": True}),
    (["objects"], {"reassign": True, "merge": True, "split": True}),
    (["clusters"], None),
])  # fmt: skip
def test_pieces_of_making_objects_are_chosen_one_by_one(words, expected):
    assert object_options(normalise_proposals(words)) == expected


def test_the_same_pieces_in_another_order_are_the_same_results(davis, tmp_path, run_eval):
    some = ("--davis_path", davis, "--training_free", "--sequences", "ant", "--save_path", tmp_path / "results")
    run_eval(*some, "--proposals", "split", "merge")
    before = snapshot(tmp_path)
    run_eval(*some, "--proposals", "merge", "split")
    assert snapshot(tmp_path) == before
    for words in (("objects", "merge"), ("reassign", "clusters")):
        with pytest.raises(UserError, match=f"--proposals {' '.join(words)}: (objects|clusters) stands by itself"):
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
        with pytest.raises(
            UserError, match=f"--save_path .*results: another run writes there .process {other.pid} on "
        ):
            run_eval(*some)
        other.communicate(b"\n")
    out.mkdir(exist_ok=True)
    (out / ".lock").write_text("a process that was killed")  # is no foreign file
    run_eval(*some)
    assert (out / "ant/00006.png").is_file()


def test_boundary_tokens_and_cached_features_are_passed_on(davis, tmp_path, run_eval, monkeypatch):
    """What `find_objects` doubts reaches the upsampling, frame by frame; statistics tell what came from the cache."""
    doubts = []

    def upsample(labels, frame, boundary_tokens):
        doubts.append(boundary_tokens.numpy().copy())
        return nearest(labels, frame)

    def with_doubt(labels, features, **options):
        return labels, np.arange(labels.size).reshape(labels.shape) % 5 == 0

    monkeypatch.setitem(eval_program.UPSAMPLING, "guided", upsample)
    monkeypatch.setattr("model.segmenter.find_objects", with_doubt)
    for place, cached in (("first", 0), ("again", 7)):
        out = tmp_path / place
        run_eval("--davis_path", davis, "--training_free", "--sequences", "ant", "--feature_cache", tmp_path / "kept",
                 "--save_path", out)  # fmt: skip
        assert json.loads((out / "stats/ant.json").read_text())["cached"] == cached
    assert len(doubts) == 14
    expected = np.arange(7 * doubts[0].size) % 5 == 0
    assert (np.stack(doubts[:7]).ravel() == expected).all()


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


def test_a_tau_that_gives_no_clusters_to_speak_of_is_replaced_and_said(davis, tmp_path, run_eval, capsys):
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


def test_half_precision_backbone(davis, tmp_path, run_eval):
    run_eval(
        "--davis_path", davis, "--training_free", "--amp", "bf16", "--sequences", "ant", "--save_path", tmp_path / "r"
    )
    assert json.loads((tmp_path / "r/stats/ant.json").read_text())["clusters"] >= 1


def test_identity_over_time_and_limit_of_proposals(davis, tmp_path, run_eval):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--protocol", "both", "--tau", "1e-4",
             "--proposals", "clusters")  # fmt: skip
    stats = json.loads((out / "stats/ant.json").read_text())
    assert stats["clusters"] > 20
    official = np.stack([read_label_png(path) for path in sorted((out / "davis/ant").iterdir())])
    every = np.stack([read_label_png(path) for path in sorted((out / "paper/ant").iterdir())])
    assert official.max() == 20
    assert every.max() > 20
    assert every.min() == 1
    np.testing.assert_array_equal(official, np.where(every <= 20, every, 0))
    for protocol in ("davis", "paper"):
        scores = json.loads((out / protocol / "scores" / protocol / "scores-val.json").read_text())
        assert scores["protocol"] == protocol
    table = format_scores([out]).splitlines()
    assert table[0] == f"| J / F / J&F | {out}, davis, val | {out}, paper, val |"
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        "ant",
        "bee",
        "mean of sequences",
        "**mean of objects**",
    ]
    assert table[-1].count(f"{100 * scores['global']['J-Mean']:.1f} / {100 * scores['global']['F-Mean']:.1f}") >= 1
    assert f"| ant | 7 | {stats['clusters']} | 0 |" in format_costs(out)


def test_more_than_255_clusters(davis, tmp_path, run_eval):
    """Under `paper` they become 16-bit PNGs, and are scored like any."""
    for folder in ("JPEGImages", "Annotations_unsupervised"):
        source = davis / folder / "480p/ant"
        for path in sorted(source.iterdir()):
            for copy in range(1, 4):
                shutil.copy(path, source / f"{int(path.stem) + 7 * copy:05d}{path.suffix}")
    for seed, path in enumerate(sorted((davis / "JPEGImages/480p/ant").iterdir())):
        noise = np.random.default_rng(seed).integers(0, 256, (60, 100, 3), dtype=np.uint8)
        cv2.imwrite(str(path), noise)
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--sequences", "ant", "--training_free", "--temperature", 8, "--tau", "1e-6",
             "--proposals", "clusters", "--save_path", out, "--protocol", "paper")  # fmt: skip
    assert json.loads((out / "stats/ant.json").read_text())["clusters"] > 255
    assert max(read_label_png(path).max() for path in (out / "ant").iterdir()) > 255
    scores = json.loads((out / "scores/paper/scores-val-selected.json").read_text())
    assert scores["sequences"]["ant"]["proposals"] > 255


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


def test_frames_are_decoded_once_for_the_network_and_once_for_pixels(davis, tmp_path, run_eval, monkeypatch):
    """The contact sheet takes four frames more, the report all; sizes come from headers."""
    decoded = Counter()

    def count_and_read(source):
        decoded[Path(source).relative_to(davis).parts[0]] += 1
        return read_picture(source)

    monkeypatch.setattr("data.frames.read_picture", count_and_read)
    run_eval("--davis_path", davis, "--sequences", "ant", "--training_free", "--save_path", tmp_path / "out")
    assert decoded == {"JPEGImages": 7 + 7 + 4 + 7}


def test_a_video_file_is_decoded_once_for_overlay_and_contact_sheet(tmp_path, run_eval, monkeypatch):
    clip = write_video(
        tmp_path / "my.mp4", [np.full((48, 64, 3), 40 * n, np.uint8) for n in range(5)], rate=Fraction(9)
    )
    calls = Counter()
    for name in ("scan", "decode"):
        plain = getattr(PyAVReader, name)
        monkeypatch.setattr(PyAVReader, name, lambda *a, n=name, f=plain: calls.update([n]) or f(*a))
    run_eval("--basepath", clip, "--training_free", "--save_path", tmp_path / "out")
    assert calls == {"scan": 1, "decode": 4}  # for the network, pixels, overlay with contact sheet, and report


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
    with pytest.raises(UserError, match=r"--flow_path: .*00000\.flo is missing"):
        run_eval(*run, "--save_path", out / "read", "--flow_path", flow)
    assert not (out / "read").exists()
    with pytest.raises(UserError, match="--flow_path: has no effect beside --motion none"):
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
    with pytest.raises(UserError, match="another version of ant .*flow .*--overwrite"):
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
    with pytest.raises(UserError, match="trained on other weights of test_vit"):
        run_eval(*arguments, "--dino_path", tmp_path / "other.pth")
    with pytest.raises(UserError, match="--num_heads 4: the block of .* has 8"):
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


def test_two_processes_share_out_the_videos(davis, tmp_path, tiny_network, run_eval):
    arguments = ["--davis_path", davis, "--training_free"]
    run_eval(*arguments, "--save_path", tmp_path / "one")
    torchrun("eval.py", *tiny_network, *arguments, "--save_path", tmp_path / "two")
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def kill_the_second_process_at_its_first_clusters() -> None:
    if os.environ["RANK"] == "1":
        Segmenter.cluster = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_loses_its_current_video_only(davis, tmp_path, tiny_network, run_eval):
    """The second process is killed with a video begun; the same command again keeps what was done and goes on."""
    arguments = ["--davis_path", davis, "--training_free"]
    run_eval(*arguments, "--save_path", tmp_path / "one")
    again = [*tiny_network, *arguments, "--save_path", tmp_path / "two"]
    prepare = kill_the_second_process_at_its_first_clusters
    first, second = start_ranks("eval", *again, folder=tmp_path, prepare=prepare)
    assert end(second) == -signal.SIGKILL
    assert end(first) != 0
    assert len(list((tmp_path / "two/stats").glob("*.json"))) <= 1
    for process in start_ranks("eval", *again, folder=tmp_path):
        assert end(process) == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 8))
def test_videos_are_shared_out_evenly(lengths, processes):
    shares = distributed.divide_by_cost(lengths, processes)
    assert sorted(itertools.chain(*shares)) == list(range(len(lengths)))
    for share in shares:
        assert [lengths[index] for index in share] == sorted((lengths[index] for index in share), reverse=True)
    loads = [sum(lengths[index] for index in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths, default=0)


def test_real_video_has_the_clusters_and_j_once_measured(shared, tmp_path, run_eval):
    """car-shadow, training-free: 7 clusters and J 76.9 where it was measured; rounding moves them a little."""
    weights = shared / "weights/dinov2_vits14_fp16.pth"
    run_eval("--config", ROOT / "configs/dev8_dinov2_s14.yaml", "--davis_path", shared / "data/davis17_dev",
             "--backbone", "vit_small_patch14_dinov2.lvd142m", "--dino_path", weights, "--resolution", 280, 490,
             "--training_free", "--sequences", "car-shadow", "--protocol", "davis", "--upsampling", "nearest",
             "--proposals", "clusters", "--save_path", tmp_path / "results")  # fmt: skip
    found = json.loads((tmp_path / "results/scores/davis/scores-val-selected.json").read_text())
    assert 5 <= found["sequences"]["car-shadow"]["proposals"] <= 10
    assert found["global"]["J-Mean"] == pytest.approx(0.769, abs=0.04)
    assert found["global"]["F-Mean"] == pytest.approx(0.626, abs=0.04)


# Other data sets and protocols


def test_all_protocols_of_a_dataset_side_by_side(davis, tmp_path, run_eval, capsys):
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--protocol", "all", "foreground", "oracle")
    printed = capsys.readouterr().out
    assert printed.count("written to ") == 6
    assert "side by side (davis: J&F-Mean, paper: J&F-Mean, slots: fg_ari_video, tracks: AP" in printed
    assert sorted(path.name for path in (out / "paper/scores").iterdir()) == ["oracle", "paper", "slots", "tracks"]
    masks = read_label_png(out / "foreground/ant/00003.png")
    assert set(np.unique(masks)) <= {0, 1}


def test_a_split_without_annotation_gives_an_archive_for_the_server(davis, tmp_path, run_eval, capsys):
    shutil.rmtree(davis / "Annotations_unsupervised")
    (davis / "ImageSets/2019").mkdir()
    (davis / "ImageSets/2019/test-dev.txt").write_text("bee\n")
    out = tmp_path / "results"
    run_eval("--davis_path", davis, "--training_free", "--save_path", out, "--split", "test-dev")
    assert "for the evaluation server" in capsys.readouterr().out
    with zipfile.ZipFile(out / "davis17u-test-dev.zip") as archive:
        assert archive.namelist() == [f"bee/{index:05d}.png" for index in range(7)]


def test_anybodys_predictions_are_scored_without_a_backbone(davis, tmp_path, monkeypatch, capsys):
    """DAVIS-16 from the same tree, two of its videos by number, no network and no weights."""
    shutil.move(davis / "Annotations_unsupervised", davis / "Annotations")
    (davis / "ImageSets/2016").mkdir()
    (davis / "ImageSets/2016/val.txt").write_text("nothing\nant\nbee\n")
    predictions = shutil.copytree(davis / "Annotations/480p", tmp_path / "predictions")
    command = ["--dataset", "DAVIS2016", "--davis_path", davis, "--predictions", predictions, "--videos", "1:"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, command), "--workers", "1"])
    eval_program.main()
    assert "J-Mean of frames 100.0" in capsys.readouterr().out
    assert (tmp_path / "outputs/scores/predictions/scores/foreground/global_results-val-1-.csv").is_file()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--save_path", str(tmp_path / "told")])
    eval_program.main()
    assert f"written to {tmp_path / 'told/scores/foreground'}" in capsys.readouterr().out
    assert sorted(path.name for path in predictions.iterdir()) == ["ant", "bee"]


def test_tau_auto_is_that_of_the_checkpoint(davis, tmp_path, run_train, run_eval):
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--init", "identity")
    content = load_tensors(tmp_path / "run/last.pt")
    common = ["--davis_path", davis, "--resume_path", tmp_path / "run/last.pt"]
    run_eval(*common, "--tau", "auto", "--save_path", tmp_path / "auto")
    assert json.loads((tmp_path / "auto/settings.json").read_text())["tau"] == content["tau_auto"]
    export_block(tmp_path / "run/last.pt", tmp_path / "block.safetensors")
    assert load_checkpoint(tmp_path / "block.safetensors")["tau_auto"] == content["tau_auto"]
    for arguments, message in (
        (["--training_free"], "--tau auto: there is no checkpoint; give a number"),
        (["--resume_path", old_checkpoint(content, tmp_path / "old.pt")], "--tau auto: .*old.pt holds none"),
    ):
        with pytest.raises(UserError, match=message):
            run_eval("--davis_path", davis, *arguments, "--tau", "auto", "--save_path", tmp_path / "none")


def old_checkpoint(content, path):
    torch.save({key: value for key, value in content.items() if key != "tau_auto"}, path)
    return path
