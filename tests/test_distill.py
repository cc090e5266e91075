"""Distillation: targets keep what the teacher's keys say of each other, and a run ends in a file the backbone loads."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.backbone import build_backbone
from tests.conftest import TINY_BACKBONE, make_davis, moving_disk
from utils import distill, distill_data, distill_student
from utils.errors import UserError, run_main
from utils.logs import read_log
from utils.muon import Muon


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two folders as users have them: one of photos, one of clips."""
    root = tmp_path_factory.mktemp("images")
    for clip in range(3):
        for index in range(3):
            path = root / "clips" / f"clip{clip}" / f"{index:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), moving_disk(index, size=(60, 90), seed=clip)[0])
    (root / "photos").mkdir()
    for index in range(3):
        cv2.imwrite(str(root / "photos" / f"{index}.jpg"), moving_disk(index, size=(60, 90), seed=9 + index)[0])
    return root


@pytest.fixture
def run(images, tiny_weights, tmp_path, monkeypatch):
    """Run the program with a tiny teacher and student; the last of a flag wins."""
    for module in (distill, distill_data):
        monkeypatch.setattr(module, "SHARD_PAIRS", {"small": 2, "large": 2})
    monkeypatch.setattr(distill_data, "HELD_OUT_PAIRS", 2)
    monkeypatch.setattr(distill, "TOP_K", 3)

    def start(*arguments):
        base = [
            "--teacher", TINY_BACKBONE, "--teacher_path", tiny_weights, "--images", images / "photos", images / "clips",
            "--cache", tmp_path / "cache", "--cache_shards", 2, "--output_path", tmp_path / "run", "--small_grid", 2, 3,
            "--large_grid", 3, 4, "--embed_dim", 32, "--depth", 2, "--num_heads", 1, "--relation_heads", 2,
            "--num_train_steps", 3, "--batch_size", 4, "--queries", 4, "--log_every", 1, "--eval_every", 2,
            "--device", "cpu",
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["distill", *map(str, [*base, *arguments])])
        distill.main()
        return tmp_path / "run"

    return start


def test_a_run_ends_in_a_backbone(run, capsys):
    student = run() / "student.safetensors"
    assert "MB, for VisionTransformer" in capsys.readouterr().out
    backbone = build_backbone("embedded", weights=student)
    keys, _ = backbone(torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8))
    assert keys.shape == (1, 4 * 6, 32)
    assert torch.isfinite(keys).all()


def test_a_run_continues_with_what_it_has(run, capsys):
    folder = run()
    log = read_log(folder / "log.jsonl")
    assert {"key", "relation", "token"} <= set(log[1])
    assert any("held_sim_corr" in line for line in log)
    run("--resume_path", folder / "last.pt", "--num_train_steps", 5, "--lr", 2e-3)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 5
    assert "resumed with changes: num_train_steps 3 -> 5, lr 0.001 -> 0.002" in capsys.readouterr().out
    run("--resume_path", folder / "last.pt", "--num_train_steps", 5)
    assert "nothing left to train: at step 5" in capsys.readouterr().out


def test_a_stopped_run_ends_as_one_never_stopped(run, tmp_path, monkeypatch):
    steps = ("--num_train_steps", 7, "--large_share", 0.5)  # with 4 pairs to learn from: several epochs on both grids
    whole = run(*steps, "--output_path", tmp_path / "whole").parent / "whole"
    step_of = distill.train_step

    def stop_at_6(*arguments, step, **others):
        last = tmp_path / "run/last.pt"
        if step == 4:
            shutil.copy(last, tmp_path / "at_4.pt")
        if step == 6:  # as if step 4 had been the last one saved, though 6 are in the log
            (tmp_path / "at_4.pt").replace(last)
            raise KeyboardInterrupt
        return step_of(*arguments, step=step, **others)

    monkeypatch.setattr(distill, "train_step", stop_at_6)
    with pytest.raises(KeyboardInterrupt):
        run(*steps, "--save_minutes", 0)
    monkeypatch.setattr(distill, "train_step", step_of)
    stopped = run(*steps, "--resume_path", tmp_path / "run/last.pt")
    expected, outcome = (torch.load(folder / "last.pt", weights_only=True) for folder in (whole, stopped))
    assert outcome["step"] == 7
    assert outcome["streams"] == expected["streams"]
    assert max(stream["epoch"] for stream in outcome["streams"].values()) > 1
    for name, value in expected["student"].items():
        assert torch.equal(outcome["student"][name], value), name
    assert (stopped / distill.EXPORTED).read_bytes() == (whole / distill.EXPORTED).read_bytes()
    ends = [read_log(folder / "log.jsonl")[-1] for folder in (whole, stopped)]
    assert ends[0] == ends[1]
    losses = [line["step"] for line in read_log(stopped / "log.jsonl") if "key" in line]
    assert losses == [1, 2, 3, 4, 5, 6, 7]


