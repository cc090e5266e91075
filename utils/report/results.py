"""Read what a report shows of a folder of results: settings, statistics and scores."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_object
from utils.predictions import FOREGROUND, MEND, locate_predictions, read_kinds
from utils.report.attention import EXPLORE
from utils.scoring.protocols import PROTOCOLS


@dataclass(frozen=True)
class Results:
    """A folder of label PNGs, of eval.py or of another program.

    Attributes:
        path: the folder.
        scores_path: the folder below which scores lie if it is another one.
    """

    path: Path
    scores_path: Path | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What eval.py wrote about the predictions; empty for another program's."""
        marker = self.path / "settings.json"
        return read_object(marker, mend=MEND) if marker.is_file() else {}

    @cached_property
    def kinds(self) -> list[str]:
        """The kinds of predictions that eval.py wrote; empty for another program's."""
        return read_kinds(self.settings, self.path / "settings.json", mend=MEND)

    @property
    def kind(self) -> str | None:
        """The kind of predictions that is shown, the first one; None for another program's."""
        return self.kinds[0] if self.kinds else None

    @property
    def predictions(self) -> Path:
        """Return the folder that has one folder of PNGs per video.

        `path` may itself be the folder of one of several kinds.
        """
        return self.locate(self.kind)

    @property
    def foreground(self) -> Path | None:
        """Return the folder of PNGs of the foreground; None if there is none beside the kind that is shown first."""
        return self.locate(FOREGROUND) if FOREGROUND in self.kinds[1:] else None

    def locate(self, kind: str | None) -> Path:
        """Return the folder of PNGs of one of `kinds`, see `predictions`."""
        folder = locate_predictions(self.path, self.kinds, kind)
        return folder if folder.is_dir() else self.path

    def explanation(self, video: str) -> Path:
        """Return the folder of what explains a video's masks, which eval.py --explore writes."""
        return self.path / EXPLORE / video

    def read_stats(self, video: str) -> tuple[float | None, dict[int, dict[str, Any]]]:
        """Read what eval.py recorded of a video: the seconds it took, and id -> score and components of a proposal.

        Of several parts of one proposal, the best is kept. Both are empty for another program's masks.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "stats" / f"{video}.json"
        if not path.is_file():
            return None, {}
        content, found = read_object(path, mend=MEND), {}
        try:
            for entry in content["proposals"].get(self.kind, ()):
                if entry["id"] not in found or entry["score"] > found[entry["id"]]["score"]:
                    found[entry["id"]] = entry
            return sum(content["seconds"].values()), found
        except (LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: no statistics of eval.py ({error!r}); {MEND}") from error

    def find_scores(self, video: str) -> dict[str, Path]:
        """Find the saved scores of a video: protocol -> file."""
        found = {}
        for name, protocol in PROTOCOLS.items():
            root = self.scores_path or self.path
            for place in (root, root / protocol.predictions):
                path = place / "scores" / name / "sequences" / f"{video}.json"
                if path.is_file():
                    found.setdefault(name, path)
        return found

    def read_scores(self, video: str) -> dict[str, Any]:
        """Read the scores of a video: protocol -> an object of the protocol's class.

        Raises:
            UserError: a file is damaged.
        """
        scores = {}
        for name, path in self.find_scores(video).items():
            content = read_object(path, mend="score the results again")
            try:
                scores[name] = PROTOCOLS[name].scores.from_json(video, content["scores"])
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise UserError(f"{path}: not scores of this program ({error!r}); score the results again") from error
        return scores


def is_background(proposal: dict[str, Any], *, kind: str | None) -> bool:
    """Tell whether a proposal is background; such ones are hidden at first, and left out of overlays.

    Args:
        proposal: an entry of `Proposals.describe`, as eval.py records it; empty for another program's.
        kind: the kind of predictions; a foreground is never background.
    """
    return proposal.get("background", False) and kind != FOREGROUND


def choose_main_protocol(names: set[str]) -> str | None:
    """Choose the protocol whose J and F a report shows first, among those that were scored; None if none has any."""
    return next((name for name in PROTOCOLS if name in names and PROTOCOLS[name].scores.HEADLINE == "J&F-Mean"), None)
