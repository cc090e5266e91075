"""The Python interface: the masks of eval.py with one import, from frames of any kind, without output."""

import inspect
import re
import runpy
import shutil
import subprocess
import sys
import weakref
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import eval as eval_program
from data.frames import resize
from data.videos import VideoFile
from model.attention import mean_attention
from model.segmenter import Segmenter, SegmenterSettings
from selfvos import Predictor, UserError
from selfvos.keywords import KEYWORDS
from selfvos.sources import to_frame
from tests.conftest import TINY_BACKBONE, moving_disk
from tests.data.video_files import write_video
from tests.processes import ROOT
from utils.flags.choices import STEPS
from utils.png import read_label_png
from utils.progress import log_line

COUNT, SIZE = 12, (48, 80)
TINY = {"device": "cpu", "resolution": SIZE}  # a resolution that takes little time


@pytest.fixture(scope="module")
def predictor(tiny_weights) -> Predictor:
    return Predictor.from_pretrained(TINY_BACKBONE, dino_path=tiny_weights, **TINY)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.stack([moving_disk(index, size=SIZE, seed=0)[0] for index in range(COUNT)])


@pytest.fixture(scope="module")
def result(predictor, frames):
    return predictor.segment(frames)


def write_clip(path: Path, frames) -> None:
    write_video(path, list(frames), rate=Fraction(10))


def read_masks(folder: Path) -> np.ndarray:
    return np.stack([read_label_png(path) for path in sorted(folder.glob("*.png"))])