def test_a_checkpoint_from_before_streams_and_hashes_continues(run):
    """Such as the one the embedded student came from."""
    folder = run()
    content = torch.load(folder / "last.pt", weights_only=True)
    del content["streams"], content["args"]["teacher_sha256"], content["args"]["overwrite"]
    torch.save(content, folder / "last.pt")
    run("--resume_path", folder / "last.pt", "--num_train_steps", 5)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 5


def test_a_run_is_not_written_over(run, tmp_path):
    folder = run()
    before = (folder / "last.pt").read_bytes()
    with pytest.raises(UserError, match=r"holds a run; continue it with --resume_path .*last.pt.*--overwrite"):
        run()
    assert (folder / "last.pt").read_bytes() == before
    run("--num_train_steps", 0)  # fills the cache; no run
    run("--num_train_steps", 2, "--overwrite")
    assert [line["step"] for line in read_log(folder / "log.jsonl") if "key" in line] == [1, 2]


def test_means_after_a_stop_between_two_lines_of_the_log_are_of_all_steps(run, tmp_path, monkeypatch):
    steps = ("--num_train_steps", 4, "--log_every", 4)
    whole = run(*steps, "--output_path", tmp_path / "whole").parent / "whole"
    step_of = distill.train_step

    def stop_at_3(*arguments, step, **others):
        if step == 3:
            raise KeyboardInterrupt
        return step_of(*arguments, step=step, **others)

    monkeypatch.setattr(distill, "train_step", stop_at_3)
    with pytest.raises(KeyboardInterrupt):
        run(*steps, "--save_minutes", 0)
    monkeypatch.setattr(distill, "train_step", step_of)
    run(*steps, "--resume_path", tmp_path / "run/last.pt")
    expected, found = (
        next(line for line in read_log(folder / "log.jsonl") if "key" in line) for folder in (whole, tmp_path / "run")
    )
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_share_a_folder(run, tmp_path, resume):
    folder = run() if resume else tmp_path / "run"
    code = "import sys, utils.folders as f, pathlib as p\nwith f.held(p.Path(sys.argv[1]), flag=''): print(); input()"
    command = [sys.executable, "-c", code, str(folder)]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(UserError, match=f"--output_path {folder}: another run writes there .process {other.pid} "):
            run(*(["--resume_path", folder / "last.pt", "--num_train_steps", 5] if resume else []))
        other.communicate("\n")
    assert not (folder / "log.jsonl").exists() or resume


def test_minutes_alone_rule_where_steps_are_not_given():
    base = ["--teacher_path", "t", "--images", "i", "--cache", "c", "--output_path", "o"]
    for given, expected in (
        ([], (distill.DEFAULT_STEPS, math.inf)),
        (["--minutes", "290"], (math.inf, 290)),
        (["--minutes", "290", "--num_train_steps", "9"], (9, 290)),
        (["--num_train_steps", "9"], (9, math.inf)),
    ):
        args = distill.parse_args([*base, *given])
        assert (args.num_train_steps, args.minutes) == expected
        assert distill.schedule(10**6, 0.0, args) == 1


def test_a_run_by_the_clock(run):
    log = read_log(run("--num_train_steps", 10**9, "--minutes", 1e-3) / "log.jsonl")
    assert log[-1]["final"]


def test_a_cache_belongs_to_one_teacher_and_grid(run, tiny_weights, tmp_path):
    run("--num_train_steps", 0)
    cache = tmp_path / "cache"
    assert len(list(cache.glob("*.safetensors"))) == 3
    with pytest.raises(UserError, match="was made with another small_grid;"):
        run("--small_grid", 3, 3)
    state = torch.load(tiny_weights, weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="was made with another teacher_path;"):
        run("--teacher_path", tmp_path / "other.pth")
    torch.save({name: value.double() for name, value in state.items()}, tmp_path / "same.pth")
    run("--teacher_path", tmp_path / "same.pth", "--num_train_steps", 0)  # the same values in another file


