import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import train as train_program
from data.clips import ReadingLimits
from model.training import step
from model.training.monitor import Monitor, compare_maps
from tests.conftest import TINY_BACKBONE, moving_disk
from tests.model.inputs import make_network
from tests.processes import run_ranks
from tests.utils.test_events import read_events
from utils.config import settings_from
from utils.device import choose_device
from utils.errors import UserError
from utils.run.checkpoints import load_tensors


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_run_logs_and_keeps_what_it_should(davis, tmp_path, run_train, capsys):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 2, "--eval_freq", 2, "--batch_size", 2)
    assert {path.name for path in out.iterdir()} == {
        "last.pt", "previous.pt", "step_0000002.pt", "step_0000004.pt", "log.jsonl", "tensorboard",
    }  # fmt: skip
    log = log_of(out)
    assert [record["step"] for record in log] == [0, 1, 2, 3, 4]
    assert {"loss", "loss_semantic", "loss_motion", "lr", "attention_entropy", "grad_norm", "data_wait_share",
            "clips_per_second", "bad_frames", "epoch"} <= log[1].keys()  # fmt: skip
    assert [record["step"] for record in log if "clusters_per_clip" in record] == [0, 2, 4]
    assert all(-1 <= record["mirror_agreement"] <= 1 for record in log[::2])
    before, after = ([log[step][name] for name in ("mirror_agreement", "clusters_per_clip")] for step in (0, 4))
    changed = f"from {before[0]:.2f} to {after[0]:.2f}, the clusters a clip from {before[1]:.1f} to {after[1]:.1f};"
    assert changed in capsys.readouterr().err
    assert log[1]["lr"] == pytest.approx(1e-5)
    assert 1e-6 < log[4]["lr"] < 3e-6
    events = read_events(out / "tensorboard")
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    for name in ("clip/clusters", "clip/attention"):
        assert [image.step for image in events.Images(name)] == [0, 2, 4]
    content = load_tensors(out / "last.pt")
    assert content["step"] == 4
    assert content["tau_auto"] == log[4]["tau_auto"] == log[4]["distance_q16"] > 0
    assert not any("encoder" in key or "backbone" in key for key in content["blocks"])
    assert content["config"]["batch_size"] == 2
    assert content["backbone"]["name"] == TINY_BACKBONE


def test_without_the_monitor_only_steps_are_logged(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--lr", 1e-3]
    run_train(*common, "--output_path", tmp_path / "off")
    run_train(*common, "--output_path", tmp_path / "on", "--eval_freq", 1)
    assert [record["step"] for record in log_of(tmp_path / "off")] == [1, 2, 3, 4]
    assert not any("clusters_per_clip" in record for record in log_of(tmp_path / "off"))
    assert not read_events(tmp_path / "off/tensorboard").Tags()["images"]
    off, on = (load_tensors(tmp_path / name / "last.pt") for name in ("off", "on"))
    assert "tau_auto" in on
    assert "tau_auto" not in off
    same(off["blocks"], on["blocks"])  # neither measuring nor drawing changes what is trained


@pytest.mark.parametrize("extra", [[], ["--amp", "bf16"], ["--amp", "fp16"]])
def test_a_resumed_run_ends_bit_for_bit_like_one_never_stopped(davis, tmp_path, run_train, extra):
    common = ["--basepath", davis, "--save_freq", 2, "--num_train_steps", 4, "--lr", 1e-3, *extra]
    run_train(*common, "--output_path", tmp_path / "whole")
    run_train(*common, "--output_path", tmp_path / "parts", "--resume_path", tmp_path / "whole/step_0000002.pt")
    whole, parts = (load_tensors(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    same(whole["blocks"], parts["blocks"])
    for index, state in whole["optimizer"]["state"].items():
        same(state, parts["optimizer"]["state"][index])
    assert log_of(tmp_path / "parts")[0]["loss"] == log_of(tmp_path / "whole")[2]["loss"]


def test_resuming_in_place_cuts_the_log_at_the_checkpoint(davis, tmp_path, run_train):
    out = tmp_path / "run"
    common = ["--basepath", davis, "--output_path", out, "--save_freq", 2, "--eval_freq", 4]
    run_train(*common)
    run_train(*common, "--resume_path", out / "step_0000002.pt")
    assert [record["step"] for record in log_of(out)] == [0, 1, 2, 3, 4]


def test_overwrite_starts_anew(davis, tmp_path, run_train):
    out = tmp_path / "run"
    run_train("--basepath", davis, "--output_path", out, "--save_freq", 1)
    run_train("--basepath", davis, "--output_path", out, "--num_train_steps", 2, "--overwrite")
    assert [record["step"] for record in log_of(out)] == [1, 2]
    assert sorted(path.name for path in out.glob("*.pt")) == ["last.pt", "step_0000002.pt"]


@pytest.mark.parametrize(("lr", "expected"), [(1, [1, 0.8, 0.6, 0.4, 0.2]), (0.1, [0.1] * 5)])
def test_the_learning_rate_falls_as_a_cosine(lr, expected):
    """From --lr to --min_lr; it never rises."""
    flags = ["--lr", str(lr), "--min_lr", "0.2", "--num_train_steps", "12"]
    settings = settings_from(vars(train_program.make_parser().parse(flags)), step.TrainSettings)
    assert [step.learning_rate(number, settings) for number in (0, 4, 6, 8, 12)] == pytest.approx(expected)


def test_queries_are_drawn_anew_at_every_step(davis, tmp_path, run_train, monkeypatch):
    drawn, compute = [], step.compute_losses

    def record(network, frames, queries, settings, **options):
        drawn.append(tuple(queries.tolist()))
        return compute(network, frames, queries, settings, **options)

    monkeypatch.setattr(step, "compute_losses", record)
    run_train("--basepath", davis, "--output_path", tmp_path / "run")
    assert len(set(drawn)) == 4


def test_training_learns(davis, tmp_path, run_train):
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 40, "--lr", 1e-2,
              "--init", "identity", "--num_workers", 1)  # fmt: skip
    losses = [record["loss"] for record in log_of(tmp_path / "run")]
    assert np.mean(losses[-8:]) < 0.85 * np.mean(losses[:4])


def test_several_processes_are_not_put_on_one_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="--device cuda:0: .*give --device cuda, or one process"):
        choose_device("cuda:0")
    assert choose_device("cpu").type == "cpu"


NO_DROPOUT = ["--drop", 0, "--attn_drop", 0]


def test_accumulation_is_the_larger_batch(davis, tmp_path, run_train):
    """Without dropout, two forward passes of two clips give the gradient of one of four."""
    common = ["--basepath", davis, "--num_train_steps", 1, "--init", "identity", *NO_DROPOUT]
    run_train(*common, "--batch_size", 4, "--output_path", tmp_path / "whole")
    run_train(*common, "--batch_size", 2, "--accumulate", 2, "--output_path", tmp_path / "parts")
    whole, parts = (log_of(tmp_path / name)[0] for name in ("whole", "parts"))
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)


