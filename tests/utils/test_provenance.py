"""Checkpoints and scores tell what they were made of: data, versions, revision."""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT


def test_names_that_are_not_utf8_are_no_fault(tmp_path):
    from utils.run.provenance import hash_videos

    videos = {os.fsdecode(b"caf\xe9"): [Path("a.jpg")], "b": [Path("c.jpg")]}
    assert len(hash_videos(videos)) == 64
    assert hash_videos({"a": [Path("b"), Path("c")]}) != hash_videos({"a": [Path("b")], "c": []})


def test_versions_are_those_of_what_is_asked_for():
    from utils.run.provenance import SCORING, list_versions

    assert list_versions().items() >= list_versions(SCORING).items()
    assert list_versions(SCORING).keys() == {"python", "numpy", "opencv", "scipy"}
    modules = ", ".join(f"data.annotations.{name}" for name in ("images", "rle", "fbms", "records"))
    command = f"import sys, utils.scoring.score, {modules}; from utils.run.provenance import *; list_versions(SCORING)"
    command += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # slow to import, and scoring does without


def test_the_revision_of_another_repository_is_not_taken_for_ours(tmp_path, monkeypatch):
    from utils.run import provenance as origin

    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(origin, "REPOSITORY", tmp_path / "inside")
    (tmp_path / "inside").mkdir()
    assert origin.read_git_revision() is None
