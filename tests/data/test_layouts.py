"""Every dataset of the registry, on a tiny tree of its layout: whole, in its formats, and in part."""

import pickle
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_masks

import train
from data import tfrecord
from data.annotations.rle import RleVideo, Track, decode_run_lengths, decode_segmentation
from data.layouts import instances
from data.loading import check_root, list_training_videos, load_videos, resolve_root, select_range
from data.registry import DATASETS
from tests.data.layout_trees import CAMEL, SHARD, TREES, checked, compressed, load, problems, uncompressed
from tests.data.movi_trees import slow_crc32c
from tests.data.tree_files import SIZE, labels_of
from utils.errors import UserError
from utils.scoring.protocols import PROTOCOLS


def test_every_dataset_has_a_tree_and_a_full_entry():
    assert {tree.dataset for tree in TREES.values()} | {"ytvos19"} == set(DATASETS)
    for spec in DATASETS.values():
        assert all((spec.title, spec.splits, spec.licence, spec.citation, spec.download, spec.split_source))
        assert spec.default_split in spec.splits
    single = {spec.name for spec in DATASETS.values() if spec.single_object}
    assert single == {"davis16", "fbms59", "segtrackv2"}
    assert {DATASETS[name].void for name in single} == {None}
    assert {DATASETS[name].protocols for name in single} == {("foreground", "oracle")}
    several = {name: set(spec.protocols) for name, spec in DATASETS.items() if name not in {*single, "video"}}
    assert all(protocols == set(PROTOCOLS) for protocols in several.values())
    usual = {name: DATASETS[name].protocols[0] for name in several}
    assert {name for name in usual if usual[name] == "slots"} == {"ytvis19", "ytvis21", "movi-c", "movi-e"}
    assert set(usual.values()) == {"slots", "davis"}
    assert DATASETS["ytvis19"].protocols[:2] == ("slots", "tracks")
    assert {spec.name for spec in DATASETS.values() if spec.sparse} == {"fbms59", "ytvos18", "ytvos19", "pairs"}


@pytest.mark.parametrize("key", TREES)
def test_tree_loads_and_is_whole(key, build):
    tree, root = build(key)
    videos = load(tree, root)
    by_name = {video.name: video for video in videos}
    assert [name for name in by_name if name in tree.videos] == list(tree.videos)
    assert len(videos) == len(tree.videos) + tree.more
    for name, frames in tree.videos.items():
        video = by_name[name]
        assert video.frame_names == frames
        read = list(video.read())
        assert len(read) == len(frames)
        if tree.annotated is None:
            assert video.annotations is None
        else:
            check_annotations(tree, video)
    report = checked(tree, root)
    assert not report.problems
    assert not report.notes
    assert report.sequences == len(videos)
    assert (report.annotated > 0) == (tree.annotated is not None)


def check_annotations(tree, video):
    annotations = pickle.loads(pickle.dumps(video.annotations))
    assert annotations.frame_names == tree.annotated[video.name]
    assert annotations.digest() == video.annotations.digest()
    for frame in annotations.frame_names if tree.dataset != "sprites" else ():
        wanted = labels_of(video.frame_names.index(frame), void=tree.void)
        found = annotations.read(frame)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, wanted > 0 if DATASETS[tree.dataset].single_object else wanted)
        assert str(frame) in annotations.source(frame)


@pytest.mark.parametrize("key", [key for key in TREES if "-" not in key])
def test_training_split(key, build):
    """Of data sets without one it is all there is; train.py takes as `video` whatever frames lie there."""
    tree, root = build(key)
    videos = list_training_videos(tree.dataset, root)
    if "train" not in DATASETS[tree.dataset].splits:
        assert set(tree.videos) <= set(videos)
    else:
        assert videos
        assert all(name.startswith("train") for name in videos) or tree.dataset == "fbms59"
    assert all(path.is_file() for paths in videos.values() for path in paths)


def test_training_needs_no_annotations_and_takes_lists(build, tmp_path):
    _, root = build("davis17u")
    shutil.rmtree(root / "Annotations_unsupervised")
    (tmp_path / "list.txt").write_text("train-bee\n")
    assert list(list_training_videos("davis17u", root, train_list=str(tmp_path / "list.txt"))) == ["train-bee"]
    (tmp_path / "list.txt").write_text("cow\n")
    with pytest.raises(UserError, match="--train_list .*list.txt: cow is not among"):
        list_training_videos("davis17u", root, train_list=str(tmp_path / "list.txt"))
    with pytest.raises(UserError, match="--train_list none.txt: no such file"):
        list_training_videos("davis17u", root, train_list="none.txt")