def test_init_path_takes_weights_only(davis, tmp_path, run_train):
    run_train("--basepath", davis, "--output_path", tmp_path / "a", "--lr", 1e-2)
    run_train("--basepath", davis, "--output_path", tmp_path / "b", "--init_path", tmp_path / "a/last.pt",
              "--num_train_steps", 1, "--lr", 1e-12, "--min_lr", 0, "--weight_decay", 0)  # fmt: skip
    first, second = (load_tensors(tmp_path / name / "last.pt") for name in "ab")
    assert second["step"] == 1
    for key, value in first["blocks"].items():
        torch.testing.assert_close(second["blocks"][key], value, rtol=0, atol=1e-9)


def test_weight_decay_is_on_matrices_only(tiny_weights):
    args = train_program.make_parser().parse(["--backbone", TINY_BACKBONE, "--dino_path", str(tiny_weights)])
    network = train_program.make_network(args, None)
    optimizer = step.make_optimizer(network, lr=1.0, weight_decay=0.1)
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    names = {id(p): name for name, p in network.blocks.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {name for name in names.values() if
                                                         name.endswith("weight") and "norm" not in name}  # fmt: skip


def faults(davis, out):
    return [
        (["--basepath", davis, "--resolution", "48", "81"], r"--resolution 48 81: .*nearest are 48 80 and 48 96"),
        ([], "--basepath is missing"),
        (["--basepath", davis, "--output_path", out], "--output_path .*run: .*--resume_path"),
        (["--basepath", davis, "--resume_path", out / "last.pt"], "step 4 of 4.*--num_train_steps"),
        (
            ["--basepath", davis, "--resume_path", out / "last.pt", "--seed", 1],
            "--seed 1: .*0; give that",
        ),
        (["--basepath", davis, "--resume_path", out / "weights.pt"], r"weights\.pt: .*give it as --init_path"),
        (["--basepath", davis, "--resume_path", out / "last.pt", "--num_t", 2], "--num_t 2: .*1; give that"),
        (["--basepath", davis, "--resume_path", out / "none.pt"], r"none\.pt: .*check the path"),
        (["--basepath", davis, "--device", "cuda:99"], "--device cuda:99: .*give --device cpu"),
        (["--basepath", davis, "--resume_path", out / "last.pt", "--resolution", 64, 96, "--num_train_steps", 9],
         "--resolution .64, 96.: .*.48, 80.; give that"),
        (["--basepath", davis, "--init_path", out / "last.pt", "--num_heads", 4], "--num_heads 4: .* has 8"),
        (["--basepath", davis, "--resume_path", out / "step_0000004.pt", "--num_train_steps", 9, "--output_path",
          out.parent / "third"], "--output_path .*third: .*--resume_path"),
        (["--basepath", davis, "--resume_path", out / "future.pt", "--num_train_steps", 9], r"future\.pt: .*format 2"),
        (["--basepath", davis, "--num_workers", -1], "--num_workers: -1 "),
        (["--basepath", davis, "--attn_drop", 1.5], "--attn_drop: 1.5 .*at least 0 and below 1"),
        (["--basepath", davis / "none"], "--basepath .*none: "),
        (["--basepath", davis, "--output_path", out / "last.pt/x"], "--output_path .*pt/x: .*choose another folder"),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(17))
def test_faults(finished_run, tmp_path, run_train, number):
    davis, finished = finished_run
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    content = load_tensors(out / "last.pt")
    torch.save({"blocks": content["blocks"]}, out / "weights.pt")
    torch.save({**content, "format": 2}, out / "future.pt")
    shutil.copytree(out, tmp_path / "third")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    arguments, message = faults(davis, out)[number]
    with pytest.raises(UserError, match=message):
        run_train("--output_path", tmp_path / "other", *arguments)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_loss_that_is_not_finite_stops_the_run(davis, tmp_path, run_train, monkeypatch):
    monkeypatch.setattr(step, "motion_loss", lambda *_, **__: torch.tensor(float("nan")))
    with pytest.raises(UserError, match="step 1: the loss .*lower --lr"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run")
    assert not (tmp_path / "run/last.pt").exists()


def test_a_gradient_that_is_not_finite_stops_the_run(davis, tmp_path, run_train, monkeypatch):
    monkeypatch.setattr(step, "motion_loss", lambda attn, *_, **__: (attn * 0).sum().sqrt())  # 0, slope inf * 0
    with pytest.raises(UserError, match="step 1: the gradient .*lower --lr"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run")


@pytest.mark.parametrize("everything", [False, True])
def test_too_many_unreadable_frames_stop_the_run(davis, tmp_path, run_train, everything):
    for path in (davis / "JPEGImages/480p").glob("*/*"):
        if everything or path.parent.name == "ant":
            path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"\.jpg: .*restore the files"):
        run_train("--basepath", davis, "--output_path", tmp_path / "run", "--num_train_steps", 50)


def test_two_processes_train_like_one_with_the_double_batch(davis, tmp_path, tiny_training, run_train):
    """With gloo: the same clips, losses and weights."""
    common = ["--basepath", davis, "--num_train_steps", 2, "--lr", 1e-3, "--eval_freq", 2, *NO_DROPOUT]
    run_train(*common, "--batch_size", 2, "--output_path", tmp_path / "one")
    run_ranks("train", *tiny_training, *common, "--batch_size", 1, "--output_path", tmp_path / "two", folder=tmp_path)
    assert len(list((tmp_path / "two/tensorboard").iterdir())) == 1  # of the first process
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [record["step"] for record in two] == [0, 1, 2]
    for first, second in zip(one[1:], two[1:], strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    one, two = (load_tensors(tmp_path / name / "last.pt")["blocks"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5)


def test_the_number_of_processes_may_change_between_stop_and_start(davis, tmp_path, tiny_training, run_train):
    """Two steps of one process, then two of two: as four of one."""
    common = ["--basepath", davis, "--num_train_steps", 4, "--save_freq", 2, "--lr", 1e-3, *NO_DROPOUT]
    run_train(*common, "--batch_size", 2, "--output_path", tmp_path / "one")
    (tmp_path / "two").mkdir()
    shutil.copy(tmp_path / "one/step_0000002.pt", tmp_path / "two/last.pt")
    some = [*tiny_training, *common, "--batch_size", 1, "--output_path", tmp_path / "two", "--resume_path", "auto"]
    run_ranks("train", *some, folder=tmp_path)
    assert [record["step"] for record in log_of(tmp_path / "two")] == [3, 4]
    one, two = (load_tensors(tmp_path / name / "last.pt")["blocks"] for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5)


def test_a_block_that_has_collapsed_agrees_with_nothing(tiny_weights):
    network = make_network(tiny_weights)
    network.init_blocks("identity", temperature=8.0)
    clip = torch.from_numpy(np.stack([moving_disk(index, size=(64, 96), seed=0)[0] for index in range(6)]))
    measured = Monitor(network, [clip.permute(0, 3, 1, 2)], tau=1e6).measure(network)
    assert measured["clusters_per_clip"] == 1
    assert measured["mirror_agreement"] == 0
    assert measured["clusters_per_clip_auto"] > 1
    assert measured["mirror_agreement_auto"] > 0


def test_maps_of_a_single_label_do_not_agree():
    single = np.full((2, 3, 4), 2, np.int32)  # without tokens of other numbers
    assert compare_maps(single, single) == 0


def test_a_run_that_goes_on_knows_the_frames_that_could_not_be_read(davis, tmp_path, run_train, monkeypatch, capsys):
    monkeypatch.setattr("data.clips.LIMITS", ReadingLimits(max_bad_share=0.9))
    frames = sorted((davis / "JPEGImages/480p/ant").iterdir())
    for frame in frames:
        frame.write_text("no image")
    common = ["--basepath", davis / "JPEGImages", "--output_path", tmp_path / "run", "--resume_path", "auto",
              "--gap", 1]  # fmt: skip
    run_train(*common, "--num_train_steps", 6, "--seed", 1)
    met = load_tensors(tmp_path / "run/last.pt")["bad_frames"]
    assert len(met) == log_of(tmp_path / "run")[-1]["bad_frames"] > 1
    Path(met[0]).write_bytes(next((davis / "JPEGImages/480p/bee").iterdir()).read_bytes())  # mended in between
    capsys.readouterr()
    run_train(*common, "--num_train_steps", 12, "--seed", 1)
    warned = capsys.readouterr().err
    assert not any(f"{file}: unreadable" in warned for file in met)
    after = load_tensors(tmp_path / "run/last.pt")["bad_frames"]
    assert met[0] not in after
    assert set(met[1:]) <= set(after)
    assert log_of(tmp_path / "run")[6]["bad_frames"] >= len(met) - 1


def test_a_run_of_the_unfused_optimizer_goes_on(davis, tmp_path, run_train):
    common = ["--basepath", davis, "--output_path", tmp_path / "run"]
    run_train(*common, "--num_train_steps", 2)
    content = load_tensors(tmp_path / "run/last.pt")
    assert all(group["fused"] for group in content["optimizer"]["param_groups"])
    for group in content["optimizer"]["param_groups"]:
        group["fused"] = None
    torch.save(content, tmp_path / "run/last.pt")
    run_train(*common, "--num_train_steps", 3, "--resume_path", "auto")
    content = load_tensors(tmp_path / "run/last.pt")
    assert all(group["fused"] for group in content["optimizer"]["param_groups"])


@pytest.fixture
def validated(davis, monkeypatch):
    """The arguments of train.py for a data set whose two validation videos a run ends with."""
    monkeypatch.setattr(train_program, "VALIDATED", ("davis17u",))
    split = davis / "ImageSets/2017"
    (split / "train.txt").write_text((split / "val.txt").read_text())
    return ["--dataset", "davis17u", "--basepath", davis, "--init", "identity", "--temperature", 6, "--eval_freq", 4]


def test_a_run_on_data_with_validation_videos_ends_with_their_figures(validated, tmp_path, run_train, capsys):
    run_train(*validated, "--output_path", tmp_path / "run")
    assert re.search(
        r"\ntraining changed .*; 2 validation videos, .* 3 thresholds: J of objects [\d.]+ training-free and [\d.]+ "
        r"trained \([+-][\d.]+ \[-?[\d.]+, -?[\d.]+\]\)\n$",
        capsys.readouterr().err,
    )
    last = log_of(tmp_path / "run")[-1]
    assert last["step"] == 4
    assert 0 <= last["validation_j"] <= 1


@pytest.mark.parametrize("off", [["--eval_freq", 0], ["--num_t", 2]])
def test_a_run_is_not_validated_without_a_monitor_or_with_several_blocks(validated, tmp_path, run_train, off):
    run_train(*validated, "--output_path", tmp_path / "run", *off)
    assert not any("validation_j" in record for record in log_of(tmp_path / "run"))


def test_a_run_that_cannot_be_validated_is_done_all_the_same(validated, tmp_path, run_train, capsys):
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("ant\n")
    run_train(*validated, "--output_path", tmp_path / "run")
    said = capsys.readouterr().err
    assert "\ndone: " in said
    assert said.endswith("; not validated: 1 of the validation videos have annotated objects; at least 2 are needed\n")


def test_a_validation_that_is_stopped_is_named(validated, tmp_path, run_train, monkeypatch, capsys):
    encode = train_program.encode_video

    def encode_and_stop(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return encode(*args, **options)

    monkeypatch.setattr(train_program, "encode_video", encode_and_stop)
    run_train(*validated, "--output_path", tmp_path / "run")
    assert capsys.readouterr().err.endswith("--blocks FILE measures the block\n")
    assert "validation_j" not in log_of(tmp_path / "run")[-1]
