import sys

import cv2
import numpy as np
import pytest

from tests.benchmarks import attention_maps
from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION
from utils import visual
from utils.errors import UserError
from utils.png import make_palette, write_label_png
from utils.report.training_log import draw_log
from utils.visual import draw_contact_sheet, draw_overlay, make_distinct_colours


def test_overlay_mixes_masks_and_leaves_background():
    frame = np.full((40, 80, 3), 100, np.uint8)
    labels = np.zeros((40, 80), int)
    labels[:, 40:] = 7
    mixed = draw_overlay(frame, labels)
    assert (mixed[:, :40] == 100).all()
    assert (mixed[:, 40] == 255).all()  # outline
    colour = (50 + make_distinct_colours()[7] / 2).astype(np.uint8)
    np.testing.assert_array_equal(mixed[0, 60], colour)
    assert (mixed[10:30, 50:70] != colour).any()  # its number
    labels[:, 40:] = 0
    labels[20:22, 40:42] = 7
    assert (draw_overlay(frame, labels)[:, 44:] == 100).all()  # no number where there is no room for one


def test_colours_of_the_first_ids_differ_clearly():
    colours = make_distinct_colours().astype(int)
    assert colours.shape == (256, 3)
    assert not colours[0].any()
    distances = np.linalg.norm(colours[:9, None] - colours[None, :9], axis=-1)
    assert distances[np.triu_indices(9, 1)].min() > 60


def test_contact_sheet_pads_short_rows():
    picture = np.full((10, 20, 3), 9, np.uint8)
    sheet = draw_contact_sheet([("a", [picture] * 3), ("b", [picture])], cell_width=40)
    assert sheet.shape == (40, 120, 3)
    assert (sheet[20:, 40:] == 0).all()
    assert (sheet[:20, 80:] == 9).all()


def test_label_maps_as_a_picture(tmp_path, monkeypatch):
    for index in range(3):
        write_label_png(tmp_path / f"results/ant/{index}.png", np.full((30, 240), index))
    arguments = [
        "visual",
        "--results",
        str(tmp_path / "results"),
        "--picture",
        str(tmp_path / "sheet.png"),
        "--count",
        "3",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    visual.main()
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    assert sheet.shape == (30, 720, 3)
    np.testing.assert_array_equal(sheet[29, [100, 300, 700]], make_palette()[[0, 1, 2]])
    monkeypatch.setattr("sys.argv", [*arguments[:3], *arguments[2:]])
    visual.main()
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (30, 1440, 3)
    write_label_png(tmp_path / "others/bee/0.png", np.zeros((30, 240), dtype=np.int32))
    monkeypatch.setattr("sys.argv", [*arguments[:3], str(tmp_path / "others"), *arguments[3:]])
    with pytest.raises(UserError, match="holds other videos"):
        visual.main()
    write_label_png(tmp_path / "empty/.hidden/0.png", np.zeros((30, 240), dtype=np.int32))
    monkeypatch.setattr("sys.argv", ["visual", "--results", str(tmp_path / "empty"), "--picture", "x.png"])
    with pytest.raises(UserError, match="holds no folders of label PNGs"):
        visual.main()
    write_label_png(tmp_path / "empty/davis/bee/0.png", np.zeros((30, 240), dtype=np.int32))
    with pytest.raises(UserError, match="give .*empty/davis"):
        visual.main()


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_an_impossible_number_of_frames_is_refused(count, monkeypatch):
    monkeypatch.setattr("sys.argv", ["visual", "--results", "x", "--picture", "x.png", "--count", count])
    with pytest.raises(UserError, match=f"argument --count: .*{count}"):
        visual.main()


def test_training_log_as_a_picture(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 0, "clusters_per_clip": 3}\n{"step": 1, "loss_semantic": 1, "loss_motion": 2, '
                   '"attention_entropy": 5, "grad_norm": 1}\n{"step": 2, "loss_sem')  # fmt: skip
    draw_log(log, tmp_path / "curve.png")
    assert cv2.imread(str(tmp_path / "curve.png")).std() > 5
    with pytest.raises(UserError, match="--log .*none.jsonl: "):
        draw_log(tmp_path / "none.jsonl", tmp_path / "x.png")


def test_the_object_loss_is_drawn_where_it_is_logged(tmp_path):
    pictures = []
    for record in ('{"step": 1, "loss_semantic": 1}', '{"step": 1, "loss_semantic": 1, "loss_object": 3}'):
        (tmp_path / "log.jsonl").write_text(f"{record}\n")
        draw_log(tmp_path / "log.jsonl", tmp_path / "curve.png")
        pictures.append(cv2.imread(str(tmp_path / "curve.png")))
    assert pictures[0].shape == pictures[1].shape  # one panel
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("network", [[], ["--num_t", 2, "--num_heads", 4]])
def test_attention_maps_over_checkpoints(davis, tmp_path, tiny_weights, run_train, monkeypatch, network):
    run_train("--basepath", davis, "--output_path", tmp_path / "run", "--save_freq", 2, *network)
    steps = [tmp_path / f"run/step_000000{step}.pt" for step in (2, 4)]
    arguments = ["--basepath", davis / "JPEGImages/480p/ant", "--backbone", TINY_BACKBONE, "--dino_path", tiny_weights,
                 "--resolution", *TINY_RESOLUTION, *network, "--picture", tmp_path / "maps.png",
                 "--checkpoints"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["attention_maps", *map(str, [*arguments, "identity", *steps]), "--gap", "2"])
    attention_maps.main()
    picture = cv2.imread(str(tmp_path / "maps.png"))
    assert picture.shape == (3 * 126, 6 * 210, 3)
    monkeypatch.setattr(sys, "argv", ["attention_maps", *map(str, [*arguments, "identity"]), "--gap", "9"])
    with pytest.raises(UserError, match="19 frames or more"):
        attention_maps.main()
