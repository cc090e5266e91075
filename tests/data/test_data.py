import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.clips import BadFrames, Clip, ClipDataset, StepSampler, _restore_system_error, choose_clip_positions
from data.frames import resize
from data.loading import index_videos, load_videos
from data.transforms import ClipAugmentation
from tests.conftest import make_davis, moving_disk
from tests.data.pictures import read_image
from utils.errors import UserError
from utils.pictures import list_images


def write_frames(folder, count, *, size=(40, 60)):
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), moving_disk(index, size=size, seed=0)[0])


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_index_finds_folders_in_any_depth_but_no_annotations(tmp_path):
    davis = make_davis(tmp_path / "DAVIS")
    write_frames(tmp_path / "ytvis/train/JPEGImages/0043f083b5", 3)
    write_frames(tmp_path / "plain", 2)
    write_frames(tmp_path / ".hidden", 2)
    found = index_videos(tmp_path)
    assert {name: len(frames) for name, frames in found.items()} == {
        "DAVIS/JPEGImages/480p/ant": 7,
        "DAVIS/JPEGImages/480p/bee": 7,
        "plain": 2,
        "ytvis/train/JPEGImages/0043f083b5": 3,
    }
    assert list(index_videos(davis / "JPEGImages/480p/ant")) == ["."]
    (tmp_path / "list.txt").write_text("bee\n0043f083b5\n")
    assert {name.split("/")[-1] for name in index_videos(tmp_path, train_list="list.txt")} == {"bee", "0043f083b5"}


