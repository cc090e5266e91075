"""What every layout can do, and datasets that come in several."""

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

    def names(self, root: Path, split: str) -> list[str]:
        """Names of the videos of a split in order, at least one. Raises `UserError` that begins with the file."""
        ...

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        """One of the videos that `names` gave; without looking for annotations unless `annotated`.

        Raises:
            UserError: frames or annotations are missing, do not match, or are described wrongly.
        """
        ...


class MarkedLayout(Layout, Protocol):
    """A layout that can be told from others of the same dataset."""

    marker: str  # what lies below a root of this layout and no other, as a pattern of file names

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

    def at(self, root: Path) -> Layout:
        """The layout that a root has. Raises `UserError`: none of them."""
        found = next((layout for layout in self.layouts if layout.is_at(root)), None)
        if found is None:
            markers = " or ".join(layout.marker for layout in self.layouts)
            raise UserError(f"{root}: lacks {markers}; check the root of the data set")
        return found

    def names(self, root: Path, split: str) -> list[str]:
        return self.at(root).names(root, split)

    def video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        return self.at(root).video(root, split, name, annotated=annotated)