def test_tfrecords_cannot_be_trained_on(build):
    _, root = build("movi-c")
    with pytest.raises(UserError, match="export the frames"):
        list_training_videos("movi-c", root)


# ------------------------------------------------------------------ what single formats say


def test_merged_digest_differs_from_that_of_labels(build):
    _, root = build("davis16-in-17")
    (root / "ImageSets/2017").mkdir()
    shutil.copy(root / "ImageSets/2016/val.txt", root / "ImageSets/2017/val.txt")
    labels, merged = (load_videos(name, root, split="val", flag="")[0].annotations for name in ("davis17", "davis16"))
    assert labels.digest() != merged.digest()
    assert set(np.unique(labels.read("00000"))) == {0, 1, 2}
    assert set(np.unique(merged.read("00000"))) == {0, 1}


def test_fbms_colours_without_definition_are_background(build):
    tree, root = build("fbms59-one")
    path = root / f"{CAMEL}_0001_gt.ppm"
    image = np.array(Image.open(path))
    image[0, :3] = (9, 9, 9)
    Image.fromarray(image).save(path)
    truth = load(tree, root)[0].annotations
    np.testing.assert_array_equal(truth.read("camel01_0001"), labels_of(0) > 0)


def test_fbms_frames_are_found_by_number_where_names_differ(build):
    tree, root = build("fbms59-one")
    definition = root / f"{CAMEL}Def.dat"
    definition.write_text(definition.read_text().replace("camel01_0003.ppm", "image0003.ppm"))
    assert load(tree, root)[0].annotations.frame_names == ["camel01_0001", "camel01_0003"]


def test_overlaps_crowds_and_absences_of_rle():
    mask = np.zeros(SIZE, bool)
    mask[2:8, 2:8] = True
    other = np.roll(mask, 3, axis=1)
    crowd = Track((compressed(np.ones(SIZE, bool)), None), is_crowd=True)
    polygon = [[2.0, 2.0, 7.0, 2.0, 7.0, 7.0, 2.0, 7.0]]
    tracks = [Track((uncompressed(mask), polygon)), crowd, Track((compressed(other), None))]
    video = RleVideo("v", ["0", "1"], SIZE, tracks, "x.json")
    np.testing.assert_array_equal(video.read("0"), np.where(other, 2, np.where(mask, 1, 255)))
    drawn = video.read("1")
    assert set(np.unique(drawn)) == {0, 1}
    assert drawn[4, 4] == 1
    assert abs(int(drawn.sum()) - 25) <= 11


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_rle_agrees_with_pycocotools(mask):
    size = mask.shape
    for segmentation in (compressed(mask), uncompressed(mask)):
        np.testing.assert_array_equal(decode_segmentation(segmentation, size, "x"), mask)
    assert decode_run_lengths(compressed(mask)["counts"]) == uncompressed(mask)["counts"]
    theirs = coco_masks.frPyObjects(uncompressed(mask), *size)
    assert theirs["counts"].decode() == compressed(mask)["counts"]


@given(st.lists(st.integers(0, 30), min_size=6, max_size=12).filter(lambda points: len(points) % 2 == 0))
def test_polygons_are_drawn_as_pycocotools_draws_them(points):
    theirs = coco_masks.area(coco_masks.merge(coco_masks.frPyObjects([points], 20, 30)))
    assert decode_segmentation([points], (20, 30), "x").sum() == theirs


def test_json_is_read_once_for_all_videos(build, monkeypatch):
    tree, root = build("ytvis19")
    reads = []
    read_json = instances.read_json
    monkeypatch.setattr(instances, "read_json", lambda path: reads.append(path) or read_json(path))
    assert len(load(tree, root)) == 3
    assert not problems(tree, root)
    assert len(reads) == 1


def test_checksums():
    assert tfrecord.crc32c(b"123456789") == 0xE3069283  # the standard's own example
    content = np.random.default_rng(0).bytes(3 * 4096 + 77)
    assert tfrecord.crc32c(content) == slow_crc32c(content)
    assert tfrecord.crc32c(b"") == slow_crc32c(b"") == 0


def test_record_keeps_only_what_is_asked_for(build):
    _, root = build("movi-c")
    records = tfrecord.list_records(root / SHARD.format(0))
    assert len(records) == 2
    assert tfrecord.count_values(records[1], "video") == 4
    found = tfrecord.read_byte_features(records[1], ("metadata/video_name",))
    assert found == {"metadata/video_name": [b"101"]}