def test_index_faults(tmp_path):
    with pytest.raises(UserError, match="--basepath .*none: no such folder"):
        index_videos(tmp_path / "none")
    with pytest.raises(UserError, match="--basepath .*: no frames"):
        index_videos(tmp_path)
    write_frames(tmp_path / "a", 2)
    with pytest.raises(UserError, match="--train_list x.txt: no such file"):
        index_videos(tmp_path, train_list="x.txt")
    (tmp_path / "x.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match="--train_list x.txt: no frames .* b"):
        index_videos(tmp_path, train_list="x.txt")
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"x\.txt: not a text file .*; restore it"):
        index_videos(tmp_path, train_list="x.txt")


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 9), st.data())
def test_clip_positions(length, num_frames, gap, data):
    centre = data.draw(st.integers(0, length - 1))
    positions = choose_clip_positions(length, centre, num_frames=num_frames, gap=gap)
    assert len(positions) == num_frames
    assert 0 <= min(positions) <= max(positions) < length
    steps = set(np.diff(positions).tolist())
    if length >= num_frames > 1:
        assert steps == {min(gap, (length - 1) // (num_frames - 1))}
    if length > 2 * gap * num_frames and gap * num_frames < centre < length - gap * num_frames:
        assert positions[num_frames // 2] == centre


def test_clips_are_drawn_from_seed_and_number(tmp_path):
    for name in "abc":
        write_frames(tmp_path / name, 9)
    videos = index_videos(tmp_path)
    options = {"resolution": (24, 40), "num_frames": 3, "gap": 2}
    first, again = (ClipDataset(videos, **options, seed=1) for _ in range(2))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    clips = [first[index].frames for index in range(8)]
    assert clips[0].shape == (3, 3, 24, 40)
    assert clips[0].dtype == torch.uint8
    assert all(torch.equal(clip, again[index].frames) for index, clip in enumerate(clips))
    assert torch.equal(torch.get_rng_state(), state)  # drawing a clip leaves the caller's random numbers alone
    assert not torch.equal(clips[0], ClipDataset(videos, **options, seed=2)[0].frames)


def test_augmentation_is_the_same_for_every_frame_and_differs_between_clips():
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=generator)
    augment = ClipAugmentation((40, 60))
    results = [augment(frame.expand(3, 3, 40, 60), seed=seed) for seed in range(30)]
    assert all(torch.equal(clip[0], clip[1]) and torch.equal(clip[0], clip[2]) for clip in results)
    assert len({clip.numpy().tobytes() for clip in results}) > 25
    # Blur strength is drawn per clip: with colour left alone, several sharpnesses occur.
    blur = augment.transform.transforms[2]
    torch.manual_seed(0)
    sharpness = {round(blur(frame[None]).float().diff(dim=-1).abs().mean().item(), 2) for _ in range(20)}
    assert len(sharpness) > 5
    assert blur.transforms[0].kernel_size == (7, 5)  # odd, about a tenth of the sides, (along x, along y)


def test_unreadable_training_frames_are_replaced_and_named(tmp_path):
    write_frames(tmp_path / "good", 20)
    write_frames(tmp_path / "bad", 20)
    truncate(tmp_path / "bad/00004.jpg")
    (tmp_path / "bad/00005.jpg").write_text("no image")
    clips = ClipDataset(index_videos(tmp_path), resolution=(24, 40), num_frames=3, gap=1)
    seen = [clips[index] for index in range(120)]
    assert all(clip.frames.shape == (3, 3, 24, 40) for clip in seen)
    assert {file[-13:] for clip in seen for file in clip.bad} == {"bad/00004.jpg", "bad/00005.jpg"}
    for path in (tmp_path / "good").iterdir():
        truncate(path)
    for path in (tmp_path / "bad").iterdir():
        truncate(path)
    assert clips[0].frames is None


def test_bad_frames_are_counted_once_and_limited(capsys):
    few = BadFrames(total=200)
    few.add(Clip(torch.zeros(1), ["a.jpg", "a.jpg"]))
    few.add(Clip(torch.zeros(1), ["a.jpg", "b.jpg"]))
    assert capsys.readouterr().err.count("unreadable, skipped") == 2
    with pytest.raises(UserError, match=r"c\.jpg: .*restore the files"):
        few.add(Clip(torch.zeros(1), ["c.jpg"]))
    with pytest.raises(UserError, match=r"x\.jpg: unreadable, like .* 20 clips"):  # far from 1 %
        BadFrames(total=10**6).add(Clip(None, ["x.jpg"]))


def test_bad_frames_known_before_are_too_many_of_fewer_videos(tmp_path):
    """A run is resumed with a smaller --train_list: told at once, not by the first batch, which may have none."""
    bad = tmp_path / "ant/00000.jpg"
    bad.parent.mkdir()
    bad.write_text("no image")
    assert BadFrames.resume({"ant": [bad], "bee": [tmp_path / "x.jpg"] * 99}, [str(bad)]).files == [str(bad)]
    with pytest.raises(UserError, match=r"ant/00000\.jpg: one of 1 unreadable images met among 1, more than 1 %"):
        BadFrames.resume({"ant": [bad]}, [str(bad)])


def test_step_sampler_shares_out_every_clip_once():
    whole = list(StepSampler(start_step=2, num_steps=5, clips_per_step=6))
    assert whole == list(range(12, 30))
    shares = [list(StepSampler(start_step=2, num_steps=5, clips_per_step=6, rank=r, world_size=2)) for r in range(2)]
    assert sorted(shares[0] + shares[1]) == whole
    assert shares[0][:3] == [12, 13, 14]
    assert len(StepSampler(start_step=2, num_steps=5, clips_per_step=6, rank=1, world_size=2)) == 9


def test_read_image_is_strict(tmp_path):
    write_frames(tmp_path / "v", 1)
    path = tmp_path / "v/00000.jpg"
    assert read_image(path).shape == (3, 40, 60)
    assert cv2.imread(str(path)) is not None
    truncate(path)
    assert cv2.imread(str(path)) is not None  # OpenCV fills the rest with grey
    with pytest.raises(UserError, match=r"00000\.jpg: .*restore or remove this frame"):
        read_image(path)


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.png", "2.png", "1.png", "frame9.jpg", "frame10.jpg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "3.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["1.png", "2.png", "10.png", "frame9.jpg", "frame10.jpg"]
    (tmp_path / "2.jpg").write_text("")
    with pytest.raises(UserError, match=r"2\.png: 2\.jpg "):
        load_videos("video", tmp_path, split="", flag="")


def test_resize_keeps_colours():
    flat = torch.full((3, 30, 50), 77, dtype=torch.uint8)
    assert (resize(flat, (14, 28)) == 77).all()
    assert resize(flat, (30, 50)) is flat


def test_own_videos(tmp_path):
    write_frames(tmp_path / "videos/a", 3)
    write_frames(tmp_path / "videos/b", 2)
    assert [(v.name, len(v.frame_names)) for v in load_videos("video", tmp_path / "videos", split="", flag="")] == [
        ("a", 3), ("b", 2),
    ]  # fmt: skip
    assert [v.name for v in load_videos("video", tmp_path / "videos/a", split="", flag="")] == ["a"]
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 40 * index), np.uint8))
    writer.release()
    (video,) = load_videos("video", tmp_path / "clip.mp4", split="", flag="", allow_damaged=True)
    frames = list(video.read())
    assert video.frame_names == ["00000", "00001", "00002", "00003", "00004"]
    assert frames[4].shape == (3, 48, 64)
    assert frames[4][0].float().mean() > 140 > 20 > frames[4][2].float().mean()  # red stays red
    video.contents.positions += [5, 6]  # as if the file had been cut since
    assert [isinstance(frame, UserError) for frame in video.read_with_errors()] == [False] * 5 + [True]
    with pytest.raises(UserError, match="clip.mp4: 5 .*7 "):
        list(video.read())
    (tmp_path / "clip.mp4").write_bytes(b"no video any more")
    with pytest.raises(UserError, match="clip.mp4: 0 .*7 "):
        list(video.read())


