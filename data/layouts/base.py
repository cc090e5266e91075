"""What every layout can do, and datasets that come in several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.videos import Video
from utils.errors import UserError


class Layout(Protocol):
    """How the tree of a dataset looks: which videos a split has, and where each keeps what."""

    merged: bool  # all objects are one foreground object
    sparse: bool  # not every frame need have an annotation
    split_source: str  # where the names of a split come from, in words
    fixed_splits: bool  # there are no splits but those of the registry, whatever lies below the root

    def names(self, root: Path, split: str) -> list[str]:
        """Names of the videos of a split in order, at least one. Raises `UserError` that begins with the file."""
        ...

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        """One of the videos that `names` gave; without looking for annotations unless `annotated`.

        Raises:
            UserError: frames or annotations are missing, do not match, or are described wrongly.
        """
        ...

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        """What else does not fit in a video that `video` gave, a line each: it can be segmented and scored, but files
        lie there that nothing reads, or those that the download itself names are missing. For `data.check`."""
        ...

    def orphans(self, root: Path, split: str) -> list[str]:
        """Annotations that belong to no video of a split, in words, a line each. For `data.check`."""
        ...

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        """The folder of all frames, or of all annotations, that is not there: another download was unpacked."""
        ...

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        """Whether a split lies below a root, or part of it, as far as a glance tells."""
        ...


class MarkedLayout(Layout, Protocol):
    """A layout that can be told from others of the same dataset."""

    looks: str  # what lies below a root of this layout and no other, in words

    def is_at(self, root: Path) -> bool:
        """Whether a root looks like this layout, as far as a glance tells."""
        ...


@dataclass(frozen=True)
class AnyOf:
    """A dataset that is passed on in several layouts; the first that a root looks like counts."""

    layouts: tuple[MarkedLayout, ...]

    @property
    def merged(self) -> bool:
        return self.layouts[0].merged

    @property
    def sparse(self) -> bool:
        return self.layouts[0].sparse

    @property
    def split_source(self) -> str:
        return ", or ".join(dict.fromkeys(layout.split_source for layout in self.layouts))

    @property
    def fixed_splits(self) -> bool:
        return all(layout.fixed_splits for layout in self.layouts)

    def at(self, root: Path) -> Layout:
        """The layout that a root has. Raises `UserError`: none of them."""
        found = next((layout for layout in self.layouts if layout.is_at(root)), None)
        if found is None:
            looks = ", or ".join(layout.looks for layout in self.layouts)
            raise UserError(f"{root}: lacks {looks}; check the root of the data set")
        return found

    def names(self, root: Path, split: str) -> list[str]:
        return self.at(root).names(root, split)

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        return self.at(root).video(root, split, name, annotated=annotated)

    def mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return self.at(root).mismatches(root, split, video)

    def orphans(self, root: Path, split: str) -> list[str]:
        return self.at(root).orphans(root, split)

    def lacks(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return self.at(root).lacks(root, split, annotated=annotated)

    def holds(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        found = next((layout for layout in self.layouts if layout.is_at(root)), None)
        return found is not None and found.holds(root, split, annotated=annotated)


def counted(where: object, items: Sequence[object], what: str, mend: str) -> list[str]:
    """The line of `data.check` about `items` that are at fault in one place, or no line where there are none."""
    return [f"{where}: {len(items)} {what}, first {items[0]}; {mend}"] if items else []
