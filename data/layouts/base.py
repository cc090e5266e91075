"""The interface of all layouts, and a layout for data sets that are distributed in several forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.videos import Video
from utils.errors import UserError


class Layout(Protocol):
    """Find the videos of a data set, their frames and their annotations below its root.

    Attributes:
        merged: all objects count as one foreground object.
        sparse: frames without an annotation are allowed.
        split_source: where the names of the videos of a split come from, in words.
        fixed_splits: only the splits in the registry exist, whatever lies below the root.
    """

    merged: bool
    sparse: bool
    split_source: str
    fixed_splits: bool

    def list_videos(self, root: Path, split: str) -> list[str]:
        """List the names of the videos of a split in order, at least one.

        Raises:
            UserError: a file is missing or unreadable; the message begins with that file or with the root.
        """
        ...

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        """Open a video that `list_videos` named; with `annotated=False`, ignore its annotations.

        Raises:
            UserError: frames or annotations are missing, or do not match.
        """
        ...

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        """Describe files of an opened video that nothing reads, and missing files that the download lists.

        The video can be segmented and scored in spite of them. For `data.check`; one line for each problem.
        """
        ...

    def find_orphans(self, root: Path, split: str) -> list[str]:
        """Describe annotations that belong to no video of the split, one line for each problem."""
        ...

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        """Return the folder of all frames or of all annotations if it does not exist, else None."""
        ...

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        """Tell quickly whether at least a part of a split lies below a root."""
        ...


class MarkedLayout(Layout, Protocol):
    """A layout that can be told from the other layouts of the same data set.

    Attributes:
        description: what lies below the root of this layout and of no other, in words.
    """

    description: str

    def matches(self, root: Path) -> bool:
        """Tell quickly whether a root has this layout."""
        ...


@dataclass(frozen=True)
class AnyOf:
    """Read a data set that is distributed in several layouts, by the first layout that matches the root."""

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

    def choose(self, root: Path) -> Layout:
        """Return the first layout that matches the root. Raises `UserError` if none does."""
        layout = self._find(root)
        if layout is None:
            wanted = ", or ".join(layout.description for layout in self.layouts)
            raise UserError(f"{root}: lacks {wanted}; check the root of the data set")
        return layout

    def _find(self, root: Path) -> Layout | None:
        return next((layout for layout in self.layouts if layout.matches(root)), None)

    def list_videos(self, root: Path, split: str) -> list[str]:
        return self.choose(root).list_videos(root, split)

    def open_video(self, root: Path, split: str, name: str, *, annotated: bool = True) -> Video:
        return self.choose(root).open_video(root, split, name, annotated=annotated)

    def find_mismatches(self, root: Path, split: str, video: Video) -> list[str]:
        return self.choose(root).find_mismatches(root, split, video)

    def find_orphans(self, root: Path, split: str) -> list[str]:
        return self.choose(root).find_orphans(root, split)

    def find_missing_folder(self, root: Path, split: str, *, annotated: bool = True) -> Path | None:
        return self.choose(root).find_missing_folder(root, split, annotated=annotated)

    def has_split(self, root: Path, split: str, *, annotated: bool = True) -> bool:
        layout = self._find(root)
        return layout is not None and layout.has_split(root, split, annotated=annotated)


def report_items(where: object, items: Sequence[object], what: str, mend: str) -> list[str]:
    """Return one line for `data.check` that counts `items` and names the first, or no line if there are none."""
    return [f"{where}: {len(items)} {what}, first {items[0]}; {mend}"] if items else []
