"""eval.py under other protocols, on other splits, with many proposals, and for anybody's predictions."""

import json
import shutil
import sys
import zipfile

import cv2
import numpy as np

import eval as eval_program
from utils.png import read_label_png
from utils.report.tables import format_costs, format_scores


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
    row = next(line.split() for line in format_costs(out).splitlines() if line.startswith("ant"))
    assert row[:4] == ["ant", "7", str(stats["clusters"]), "0"]


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


def test_predictions_of_another_method_are_scored_without_a_backbone(davis, tmp_path, monkeypatch, capsys):
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
