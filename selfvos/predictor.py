"""Segment videos with one object: `Predictor`."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.frames import resize
from data.resolution import ResolutionRule, check_resolution, scale_to_patches
from data.selection import choose_resolutions
from data.videos import Video, read_resized_frames
from model.attention import mean_attention
from model.clustering import WINDOW
from model.engine.threshold import CLUSTER_RANGE
from model.network import SpatioTemporalNetwork, build_network, check_origin
from model.objects.proposals import choose_proposals, object_options
from model.objects.upsampling import upsample_labels
from model.segmenter import Progress, Segmenter, SegmenterSettings, ignore_progress, key_frame_indices
from model.stream import FrameStream
from model.weights import checkpoint_path
from selfvos.checks import (
    check_choice,
    check_frame,
    check_max_objects,
    check_point,
    check_positive,
    check_settings,
    check_two_sides,
    check_whole,
)
from selfvos.keywords import raise_with_keywords, use_keywords
from selfvos.result import Result, list_proposals
from selfvos.sources import FrameArray, Frames, open_source, read_stream
from utils.clock import Clock
from utils.config import choose_temperature
from utils.device import choose_amp, choose_device
from utils.errors import UserError
from utils.flags.choices import AUTO, OBJECTS, OWN_VIDEO, UPSAMPLINGS
from utils.run.checkpoints import load_checkpoint, stored_tau

RESOLUTION = (160, 280)  # pixels with patches of 8, that of configs/own_video.yaml
OBJECT_MAPS, FOREGROUND = "davis", "foreground"  # kinds of predictions: at most 20 proposals, one mask
IMAGE_STATS = ("imagenet", "reference")


class Predictor:
    """Find the objects of videos without labels, as `bash start_eval.sh clip.mp4` does.

    Made by `Predictor.from_pretrained`. Nothing is printed and no file is written; what the programs print as a note is
    a Python warning. Bad input raises `selfvos.UserError`, one line that names the keyword or file at fault.

    Attributes:
        network: backbone and block, in evaluation mode.
        settings: of attention, clustering and objects.
        device: where everything is computed.
    """

    @raise_with_keywords()
    def __init__(
        self, network: SpatioTemporalNetwork, settings: SegmenterSettings, *,
        resolution: tuple[int, int] | None = None, max_objects: int | None = None, upsampling: str = "guided",
    ):  # fmt: skip
        settings = check_settings(settings)
        settings = replace(settings, amp=choose_amp(settings.amp, next(network.parameters()).device))
        _check_output(resolution, max_objects, upsampling)
        patch_size = network.backbone.patch_size
        self._rule = ResolutionRule(
            scale_to_patches(RESOLUTION, patch_size) if resolution is None else tuple(map(int, resolution)), patch_size,
            explicit=resolution is not None, fit_every_video=True,
        )  # fmt: skip
        check_resolution(self._rule.resolution, patch_size)
        self._segmenter = Segmenter(network, settings)
        self._max_objects = max_objects
        self._upsampling = upsampling

    @classmethod
    @use_keywords()
    def from_pretrained(
        cls, backbone: str = "embedded", *, device: str | torch.device = "auto",
        dino_path: str | os.PathLike | None = None, checkpoint_key: str | None = None, image_stats: str = "imagenet",
        block: str | os.PathLike | None = None, num_blocks: int = 1, num_heads: int = 8,
        temperature: float | None = None, resolution: tuple[int, int] | None = None, max_objects: int | None = None,
        upsampling: str = "guided", **settings: Any,
    ) -> "Predictor":  # fmt: skip
        """Load a backbone and a block.

        Keywords are named as the flags of eval.py without dashes, but for

            block=FILE          --resume_path FILE; None: --training_free
            num_blocks=N        --num_t N
            key_stride=R        --ratio R
            objects={...}       --proposals, as `reassign`, `merge`, `split` and `join` -> bool, each True if it is
                                missing; None: --proposals clusters
            motion=bool         --motion flow or none

        Args:
            backbone: a ViT of timm, such as `vit_small_patch14_dinov2.lvd142m`, or `embedded`, that in assets/.
            device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.
            dino_path: file with the backbone's weights; otherwise timm downloads them once.
            checkpoint_key: model to take from a training checkpoint given as `dino_path`, such as `teacher`.
            image_stats: statistics that frames are normalised with, `imagenet` or `reference`.
            block: checkpoint of train.py or of the released implementation; `embedded` for the one in assets/; None
                for the training-free block.
            num_blocks, num_heads: of the checkpoint.
            temperature: sharpness of the training-free block; by default 4.75 for `embedded` and 3 for others.
            resolution: (height, width) in pixels to which every frame is resized, multiples of the patch size. By
                default the video keeps its shape, with about as many patches as 160 x 280 pixels have of 8 x 8.
            max_objects: keep only this many proposals, at most 20.
            upsampling: of masks to pixels, `guided` by the frame's colours or `nearest`.
            settings: fields of `model.segmenter.SegmenterSettings` but `explain`, such as `clustering="fast"`,
                `clusters=(2, 6)`, `memory_gb=4.0`. By default tau is `auto`, the threshold that train.py stored with
                the block, else 1. The other defaults are those of `bash start_eval.sh clip.mp4`: objects are made,
                motion is measured, 5 to 21 clusters.

        Raises:
            UserError: an impossible value, a missing or unfit file.
        """
        if block is not None and temperature is not None:
            raise UserError("temperature: has no effect beside block; give one of the two")
        if temperature is not None:
            check_positive("temperature", temperature)
        check_choice("image_stats", image_stats, IMAGE_STATS)
        check_whole("num_blocks", num_blocks)
        check_whole("num_heads", num_heads)
        _check_output(resolution, max_objects, upsampling)
        tau = settings.pop("tau", AUTO)
        made = check_settings(_make_settings(settings if tau == AUTO else settings | {"tau": tau}))
        chosen = choose_device(str(device))
        file = None if block is None else checkpoint_path(os.fspath(block))
        checkpoint = None if file is None else load_checkpoint(file)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the same
            network = build_network(
                backbone=backbone, dino_path=None if dino_path is None else os.fspath(dino_path),
                checkpoint_key=checkpoint_key, image_stats=image_stats, checkpoint=checkpoint, source=str(file),
                num_blocks=num_blocks, num_heads=num_heads, with_cls=False,
            )  # fmt: skip
            if checkpoint is None:
                network.init_blocks("identity", temperature=temperature or choose_temperature(backbone, OWN_VIDEO))
            else:
                check_origin(checkpoint, network, num_heads=num_heads, source=file)
        if tau == AUTO:
            made = replace(made, tau=stored_tau(checkpoint) or made.tau)
        return cls(network.to(chosen), made, resolution=resolution, max_objects=max_objects, upsampling=upsampling)

    @property
    def network(self) -> SpatioTemporalNetwork:
        return self._segmenter.network

    @property
    def settings(self) -> SegmenterSettings:
        return self._segmenter.settings

    @property
    def device(self) -> torch.device:
        return self._segmenter.device

    @use_keywords()
    def segment(self, source: str | os.PathLike | Frames, *, progress: Progress = ignore_progress) -> Result:
        """Segment a video.

        Args:
            source: path of a video file or a folder of frames, which is read twice and never held in memory whole; or
                frames in memory, (T, H, W, 3) or (T, 3, H, W) uint8 RGB: an array, a tensor, or a list of frames.
            progress: called with the name of a stage and the number of frames that have passed it.

        Raises:
            UserError: the source cannot be read, or the video does not fit `memory_gb`.
        """
        video = open_source(source)
        resolution, count, clock = self._choose_resolution(video), len(video.frame_names), Clock(self.device)
        found = self._segmenter.segment(read_resized_frames(video, resolution), num_frames=count, progress=progress)
        proposals = choose_proposals(found, (OBJECT_MAPS, FOREGROUND), limit=self._max_objects)
        masks = np.empty((count, *video.size), dtype=np.uint8)
        foreground = np.empty(masks.shape, dtype=bool)
        maps = proposals.label_maps(video.read(), upsampling=self._upsampling, device=self.device)
        for index, kinds in enumerate(clock.iterate("upsample", maps)):
            masks[index], foreground[index] = kinds[OBJECT_MAPS], kinds[FOREGROUND] > 0
            progress("writing", index + 1)
        return Result(
            masks=masks, foreground=foreground, proposals=list_proposals(proposals, OBJECT_MAPS),
            seconds={**found.seconds, **clock.seconds}, tau=found.tau, num_clusters=found.num_clusters,
            resolution=resolution, key_frames=self.choose_key_frames(count), frame_names=video.frame_names,
            source=video,
        )  # fmt: skip

    def stream(
        self, frames: Iterable[np.ndarray | Tensor], *, key_frames: Frames | None = None, step: int = WINDOW,
        tau: float | None = None,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Segment frames as they come, in memory that grows with the number of clusters alone.

        What a frame shows is only known from the frames before it. So these are clusters, not objects: nothing is
        ranked, no cluster is background, and the numbers of clusters change when two are merged. The block must be one.

        Args:
            frames: (H, W, 3) or (3, H, W) uint8 RGB, of one size; may never end.
            key_frames: frames in memory to which attention is paid, as for `segment` and of the size of `frames`, such
                as earlier ones of the same place. By default the first `step` frames.
            step: frames that are awaited and then labelled together.
            tau: threshold of the clustering in nats, by default that of `settings`. It is not searched, so `tau` of the
                `Result` of a similar video is a good one.

        Returns:
            An iterator over (H, W) int32, one a frame: the cluster of every pixel, from 0.

        Raises:
            UserError: an impossible value; while iterating, a frame that is none or has another size, or settings that
                need whole videos.
        """
        check_whole("step", step)
        if tau is not None:
            check_positive("tau", tau)
        given = None if key_frames is None else list(FrameArray(key_frames, name="key_frames").read())
        settings = replace(self.settings, tau=tau or self.settings.tau, motion=False, objects=None, clusters=None)
        incoming = read_stream(iter(frames), size=None if given is None else tuple(given[0].shape[1:]))
        return self._label_batches(Segmenter(self.network, settings), incoming, given, step)

    def _label_batches(
        self, segmenter: Segmenter, frames: Iterator[Tensor], key_frames: list[Tensor] | None, step: int
    ) -> Iterator[np.ndarray]:
        stream, resolution = None, (0, 0)
        while batch := list(islice(frames, step)):
            with raise_with_keywords():
                if stream is None:
                    resolution = self._rule.choose(batch[0].shape[1:])
                    stream = FrameStream(segmenter, _stack_resized(key_frames or batch, resolution))
                labels = stream.step(_stack_resized(batch, resolution)).cpu().numpy()
            yield from upsample_labels(labels, batch, how=self._upsampling, device=self.device)

    @use_keywords()
    @torch.no_grad()
    def attention(
        self, source: Result | str | os.PathLike | Frames, *, frame: int, point: tuple[float, float]
    ) -> np.ndarray:
        """Compute what the token at a point attends to: the row of attention that clustering compares.

        Only the key frames and `frame` are encoded, again if they were before.

        Args:
            source: the result of `segment`, or what it takes.
            frame: position of the frame, from 0.
            point: (x, y) in pixels of the source, from its upper left corner.

        Returns:
            (F, h, w) float32 over the tokens of the F key frames (`Result.key_frames`), with sum 1.

        Raises:
            UserError: the point or the frame lies outside.
        """
        video = source.source if isinstance(source, Result) else open_source(source)
        count, (height, width) = len(video.frame_names), video.size
        check_frame(frame, count)
        check_point(point, video.size)
        x, y = point
        key_frames, resolution = self.choose_key_frames(count), self._choose_resolution(video)
        positions = sorted({*key_frames, frame})
        frames = [resize(image, resolution) for image in video.read(positions)]
        grid = self._segmenter.grid_size(*resolution)
        encoded = torch.cat([
            self._segmenter.encode_batch(torch.stack(frames[at : at + self.settings.frame_batch]))
            for at in range(0, len(frames), self.settings.frame_batch)
        ])  # fmt: skip
        num_keys = len(key_frames)
        features = encoded[[positions.index(position) for position in (*key_frames, frame)]]
        features = self.network.refine(features, list(range(num_keys)))
        token = int(y * grid[0] / height) * grid[1] + int(x * grid[1] / width)
        queries = self.network.queries(features[num_keys, token : token + 1])
        rows = mean_attention(queries, self.network.keys(features[:num_keys].flatten(0, 1)))
        return rows.view(num_keys, *grid).cpu().numpy()

    def choose_key_frames(self, num_frames: int) -> list[int]:
        """List the positions of the key frames of a video of `num_frames` frames."""
        return key_frame_indices(num_frames, self.settings.key_stride, self.settings.max_key_frames)

    def _choose_resolution(self, video: Video | FrameArray) -> tuple[int, int]:
        return choose_resolutions([video], self._rule)[video.name]


def _stack_resized(frames: list[Tensor], resolution: tuple[int, int]) -> Tensor:
    return torch.stack([resize(frame, resolution) for frame in frames])


def _check_output(resolution: tuple[int, int] | None, max_objects: int | None, upsampling: str) -> None:
    check_two_sides("resolution", resolution)
    check_max_objects(max_objects)
    check_choice("upsampling", upsampling, UPSAMPLINGS)


def _make_settings(given: dict[str, Any]) -> SegmenterSettings:
    """Make settings from keywords over the defaults of configs/own_video.yaml; refuse unknown keywords."""
    names = [field.name for field in fields(SegmenterSettings)]
    if unknown := sorted(given.keys() - set(names)):
        raise TypeError(f"from_pretrained got an unknown keyword '{unknown[0]}'; settings are {', '.join(names)}")
    return SegmenterSettings(**{"objects": object_options(OBJECTS), "motion": True, "clusters": CLUSTER_RANGE} | given)
