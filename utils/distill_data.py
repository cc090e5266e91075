"""What a distillation learns from: pairs of augmented views of images and what the teacher makes of them.

The teacher runs once; its answers are kept in shards (safetensors, float16) that several processes may fill.
"""

import argparse
import functools
import json
import math
import os
import random
import time
from collections.abc import Iterable
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from utils.checkpoint import load_tensors, write_whole
from utils.errors import UserError
from utils.json_files import read_object
from utils.names import may_hold_frames
from utils.own_output import RESULTS, RUN, find_frames, refuse_own_output
from utils.pictures import PictureError, read_picture, to_rgb, value_range

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
HELD_OUT_EVERY = 20
HELD_OUT_PAIRS = 24
SHARD_PAIRS = {"small": 32, "large": 8}  # pairs of views in one shard, by grid
CROP_AREA = {"small": (0.2, 0.9), "large": (0.5, 1.0)}  # share of the image's area
PAIR_GAP = 30  # frames, at most, between the two views of a clip
SOURCES_KEY = "sources"  # in the header of the held-out set: what `count_sources` gives
TEACHER_HASH = "teacher_sha256"  # of the teacher's tensors

# -------------------------------------------------------------------------------- images


def list_groups(root: Path) -> list[list[Path]]:
    """Images below `root`: one group per sub-folder (a clip, frames in order), one group per loose image.

    Hidden files and folders, folders of annotations and what our programs wrote are passed over.
    """
    if not root.is_dir():
        raise UserError(f"--images {root}: no such folder")
    refuse_own_output(root, flag="--images")
    clips: dict[Path, list[Path]] = {}
    for folder, children, _ in os.walk(root, followlinks=True):
        images, ours = find_frames(Path(folder))
        children[:] = [] if ours in (RESULTS, RUN) else filter(may_hold_frames, children)
        for path in images:
            clips.setdefault(group_of(path, root), []).append(path)
    if len(clips) < 2:
        raise UserError(f"--images {root}: holds {len(clips)} photos or clips, at least 2 are needed")
    return [clips[name] for name in sorted(clips)]


def group_of(path: Path, root: Path) -> Path:
    """What an image belongs to: its folder, a clip, or itself where it lies directly in `root`."""
    return path if path.parent == root else path.parent


def split_groups(groups: list[list[Path]], held_out: bool) -> list[list[Path]]:
    return [group for i, group in enumerate(groups) if (i % HELD_OUT_EVERY == 0) == held_out]


@functools.lru_cache(maxsize=16)
def shuffled(count: int, seed: str) -> list[int]:
    return random.Random(seed).sample(range(count), count)


