"""Tiny stand-ins for what users bring: a backbone file, videos, a DAVIS tree; and ways to run the programs on them."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, settings

import eval as eval_program
import train as train_program
from tests.data.layout_trees import TREES
from tests.processes import kill_started
from utils.png import write_label_png

# Time is no property of what is tested: on a busy machine any example may be slow.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY_BACKBONE = "test_vit"  # timm's own: width 64, 6 layers, patch 16
TINY_RESOLUTION = ("48", "80")


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    yield
    kill_started()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data, weights and golden values."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A state dict that fills TINY_BACKBONE; random, but with keys that differ from place to place."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(timm.create_model(TINY_BACKBONE, num_classes=0).state_dict(), path)
    return path


def moving_disk(index: int, *, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame (H, W, 3) uint8 RGB of a bright disk drifting over a dark texture, and its mask (H, W) uint8."""
    texture = np.random.default_rng(seed).integers(0, 90, (*size, 3), dtype=np.uint8)
    centre = (size[1] // 4 + 3 * index, size[0] // 2)
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, centre, size[0] // 4, 1, -1)
    return np.where(mask[..., None] > 0, np.uint8([230, 60, 40]), texture), mask


def make_davis(root: Path, *, sequences: tuple[str, ...] = ("ant", "bee"), num_frames: int = 7, size=(60, 100)) -> Path:
    """A tree of exactly DAVIS-2017-Unsupervised's layout with a disk in every sequence."""
    for seed, name in enumerate(sequences):
        frames = root / "JPEGImages/480p" / name
        masks = root / "Annotations_unsupervised/480p" / name
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(num_frames):
            frame, mask = moving_disk(index, size=size, seed=seed)
            cv2.imwrite(str(frames / f"{index:05d}.jpg"), frame[..., ::-1])
            write_label_png(masks / f"{index:05d}.png", mask)
    split = root / "ImageSets/2017/val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("\n".join(sequences) + "\n")
    return root


@pytest.fixture
def davis(tmp_path) -> Path:
    return make_davis(tmp_path / "DAVIS")


@pytest.fixture
def build(tmp_path):
    """build(key): a tree of `layout_trees` and the root where it then stands."""

    def make(key):
        tree = TREES[key]
        tree.build(tmp_path / "root")
        return tree, tmp_path / "root"

    return make


@pytest.fixture(scope="session")
def tiny_network(tiny_weights) -> list[str]:
    """The arguments of both programs that choose the tiny backbone."""
    return ["--backbone", TINY_BACKBONE, "--dino_path", str(tiny_weights), "--resolution", *TINY_RESOLUTION,
            "--device", "cpu"]  # fmt: skip


@pytest.fixture(scope="session")
def tiny_training(tiny_network) -> list[str]:
    """The arguments of train.py that make a run short; the last of a flag wins.

    Most of a short run would be its monitor. A test that needs it gives --eval_freq.
    """
    return [*tiny_network, "--num_workers", "0", "--num_train_steps", "4", "--log_freq", "1", "--watch_clips", "1",
            "--eval_freq", "0"]  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(tiny_training, tmp_path_factory) -> tuple[Path, Path]:
    """A tree of videos and the folder of a run of four steps on it, to be read or copied and not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    davis, run = make_davis(folder / "DAVIS"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        arguments = [*tiny_training, "--basepath", davis, "--output_path", run, "--init", "identity", "--eval_freq", 4]
        patch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        train_program.main()
    return davis, run


@pytest.fixture
def run_train(tiny_training, monkeypatch):
    """Run train.py in this process on the tiny backbone: `run_train("--basepath", ...)`; the last of a flag wins."""

    def run(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, [*tiny_training, *arguments])])
        train_program.main()

    return run


@pytest.fixture
def run_eval(tiny_network, monkeypatch):
    """Run eval.py in this process on the tiny backbone."""

    def run(*arguments) -> None:
        monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, [*tiny_network, "--workers", 1, *arguments])])
        eval_program.main()

    return run


def snapshot(folder: Path) -> dict[str, bytes]:
    """The PNGs below a folder, but for the contact sheet."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png") if p.name != "contact_sheet.png"}