def test_masks_are_those_of_eval_byte_for_byte(tmp_path, monkeypatch, frames, capfd):
    write_clip(tmp_path / "clip.mp4", frames[:5])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["eval.py", "clip.mp4", "--device", "cpu", "--protocol", "davis", "foreground"])
    eval_program.main()
    capfd.readouterr()
    state = torch.get_rng_state()
    predictor = Predictor.from_pretrained("embedded", device="cpu")
    result = predictor.segment("clip.mp4")
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "outputs"]
    out = tmp_path / "outputs/clip"
    result.save("masks")
    written = {path.name: path.read_bytes() for path in (out / "davis/clip").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == written
    assert len(written) == 5
    assert result.masks.dtype == np.uint8
    assert np.array_equal(result.foreground, read_masks(out / "foreground/clip") > 0)
    with pytest.raises(UserError, match="folder masks: .*choose another"):
        result.save("masks")


def test_frames_of_any_kind_give_the_same_masks(predictor, frames, result, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")
    tensor = torch.from_numpy(frames)
    kinds = [folder, str(folder), list(frames), tensor, tensor.permute(0, 3, 1, 2).contiguous(),
             [Image.fromarray(frame) for frame in frames]]  # fmt: skip
    for kind in kinds:
        assert np.array_equal(predictor.segment(kind).masks, result.masks)


def test_results_are_described(result, predictor):
    assert result.masks.shape == result.foreground.shape == (COUNT, *SIZE)
    assert [proposal.id for proposal in result.proposals] == list(range(1, len(result.proposals) + 1))
    assert result.masks.max() <= len(result.proposals)
    for proposal in result.proposals:
        assert proposal.score == pytest.approx(np.prod(list(proposal.components.values())), rel=1e-2)
        assert 0 <= proposal.first <= proposal.last < COUNT
        assert 1 <= proposal.frames <= proposal.last - proposal.first + 1
    assert {"backbone", "upsample"} <= result.seconds.keys()
    assert result.key_frames == predictor.choose_key_frames(COUNT) == [0]
    assert result.frame_names[:2] == ["00000", "00001"]


def test_frames_of_a_path_are_given_up_while_it_is_read(predictor, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip.mp4", [moving_disk(index // 4, size=SIZE, seed=0)[0] for index in range(48)])
    read, seen, most = VideoFile.read, [], 0

    def watch(self, positions=None):
        nonlocal most
        for frame in read(self, positions):
            seen.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in seen))
            yield frame

    monkeypatch.setattr(VideoFile, "read", watch)
    predictor.segment(tmp_path / "clip.mp4")
    assert len(seen) == 2 * 48
    assert most < 24  # those that are upsampled together and those read ahead


@pytest.mark.parametrize("frame", [0, 7])
def test_attention_is_a_row_over_the_key_frames(tiny_weights, frames, frame):
    predictor = Predictor.from_pretrained(TINY_BACKBONE, dino_path=tiny_weights, **TINY, key_stride=4)
    result = predictor.segment(frames)
    attention = predictor.attention(result, frame=frame, point=(79, 47))
    height, width = (side // 16 for side in result.resolution)
    assert attention.shape == (3, height, width)
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(attention, predictor.attention(frames, frame=frame, point=(79, 47)))
    resized = (resize(to_frame(frame, source="frame"), result.resolution) for frame in frames)
    features, grid = Segmenter(predictor.network).encode(resized, num_frames=COUNT)
    keys = predictor.network.keys(features[result.key_frames].flatten(0, 1))
    row = mean_attention(predictor.network.queries(features[frame, -1:]), keys)
    assert grid == (height, width)
    assert np.allclose(attention.ravel(), row[0], atol=1e-6)


def test_frames_come_one_at_a_time(predictor, frames):
    taken = []

    def camera():
        for index, frame in enumerate(frames):
            taken.append(index)
            yield frame

    stream = predictor.stream(camera(), key_frames=frames[:2])
    assert taken == []
    labels = next(stream)
    assert taken == [0, 1, 2]
    assert (labels.shape, labels.dtype) == (SIZE, np.int32)
    assert len(list(stream)) == COUNT - 1
    assert len(list(predictor.stream(frames[:4], step=3, tau=2.0))) == 4


def test_notes_are_warnings(predictor, tiny_weights, frames, capfd):
    many = Predictor.from_pretrained(TINY_BACKBONE, dino_path=tiny_weights, **TINY, clusters=(10**5, 10**5))
    with pytest.warns(UserWarning, match="clusters") as found:
        many.segment(frames)
    code = inspect.currentframe().f_code
    assert {warning.filename for warning in found} == {code.co_filename}  # the caller's own line
    lines, first = inspect.getsourcelines(code)
    assert {lines[warning.lineno - first].strip() for warning in found} == {"many.segment(frames)"}
    assert capfd.readouterr() == ("", "")
    log_line("note: outside")
    assert capfd.readouterr().err == "note: outside\n"


def test_auto_precision_is_that_of_the_processor(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16")
    monkeypatch.setattr("utils.device.CPU_FEATURES", tmp_path / "cpuinfo")
    assert Predictor.from_pretrained(device="cpu", amp="auto").settings.amp == "bf16"


@pytest.mark.parametrize(("arguments", "message"), [
    ({"clustering": "quick"}, "clustering='quick': .*exact"),
    ({"upsampling": "cubic"}, "upsampling='cubic': .*guided"),
    ({"amp": "int8"}, "amp='int8'"),
    ({"image_stats": "mean"}, "image_stats='mean'"),
    ({"memory_gb": 0}, "memory_gb=0"),
    ({"clusters": (6, 2)}, r"clusters=\(6, 2\)"),
    ({"memory_gb": float("nan")}, "memory_gb=nan: .*above 0"),
    ({"memory_gb": True}, "memory_gb=True: .*number"),
    ({"tau": None}, "tau=None: .*number"),
    ({"frame_batch": 2.5}, r"frame_batch=2\.5: .*whole number"),
    ({"key_stride": 1.5}, r"key_stride=1\.5: .*whole number"),
    ({"key_stride": None}, "key_stride=None: .*whole number"),
    ({"max_key_frames": 0}, "max_key_frames=0: .*whole number"),
    ({"num_blocks": 0}, "num_blocks=0: .*whole number"),
    ({"num_heads": 2.0}, r"num_heads=2\.0: .*whole number"),
    ({"max_objects": -1}, "max_objects=-1: .*from 1 to 20"),
    ({"max_objects": 2.5}, r"max_objects=2\.5: .*from 1 to 20"),
    ({"max_objects": 21}, "max_objects=21: .*from 1 to 20"),
    ({"resolution": (0, 8)}, r"resolution=\(0, 8\): .*\(height, width\)"),
    ({"resolution": 100}, r"resolution=100: .*\(height, width\)"),
    ({"resolution": (48.0, 80.0)}, r"resolution=\(48\.0, 80\.0\): .*whole"),
    ({"clusters": 5}, "clusters=5: .*two whole numbers"),
    ({"clusters": (2, 6, 7)}, r"clusters=\(2, 6, 7\): .*two whole numbers"),
    ({"clusters": (2.5, 6)}, r"clusters=\(2\.5, 6\): .*two whole numbers"),
    ({"objects": True}, "objects=True: .*dict of reassign"),
    ({"objects": {"jump": True}}, "objects=.*: .*dict of reassign"),
    ({"motion": "none"}, "motion='none': .*True, False"),
    ({"motion": 1}, "motion=1: .*True, False"),
    ({"explain": True}, "explain=True: .*leave it out"),
    ({"spill_path": 5}, "spill_path=5: .*path of a folder"),
    ({"feature_cache": True}, "feature_cache=True: .*path of a folder"),
    ({"resolution": (50, 80)}, "^resolution 50 80: .*48 80 and 64 80"),
    ({"device": "tpu"}, "^device tpu: .*give auto, cpu"),
    ({"block": "embedded", "temperature": 3.0}, "temperature: .*block"),
    ({"block": "none.pt"}, "^none.pt: .*check the path"),
])  # fmt: skip
def test_impossible_values_are_named(arguments, message, tiny_weights):
    with pytest.raises(UserError, match=message):
        Predictor.from_pretrained(**{"backbone": TINY_BACKBONE, "dino_path": tiny_weights, "device": "cpu"} | arguments)


def test_messages_name_keywords_and_not_flags(tiny_weights, frames):
    known = {
        *inspect.signature(Predictor.from_pretrained).parameters,
        *(field.name for field in fields(SegmenterSettings)),
    }
    assert {keyword.partition("=")[0] for keyword in KEYWORDS.values()} <= known
    predictor = Predictor.from_pretrained(TINY_BACKBONE, dino_path=tiny_weights, device="cpu", memory_gb=1e-4)
    with pytest.raises(UserError, match="^memory_gb 0.0001: .*raise it") as caught:
        predictor.segment(frames)
    assert "--" not in str(caught.value)
    with pytest.raises(UserError, match="num_heads 7: .*64") as caught:
        Predictor.from_pretrained(TINY_BACKBONE, dino_path=tiny_weights, device="cpu", num_heads=7)
    assert "--" not in str(caught.value)


def test_impossible_values_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("selfvos.predictor.build_network", lambda **_: pytest.fail("the network was built"))
    for arguments in ({"num_blocks": 0}, {"resolution": 100}, {"max_objects": 21}, {"upsampling": "cubic"}):
        with pytest.raises(UserError):
            Predictor.from_pretrained(**arguments)


def test_settings_may_be_numbers_of_numpy_and_paths_of_text(predictor, frames, result, tmp_path):
    settings = replace(predictor.settings, frame_batch=np.int64(4), feature_cache=str(tmp_path / "cache"),
                       spill_path=str(tmp_path / "spill"))  # fmt: skip
    other = Predictor(predictor.network, settings, resolution=np.array(SIZE))
    assert np.array_equal(other.segment(frames).masks, result.masks)
    assert other.settings.spill_path == tmp_path / "spill"
    assert list((tmp_path / "cache").rglob("*.*"))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"step": 2.5}, r"step=2\.5: .*whole number"),
    ({"step": None}, "step=None: .*whole number"),
    ({"tau": -1.0}, r"tau=-1\.0: .*above 0"),
    ({"key_frames": iter([])}, "key_frames: of type list_iterator; give an array"),
    ({"key_frames": "clip.mp4"}, "key_frames: of type str; give an array"),
    ({"key_frames": [np.zeros((8, 8), np.uint8)]}, r"key_frames\[0\]: uint8 of shape \(8, 8\)"),
])  # fmt: skip
def test_impossible_values_of_a_stream_are_named_at_once(arguments, message, predictor, frames):
    with pytest.raises(UserError, match=message):
        predictor.stream(frames, **arguments)