def test_endings_that_are_not_read_are_named(tmp_path, davis):
    for folder in ("own", "clips/a", "clips/b"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("0.tga", "1.TGA", "notes.txt", ".hidden.jp2"):
            (tmp_path / folder / name).write_bytes(b"frame")
    message = r"\.tga, \.txt are not read: save the frames as one of .*\.png"
    for root in ("own", "clips"):
        with pytest.raises(UserError, match=f"--basepath .*{root}: neither.*{message}"):
            load_videos("video", tmp_path / root, split="all", flag="--basepath")
        with pytest.raises(UserError, match=f"--basepath .*{root}: no frames .*{message}"):
            index_videos(tmp_path / root)
    for path in (davis / "JPEGImages/480p/bee").iterdir():
        path.rename(path.with_suffix(".jp2"))
    with pytest.raises(UserError, match=r"bee: .*\.jp2 .*save the frames as"):
        load_videos("davis17u", davis, split="val", flag="")


def test_video_faults(tmp_path, davis):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    for path, message in (
        ("empty", "neither video files nor frames"),
        ("none", "no such video"),
        ("text.mp4", "text.mp4: .*give the video"),
    ):
        with pytest.raises(UserError, match=message):
            load_videos("video", tmp_path / path, split="", flag="--basepath")
    with pytest.raises(UserError, match=r"--davis_path .*ImageSets/2017/test\.txt"):
        load_videos("davis17u", davis, split="test", flag="--davis_path")
    with pytest.raises(UserError, match="--sequences cow"):
        load_videos("davis17u", davis, split="val", flag="--davis_path", sequences=["cow"])
    cv2.imwrite(str(davis / "JPEGImages/480p/bee/00003.jpg"), np.zeros((10, 10, 3), np.uint8))
    bee = load_videos("davis17u", davis, split="val", flag="")[1]
    with pytest.raises(UserError, match=r"bee/00003\.jpg: 10x10 .*100x60"):
        list(bee.read())
    (davis / "Annotations_unsupervised/480p/ant/00006.png").unlink()
    with pytest.raises(UserError, match="6 .*7 .*00006"):
        load_videos("davis17u", davis, split="val", flag="")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "a/0.jpg"), OSError(28, "No space left on device")])
def test_an_error_of_the_system_in_a_reading_process_is_that_error(error):
    """torch raises one of the same type whose message is the traceback."""
    text = f"Caught OSError in DataLoader worker process 0.\nTraceback ...\nOSError: {error}\n"
    found = _restore_system_error(OSError(text))
    assert (found.errno, found.strerror, found.filename) == (error.errno, error.strerror, error.filename)
    assert _restore_system_error(error) is error