def test_a_cache_from_before_hashes_is_taken_and_a_damaged_one_refused(run, tmp_path, capsys):
    run("--num_train_steps", 0)
    path = tmp_path / "cache/settings.json"
    settings = json.loads(path.read_text())
    del settings["teacher_sha256"]
    path.write_text(json.dumps(settings))
    run("--num_train_steps", 0)
    assert "before the teacher's weights were noted" in capsys.readouterr().out
    for damaged in (path.read_text()[:30], "[]", ""):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"settings.json: .*; delete it if"):
            run()


def test_a_shard_has_the_size_that_help_tells(run, tmp_path):
    run("--num_train_steps", 0)
    expected = distill_data.shard_bytes(small_grid=[2, 3], large_grid=[3, 4], patch_size=8, width=64)
    assert 0 < (tmp_path / "cache/0000.safetensors").stat().st_size - expected < 1500  # the header


def test_an_exported_student_is_measured_as_its_run_was(run, tmp_path, capsys):
    folder = run()
    capsys.readouterr()
    run("--evaluate", folder / distill.EXPORTED)
    contents, scores = capsys.readouterr().out.splitlines()
    assert "2 pairs of views, 24x32 pixels, 12 tokens" in contents
    assert "1 pairs of 1 photos and clips of" in contents
    scores = json.loads(scores)
    assert set(scores) == {"held_sim_corr", "held_kl", "held_top"}
    final = read_log(folder / "log.jsonl")[-1]
    assert scores == pytest.approx({name: final[name] for name in scores}, abs=2e-3)  # float16 against float32
    for flags, message in (
        (["--relation_heads", 5], "does not divide"),
        (["--cache", tmp_path], "holds no held_out.safetensors"),
    ):
        with pytest.raises(UserError, match=message):
            run("--evaluate", folder / distill.EXPORTED, *flags)
    with pytest.raises(UserError, match="does not say how its ViT is built"):
        run("--evaluate", folder / "last.pt")