def test_a_frame_of_another_size_in_a_stream_is_named(predictor, frames):
    cut = frames[:2, :40]
    with pytest.raises(UserError, match=r"frames\[3\]: 80x40 .*80x48; give frames of one size"):
        list(predictor.stream([*frames[:3], *cut], step=2))
    with pytest.raises(UserError, match=r"frames\[0\]: 80x48 .*key_frames .*80x40; give frames of one size"):
        next(predictor.stream(frames, key_frames=cut))
    with pytest.raises(UserError, match=r"key_frames\[1\]: 80x40 .*80x48; give frames of one size"):
        predictor.stream(frames, key_frames=[frames[0], cut[0]])


def test_unknown_keywords_are_named():
    with pytest.raises(TypeError, match="'clustring'.*clustering"):
        Predictor.from_pretrained(clustring="fast")


@pytest.mark.parametrize(("source", "message"), [
    ([], "^frames: .*give at least one"),
    (np.zeros((0, 8, 8, 3), np.uint8), "^frames: .*give at least one"),
    (np.zeros((8, 8, 3), np.uint8), r"frames: .*\(8, 8, 3\)"),
    (np.zeros((2, 8, 8, 3), np.float32), r"frames\[0\]: float32 .*uint8"),
    (np.zeros((2, 8, 8, 4), np.uint8), r"frames\[0\]: uint8 of shape \(8, 8, 4\)"),
    ([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 48, 3), np.uint8)], r"frames\[1\]: 48x32 pixels.*32x32"),
    (["a.png"], r"frames\[0\]"),
    (iter([]), "frames: of type list_iterator; give a path"),
    ("none.mp4", "^none.mp4: no such file"),
    ("folder", "folder: .*give one of them"),
])  # fmt: skip
def test_a_source_that_is_none_is_named(source, message, predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "folder" / name / "00000.png")
    with pytest.raises(UserError, match=message):
        predictor.segment(source)


