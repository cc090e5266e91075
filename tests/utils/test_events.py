"""TensorBoard can read what a run writes, and a full disk is an error that names the file."""

import resource
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from utils.errors import UserError
from utils.run.events import LAYOUT, METRICS
from utils.run.logs import RunLog

FLAGS = {"lr": 1e-3, "resolution": (48, 80), "with_cls": True, "init_path": None, "backbone": "embedded"}
PICTURE = np.full((40, 60, 3), (200, 30, 90), np.uint8)


def read_events(folder) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def read_hyperparameters(events, kind):
    content = events.SummaryMetadata(f"_hparams_/{kind}").plugin_data.content
    return getattr(plugin_data_pb2.HParamsPluginData.FromString(content), kind)


def test_tensorboard_reads_values_pictures_and_hyperparameters(tmp_path):
    log = RunLog(tmp_path, step=0, hyperparameters=FLAGS)
    log.write(3, {"loss": 0.5, "bad_frames": 0})
    log.write_pictures(3, {"clip/clusters": PICTURE})
    log.close()
    (file,) = (tmp_path / "tensorboard").rglob("*")  # no second folder, which would be a second run
    assert file.is_file()
    events = read_events(tmp_path / "tensorboard")
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 0.5)]
    (image,) = events.Images("clip/clusters")
    assert (image.step, image.width, image.height) == (3, 60, 40)
    shown = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_allclose(shown.astype(int), PICTURE, atol=4)
    held = read_hyperparameters(events, "session_start_info").hparams
    assert held["lr"].number_value == 1e-3
    assert held["resolution"].string_value == "48x80"
    assert held["with_cls"].string_value == "True"
    assert {info.name.tag for info in read_hyperparameters(events, "experiment").metric_infos} == set(METRICS)


def test_the_layout_groups_the_values(tmp_path):
    RunLog(tmp_path, step=0, hyperparameters=FLAGS).close()
    (value,) = read_events(tmp_path / "tensorboard").Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(value.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == list(LAYOUT) == ["losses", "monitor", "time"]
    losses = ["^loss$", "^loss_semantic$", "^loss_motion$", "^loss_object$"]
    assert list(layout.category[0].chart[0].multiline.tag) == losses


def test_a_resumed_run_replaces_the_later_events(tmp_path):
    for first, steps, loss in ((0, (0, 1), 0.0), (0, (0, 1, 2, 3, 4), 1.0), (2, (3,), 2.0)):
        log = RunLog(tmp_path, step=first, hyperparameters=FLAGS)
        for step in steps:
            log.write(step, {"loss": loss})
            log.write_pictures(step, {"clip": PICTURE})
        log.close()
    events = read_events(tmp_path / "tensorboard")
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]
    assert [image.step for image in events.Images("clip")] == [0, 1, 2, 3]


@contextmanager
def limit_files(size: int):
    """Let writing beyond `size` bytes of a file fail, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_at_once(tmp_path):
    log = RunLog(tmp_path, step=0, hyperparameters=FLAGS)
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    events = r"tensorboard/events\..*: cannot be written .*; free space"
    with limit_files(log.events.path.stat().st_size + 20), pytest.raises(UserError, match=events):
        log.write(1, {"loss": 1.0})
    log = RunLog(tmp_path, step=0, hyperparameters=FLAGS)
    with limit_files(20_000), pytest.raises(UserError, match=events):
        log.write_pictures(1, {"clip": noise})
    with limit_files(20), pytest.raises(UserError, match=r"log\.jsonl: .*free space"):
        log.write(1, {"loss": 1.0})


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(UserError, match="tensorboard/events.*: .*free space"):
        RunLog(tmp_path, step=0, hyperparameters=FLAGS)