def test_faults_are_named(run, tmp_path, images):
    with pytest.raises(UserError, match="no such folder"):
        run("--images", tmp_path / "none")
    with pytest.raises(UserError, match="holds no complete shards"):
        run("--cache", tmp_path / "other", "--skip_cache")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--warmup 0", "--warmup"),
        ("--log_every 0", "--log_every"),
        ("--eval_every 0", "--eval_every"),
        ("--minutes 0", "--minutes"),
        ("--minutes nan", "--minutes"),
        ("--num_train_steps -3", "--num_train_steps"),
        ("--large_share 1.5", "--large_share"),
        ("--lr 0", "--lr"),
        ("--batch_size x", "--batch_size"),
        ("--small_grid 0 3", "--small_grid"),
        ("--large_grid 1 1", "--large_grid"),
        ("--relation_heads 5", "--relation_heads"),
        ("--relation_heads 32", "--relation_heads"),
        ("--embed_dim 33", "--embed_dim"),
        ("--embed_dim 128", "--embed_dim"),
        ("--embed_dim 30 --relation_heads 3", "--relation_heads"),  # fits the student, not the teacher
        ("--teacher no_such_vit", "--teacher"),
        ("--teacher resnet18", "--teacher"),
        ("--teacher_path train.py", "train.py"),
        ("--resume_path student.pt", "--resume_path"),
        ("--num_train_step 4", "--num_train_step"),
    ],
)
def test_bad_flags_give_one_line(run, tmp_path, capsys, flags, named):
    torch.save({"step": 1}, tmp_path / "student.pt")
    flags = flags.replace("student.pt", str(tmp_path / "student.pt")).split()
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: run(*flags))
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert told.startswith("error: ")
    assert named in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_a_run_stays_with(run, images, tiny_weights, tmp_path):
    folder = run()
    for flags in (
        ["--depth", 3], ["--relation_heads", 1], ["--large_grid", 4, 4], ["--embed_dim", 16], ["--patch_size", 4],
        ["--num_heads", 2], ["--images", images / "photos"],
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^{flags[0]}: is now .*, the run to resume has"):
            run("--resume_path", folder / "last.pt", *flags)
    state = torch.load(tiny_weights, weights_only=True)
    torch.save({name: value * 1.01 for name, value in state.items()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="^--teacher_path: is now"):
        run("--resume_path", folder / "last.pt", "--teacher_path", tmp_path / "other.pth", "--cache", tmp_path / "c2")


def test_missing_flags_are_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distill", "--cache", "cache", "--images", "images"])
    with pytest.raises(UserError, match="^--teacher_path, --output_path: missing"):
        distill.main()


def test_a_loss_that_is_not_finite_ends_the_run_before_it_spoils_it(run, monkeypatch):
    folder = run()
    before = torch.load(folder / "last.pt", weights_only=True)["student"]
    monkeypatch.setattr(distill, "jitter", lambda images: images * float("nan"))
    with pytest.raises(UserError, match=r"^step 4: the loss .*not finite \(key nan.*; lower --lr"):
        run("--resume_path", folder / "last.pt", "--num_train_steps", 5, "--save_minutes", 0)
    after = torch.load(folder / "last.pt", weights_only=True)["student"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_key_targets_keep_dot_products_where_the_width_allows():
    generator = torch.Generator().manual_seed(0)
    low_rank = torch.randn(200, 6, generator=generator) @ torch.randn(6, 32, generator=generator)
    keys = distill_student.unit(low_rank)
    basis = distill_student.fit_basis(keys, dim=16, heads=1)  # rank 6 fits into 15 directions
    targets = distill_student.key_targets(keys, basis)
    assert torch.allclose(F.layer_norm(targets, (16,)), targets, atol=1e-4)  # what a LayerNorm can put out
    cosine = F.cosine_similarity(keys[:, None], keys[None], dim=-1)
    kept = F.cosine_similarity(targets[:, None], targets[None], dim=-1)
    assert torch.allclose(cosine, kept, atol=1e-3)


def test_agreement_of_keys_with_themselves_and_with_noise():
    keys = distill_student.unit(torch.randn(60, 16, generator=torch.Generator().manual_seed(0)))
    same = distill.agreement(keys, keys, heads=2)
    other = distill.agreement(
        distill_student.unit(torch.randn(60, 16, generator=torch.Generator().manual_seed(1))), keys, heads=2
    )
    assert same["sim_corr"] == pytest.approx(1, abs=1e-5)
    assert same["kl"] == pytest.approx(0, abs=1e-5)
    assert same["top"] == 1
    assert abs(other["sim_corr"]) < 0.3
    assert other["kl"] > 0.1


def test_pairs_alternate_between_sources_and_exhaust_them():
    sources = [[["a"], ["b"], ["c"]], [["d", "e"], ["f", "g"]]]
    picks = [distill_data.pick_pair(sources, number, "seed") for number in range(12)]
    assert {first for first, _ in picks[0:6:2]} == {"a", "b", "c"}
    assert all({*pair} <= {"d", "e"} or {*pair} <= {"f", "g"} for pair in picks[1::2])


def test_annotations_are_no_images_to_learn_from(tmp_path):
    davis = make_davis(tmp_path / "DAVIS")
    (davis / "JPEGImages/480p/.ant").mkdir()
    shutil.copy(davis / "JPEGImages/480p/ant/00000.jpg", davis / "JPEGImages/480p/.ant/00000.jpg")
    groups = distill_data.list_groups(davis)
    assert [path.parent.relative_to(davis).as_posix() for path, *_ in groups] == [
        "JPEGImages/480p/ant", "JPEGImages/480p/bee",
    ]  # fmt: skip


def test_muon_takes_steps_of_one_size():
    """The update is nearly orthogonal: all singular values alike, its size set by the learning rate alone."""
    weight = torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.randn(8, 12, generator=torch.Generator().manual_seed(0)) * 1e-3
    optimizer.step()
    singular = np.linalg.svd(weight.detach().numpy(), compute_uv=False)
    assert singular.max() / singular.min() < 2
    assert np.sqrt((weight.detach().numpy() ** 2).mean()) == pytest.approx(0.2 * 0.1, rel=0.35)