def test_places_outside_are_named(predictor, result):
    for frame, point, message in (
        (COUNT, (0, 0), "frame 12: .*0 to 11"),
        (1.5, (0, 0), r"frame 1\.5: .*0 to 11"),
        (0, (80, 0), r"point \(80, 0\): .*80x48"),
        (0, (1, 2, 3), r"point \(1, 2, 3\): .*two numbers"),
        (0, 5, "point 5: .*two numbers"),
    ):
        with pytest.raises(UserError, match=message):
            predictor.attention(result, frame=frame, point=point)


# The import


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run code where `pip install -e .` has made `selfvos` known, and no other folder of the clone."""
    finder = f"""
import importlib.util, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "selfvos":
            return importlib.util.spec_from_file_location(name, {str(ROOT / "selfvos/__init__.py")!r},
                                                          submodule_search_locations=[{str(ROOT / "selfvos")!r}])
sys.meta_path.append(Finder)
"""
    return subprocess.run([sys.executable, "-c", finder + code], cwd=cwd, capture_output=True, text=True)


def test_it_can_be_imported_anywhere_and_leaves_the_path_alone(tmp_path):
    for name in ("model", "data", "utils"):  # a bystander's, not imported
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    # Compared are the places that were there, and the clone: some versions of torch add a temporary folder of theirs.
    check = f"assert sys.path[: len(before)] == before and sys.path.count({str(ROOT)!r}) == before.count({str(ROOT)!r})"
    done = run_python(f"before = list(sys.path)\nimport selfvos\n{check}", tmp_path)
    assert done.returncode == 0, done.stderr


def test_other_modules_of_these_names_are_refused_in_one_line(tmp_path):
    (tmp_path / "utils.py").write_text("")
    done = run_python("import utils\nimport selfvos", tmp_path)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError")]
    assert str(tmp_path / "utils.py") in line
    assert done.stderr.endswith(f"{line}\n")


def test_a_copy_without_the_clone_says_how_to_install(tmp_path):
    shutil.copytree(ROOT / "selfvos", tmp_path / "selfvos")
    done = subprocess.run([sys.executable, "-c", "import selfvos"], cwd=tmp_path, capture_output=True, text=True)
    assert "model is missing; install with `pip install -e .`" in done.stderr.splitlines()[-1]


def test_keywords_with_other_names_than_their_flags_are_documented():
    told = inspect.getdoc(Predictor.from_pretrained).partition("Args:")[0]
    renamed = {keyword.partition("=")[0] for flag, keyword in KEYWORDS.items() if flag != f"--{keyword}"}
    assert set(re.findall(r"^ +(\w+)=", told, flags=re.M)) == renamed
    assert all(f"`{step}`" in told for step in STEPS)


def test_the_example_runs(tmp_path, frames, monkeypatch, capfd):
    """In this process; that another finds the import is tested above. The first frames do not show the best object."""
    write_clip(tmp_path / "clip.mp4", [*np.zeros_like(frames[:2]), *frames[:2]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py", "clip.mp4", "masks"])
    runpy.run_path(str(ROOT / "docs/example.py"), run_name="__main__")
    printed, said = capfd.readouterr()
    assert said == ""
    masks = read_masks(tmp_path / "masks")
    assert [(mask == 1).any() for mask in masks] == [False, False, True, True]
    assert "attention (1, 20, 3" in printed
    assert "frame 3: " in printed