# ------------------------------------------------------------------ selecting


def test_videos_select_a_slice_in_the_order_of_the_split(build):
    _, root = build("ytvis19")
    load = lambda videos: [v.name for v in load_videos("ytvis19", root, flag="", videos=videos)]  # noqa: E731
    assert load("1:3") == ["traina", "trainc"]
    assert load(":1") == ["trainb"]
    assert load("2:") == ["trainc"]
    assert load(None) == ["trainb", "traina", "trainc"]
    for wrong in ("3", "-1:2", "a:b", "1:2:3"):
        with pytest.raises(UserError, match=f"--videos {wrong}: .*A:B"):
            load(wrong)
    with pytest.raises(UserError, match="--videos 3:9: .*3 videos"):
        load("3:9")
    assert select_range(list("abc"), "0:2") == ["a", "b"]


def test_pairs_with_a_folder_of_annotations_elsewhere(tmp_path):
    TREES["pairs"].build(tmp_path / "x{y}")
    frames, annotations = tmp_path / "x{y}/frames", tmp_path / "x{y}/annotations"
    videos = load_videos("pairs", frames, flag="--basepath", annotations=annotations)
    assert [video.name for video in videos] == ["ant", "bee"]
    np.testing.assert_array_equal(videos[0].annotations.read("10"), labels_of(2, void=True))
    with pytest.raises(UserError, match="--annotations .*none: "):
        load_videos("pairs", frames, flag="--basepath", annotations=tmp_path / "none")
    with pytest.raises(UserError, match="--annotations .*: .*--dataset pairs"):
        load_videos("video", frames, flag="--basepath", annotations=annotations)


def test_unknown_splits_and_roots(build):
    _, root = build("segtrackv2")
    for name in ("segtrackv2", "pairs", "video"):
        with pytest.raises(UserError, match=f"--split val: .*{name} .*choose from all"):
            load_videos(name, root, split="val", flag="")
    for name in ("davis17u", "ytvos18", "ytvis19", "movi-c", "fbms59"):
        for split in ("../val", "a/b", "..", "a\0"):
            with pytest.raises(UserError, match="--split '.*: .*choose from "):
                load_videos(name, root, split=split, flag="")
    with pytest.raises(UserError, match="--davis_path .*give"):
        resolve_root("davis16", davis_path=None, basepath=None)
    with pytest.raises(UserError, match="--basepath .*give"):
        resolve_root("davis16", davis_path=None, basepath=None, davis_flag="--basepath")
    assert str(resolve_root("sprites", davis_path=None, basepath=None)[0]) == "datasets/sprites"


def test_a_root_of_davis_is_for_davis(tmp_path):
    with pytest.raises(UserError, match="--davis_path x: --dataset sprites .*give --dataset davis17u"):
        resolve_root("sprites", davis_path="x", basepath=None)
    assert resolve_root("davis16", davis_path=str(tmp_path), basepath="y") == (tmp_path, "--davis_path")
    assert resolve_root("davis16", davis_path=None, basepath=str(tmp_path)) == (tmp_path, "--basepath")
    with pytest.raises(UserError, match="--davis_path .*none: "):
        check_root("davis16", tmp_path / "none", split=None, flag="--davis_path")
    check_root("sprites", tmp_path / "none", split="train", flag="--basepath")
    with pytest.raises(UserError, match="--split tran: .*choose from val, train"):
        check_root("sprites", tmp_path / "none", split="tran", flag="--basepath")


def test_records_of_another_variant_are_not_taken(build):
    _, root = build("movi-e")
    with pytest.raises(UserError, match="movi_c-<split>"):
        load_videos("movi-c", root / "movi_e/256x256/1.0.0", flag="")
    assert len(load_videos("movi-e", root / "movi_e/256x256/1.0.0", flag="")) == 3
    with pytest.raises(UserError, match="--split test; choose from train, validation"):
        load_videos("movi-e", root, split="test", flag="")


def test_train_takes_the_training_split_of_any_dataset(build):
    _, root = build("davis17u")
    args = train.make_parser().parse(["--dataset", "davis17u", "--basepath", str(root)])
    assert list(list_training_videos(args.dataset, root)) == ["train-ant", "train-bee"]
    args = train.make_parser().parse(["--basepath", str(root)])
    assert "JPEGImages/480p/val-ant" in list_training_videos(args.dataset, root)
    args = train.make_parser().parse(["--dataset", "davis16"])
    with pytest.raises(UserError, match="--basepath .*give the root of --dataset davis16"):
        train.find_root(args)