def pick_pair(sources: list[list[list[Path]]], number: int, seed: str) -> tuple[Path, Path]:
    """The `number`-th pair of an endless stream that alternates between sources and exhausts each in turn."""
    groups = sources[number % len(sources)]
    epoch, position = divmod(number // len(sources), len(groups))
    group = groups[shuffled(len(groups), f"{seed}/{number % len(sources)}/{epoch}")[position]]
    rng = random.Random(f"{seed}/{number}")
    first = rng.randrange(len(group))
    second = min(max(first + rng.randint(-PAIR_GAP, PAIR_GAP), 0), len(group) - 1)
    return group[first], group[second]


def random_box(width: int, height: int, *, aspect: float, area: tuple[float, float], rng: random.Random):
    """A crop (left, top, right, bottom): its share of the image in `area`, its aspect near `aspect`."""
    for _ in range(20):
        size, ratio = width * height * rng.uniform(*area), aspect * math.exp(rng.uniform(-0.3, 0.3))
        w, h = math.sqrt(size * ratio), math.sqrt(size / ratio)
        if w <= width and h <= height:
            break
    else:  # the image is much narrower or wider than the grid: the largest crop of the right aspect
        w, h = min(width, height * aspect), min(height, width / aspect)
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h


def read_views(path: Path, *, grid: tuple[int, int], patches: tuple[int, int], area: tuple[float, float], rng):
    """One random crop of the image at `path`, uint8 (3, h*p, w*p) for each patch size p in `patches`."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        raise UserError(f"{path}: not a readable image ({error}); {error.mend or 'restore or remove it'}") from error
    image = Image.fromarray(to_rgb(picture, *value_range([picture])) if picture.is_deep else picture.values)
    box = random_box(*image.size, aspect=grid[1] / grid[0], area=area, rng=rng)
    flip = rng.random() < 0.5
    views = []
    for patch in patches:
        view = image.resize((grid[1] * patch, grid[0] * patch), Image.Resampling.BICUBIC, box=box)
        view = TF.pil_to_tensor(view)
        views.append(view.flip(-1) if flip else view)
    return views


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> ImageNet statistics."""
    mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std


def jitter(images: Tensor, p: float = 0.5, strength: float = 0.25) -> Tensor:
    """Brightness, contrast, saturation and hue of each image (B, 3, H, W) in [0, 1], each with probability p.

    Every fifth image loses its colours and as many their sharpness, so that the student cannot get by on colour.
    """
    pick = functools.partial(_coins, images)
    amount = (torch.rand(3, len(images), 1, 1, 1, device=images.device) * 2 - 1) * strength
    brightness, contrast, saturation = 1 + amount * (torch.rand_like(amount[:1]) < p)
    images = images * brightness
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * saturation.where(~pick(0.2), torch.zeros_like(saturation))
    images = _turn_hue(images, strength * math.pi * pick(p))
    average = grey.mean(dim=(2, 3), keepdim=True)
    images = average + (images - average) * contrast
    images = torch.where(pick(0.2), TF.gaussian_blur(images, kernel_size=[7, 7], sigma=[1.2]), images)
    return images.clamp(0, 1)


def _coins(images: Tensor, p: float) -> Tensor:
    """True with probability p for each of `images`: (B, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < p


def _turn_hue(images: Tensor, largest: Tensor) -> Tensor:
    """Turn the colours of images (B, 3, H, W) about the grey axis by up to `largest` (B, 1, 1, 1) radians."""
    angle = (torch.rand_like(images[:, :1, :1, :1]) * 2 - 1) * largest
    grey = images.mean(dim=1, keepdim=True)
    # Rodrigues' formula for the axis (1, 1, 1) / sqrt(3): the cross product is a difference of channels.
    cross = (images.roll(1, dims=1) - images.roll(2, dims=1)) / math.sqrt(3)
    return grey + (images - grey) * angle.cos() + cross * angle.sin()


def mirror(batch: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Flip images and token grids of `rows` rows left to right; a teacher is nearly equivariant to that."""
    flipped = {name: batch[name].unflatten(2, (rows, -1)).flip(3).flatten(2, 3) for name in ("keys", "tokens")}
    return batch | flipped | {"images": batch["images"].flip(-1)}


# -------------------------------------------------------------------------------- the teacher


def encode(vit: VisionTransformer, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, H, W) -> last-layer keys (B, N, C), final patch tokens (B, N, C), CLS (B, C)."""
    captured: list[Tensor] = []
    hook = vit.blocks[-1].attn.qkv.register_forward_hook(lambda module, args, output: captured.append(output))
    try:
        tokens = vit.forward_features(images)
    finally:
        hook.remove()
    keys = captured[0].chunk(3, dim=-1)[1]
    return keys[:, vit.num_prefix_tokens :], tokens[:, vit.num_prefix_tokens :], tokens[:, 0]


def load_teacher(name: str, path: Path) -> VisionTransformer:
    """A frozen timm ViT filled exactly from a state dict (.pth or .safetensors, any float type).

    Raises:
        UserError: an unreadable file, a name that timm does not know or that is no ViT, or weights of another model.
    """
    state = load_tensors(path)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"--teacher_path {path}: holds other things than tensors; give a bare state dict, timm names")
    try:
        teacher = timm.create_model(name, num_classes=0, dynamic_img_size=True)
        teacher.load_state_dict({key: value.float() for key, value in state.items()})
    except (RuntimeError, TypeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"--teacher_path {path}: does not fit --teacher {name} ({detail}); give the ViT "
                        "that the file was made for, by timm's name") from error  # fmt: skip
    return teacher.eval().requires_grad_(False)


# -------------------------------------------------------------------------------- the cache


def check_cache_settings(args: argparse.Namespace) -> None:
    """A cache belongs to one teacher, patch size, grids, seed and images; say so instead of mixing two.

    Raises:
        UserError: the folder belongs to others, or does not say to which.
    """
    keys = ("teacher", TEACHER_HASH, "patch_size", "small_grid", "large_grid", "seed")
    settings = {key: getattr(args, key) for key in keys}
    settings["images"] = [str(root) for root in args.images]
    path = args.cache / "settings.json"
    if not path.exists():
        write_whole(path, lambda partial: partial.write_text(json.dumps(settings, indent=1)))
        return
    found = read_settings(path)
    if TEACHER_HASH not in found:
        print(f"--cache {args.cache}: made before the teacher's weights were noted; taken to be this teacher's")
        settings.pop(TEACHER_HASH)
    differing = [flag_of(key) for key in settings if found.get(key) != settings[key]]
    if differing:
        raise UserError(f"--cache {args.cache}: was made with another {', '.join(differing)}; name another folder")


def read_settings(path: Path) -> dict:
    """The settings of a cache. Raises `UserError`: the file is damaged."""
    mend = "delete it if the shards beside it are of this very command, else name another --cache"
    return read_object(path, mend=mend)


def flag_of(key: str) -> str:
    """The flag that decides on an entry of the settings."""
    return "teacher_path" if key == TEACHER_HASH else key


def shard_bytes(*, small_grid: list[int], large_grid: list[int], patch_size: int, width: int) -> int:
    """Size of a training shard but for its header; `width`: channels of the teacher."""
    sizes = {"small": small_grid, "large": large_grid}
    return sum(SHARD_PAIRS[size] * pair_bytes(grid, patch_size, width) for size, grid in sizes.items())


def pair_bytes(grid: list[int], patch_size: int, width: int) -> int:
    """Two crops as uint8; for each the keys and the output tokens, the CLS token too, as float16."""
    tokens = math.prod(grid)
    return 2 * (3 * tokens * patch_size**2 + 2 * (2 * tokens + 1) * width)


def fill_cache(args: argparse.Namespace, teacher: VisionTransformer, device: torch.device) -> None:
    """Write the shards that are missing, in random order, so that several processes can share the work."""
    names = ["held_out", *(f"{number:04d}" for number in range(args.cache_shards))]
    missing = [name for name in names if not (args.cache / f"{name}.safetensors").exists()]
    if not missing or args.skip_cache:
        return
    grids = {"small_grid": args.small_grid, "large_grid": args.large_grid}
    size = shard_bytes(**grids, patch_size=args.patch_size, width=teacher.embed_dim)
    print(f"cache: {len(missing)} shards to make, {size / 1e6:.1f} MB each", flush=True)
    random.Random(os.getpid()).shuffle(missing)
    teacher = teacher.to(device)
    groups = [list_groups(root) for root in args.images]
    for name in missing:
        if (args.cache / f"{name}.safetensors").exists():
            continue
        start, held_out = time.monotonic(), name == "held_out"
        sources = [split_groups(of_root, held_out) for of_root in groups]
        shard: dict[str, Tensor] = {}
        metadata = {}
        for size in ("large",) if held_out else ("small", "large"):
            count = HELD_OUT_PAIRS if held_out else SHARD_PAIRS[size]
            first = 0 if held_out else int(name) * count
            pairs = [pick_pair(sources, number, f"{args.seed}/{size}") for number in range(first, first + count)]
            shard |= teach(teacher, pairs, size, args, seed=f"{args.seed}/{size}/{name}", device=device)
            if held_out:
                metadata = {SOURCES_KEY: json.dumps(count_sources(pairs, args.images))}
        write = functools.partial(save_file, shard, metadata=metadata)
        write_whole(args.cache / f"{name}.safetensors", write)
        print(f"cache: shard {name} of {args.cache_shards}, {time.monotonic() - start:.1f} s", flush=True)


def count_sources(pairs: list[tuple[Path, Path]], roots: list[Path]) -> list[tuple[str, int, int]]:
    """For each of `roots`, which `pairs` take in turn: its name, pairs from it, photos and clips these are of."""
    counts = []
    for i, root in enumerate(roots):
        own = pairs[i :: len(roots)]
        counts.append((str(root), len(own), len({group_of(first, root) for first, _ in own})))
    return counts


@torch.inference_mode()
def teach(teacher, pairs, size: str, args: argparse.Namespace, *, seed: str, device) -> dict[str, Tensor]:
    """Crops of I pairs of images and what the teacher makes of them.

    Returns `{size}_images` (I, 2, 3, H, W) uint8 for the student, and float16 `{size}_keys` and
    `{size}_tokens` (I, 2, N, C) and `{size}_cls` (I, 2, C) of the teacher.
    """
    rng = random.Random(seed)
    grid = tuple(getattr(args, f"{size}_grid"))
    patches = (args.patch_size, teacher.patch_embed.patch_size[0])
    views = [
        read_views(path, grid=grid, patches=patches, area=CROP_AREA[size], rng=rng) for pair in pairs for path in pair
    ]
    columns: list[tuple[Tensor, ...]] = []
    for chunk in torch.stack([view[1] for view in views]).split(max(1, 2000 // (grid[0] * grid[1]))):
        images = normalise(chunk.to(device).float() / 255)
        columns.append(tuple(out.half().cpu() for out in encode(teacher, images)))
    keys, tokens, cls = (torch.cat(column).unflatten(0, (-1, 2)).contiguous() for column in zip(*columns, strict=True))
    images = torch.stack([view[0] for view in views]).unflatten(0, (-1, 2))
    return {f"{size}_images": images, f"{size}_keys": keys, f"{size}_tokens": tokens, f"{size}_cls": cls}


def load_held_out(folder: Path) -> dict[str, Tensor]:
    """The pairs that no student learns from, as `teach` makes them at the large grid."""
    path = folder / "held_out.safetensors"
    if not path.exists():
        raise UserError(f"--cache {folder}: holds no held_out.safetensors; fill it, without --skip_cache")
    return load_tensors(path)


def describe_held_out(folder: Path) -> str:
    """What the held-out set holds, in words."""
    with safe_open(folder / "held_out.safetensors", framework="pt") as file:
        pairs, _, _, height, width = file.get_slice("large_images").get_shape()
        tokens, channels = file.get_slice("large_keys").get_shape()[2:]
        noted = json.loads((file.metadata() or {}).get(SOURCES_KEY, "null"))
    text = f"{folder / 'held_out.safetensors'}: {pairs} pairs of views, {height}x{width} pixels, {tokens} tokens, "
    text += f"teacher's keys of {channels} channels; "
    if noted is None:
        return text + "it does not say of which images (made before that was noted)"
    return text + ", ".join(f"{count} pairs of {groups} photos and clips of {root}" for root, count, groups in noted)


class Cache:
    """Random access to the pairs in the training shards of a folder; files stay memory-mapped.

    The number of a pair follows from its shard's name and its row, so it stays when shards come or go.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.shards: dict[int, safe_open] = {}
        self.open_new_shards()
        if not self.shards:
            raise UserError(f"--cache {folder}: holds no complete shards; run without --skip_cache")
        self.held_out = load_held_out(folder)

    def open_new_shards(self) -> None:
        """Another process may still be filling the folder."""
        for path in self.folder.glob("[0-9]*.safetensors"):
            if path.stem.isdecimal() and int(path.stem) not in self.shards:
                self.shards[int(path.stem)] = safe_open(path, framework="pt")

    def pairs(self, size: str) -> list[int]:
        """Numbers of the pairs that are there, in order."""
        count = SHARD_PAIRS[size]
        return [shard * count + row for shard in sorted(self.shards) for row in range(count)]

    def batch(self, size: str, numbers: list[int]) -> dict[str, Tensor]:
        """`images`, `keys`, `tokens`, `cls` of the numbered pairs, shapes as in `teach`."""
        where = [divmod(number, SHARD_PAIRS[size]) for number in numbers]
        return {
            name: torch.stack([self.shards[shard].get_slice(f"{size}_{name}")[row] for shard, row in where])
            for name in ("images", "keys", "tokens", "cls")
        }


class Stream:
    """Endless batches of `pairs` pairs, every pair once an epoch; shards that came since join the next.

    The order of an epoch follows from seed, size and epoch, so a stream goes on from its `state`.

    Args:
        epoch, left: the epochs begun, and the pairs left of the last: the `state` of the stream to continue.
    """

    def __init__(self, cache: Cache, size: str, *, pairs: int, seed: int, epoch: int = 0, left: Iterable[int] = ()):
        self.cache, self.size, self.count, self.seed, self.epoch = cache, size, pairs, seed, epoch
        there = set(cache.pairs(size))  # shards may have been removed since
        self.left = [number for number in left if number in there]

    def next(self) -> dict[str, Tensor]:
        """A batch, as `Cache.batch` gives it."""
        while len(self.left) < self.count:
            self.cache.open_new_shards()
            numbers = self.cache.pairs(self.size)
            self.left += random.Random(f"{self.seed}/{self.size}/{self.epoch}").sample(numbers, len(numbers))
            self.epoch += 1
        chosen, self.left = self.left[: self.count], self.left[self.count :]
        return self.cache.batch(self.size, chosen)

    def state(self) -> dict:
        return {"epoch": self.epoch, "left": self.left}
