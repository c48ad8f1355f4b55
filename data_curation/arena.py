"""Arena learning for SFT data as DRIVE does it (arXiv 2511.06307, section 4.3): only what the model fails at is kept.

The problems are cut into k folds. The model is trained on the first, predicts the second, and only the problems it
fails go on; it is trained on those, predicts the third, and so on. This module keeps the books: which problems to train
on and to predict next, and what was kept. Training and predicting are done by whoever has a model. The paper leaves
open whether the first fold stays in the result; here it does unless `keep_first` is false.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_curation.families import unit_hash
from data_curation.storage import save_bytes


@dataclass
class Arena:
    """`folds[r]` are the ids of fold r; `kept[r]` what is left of it: all of fold 0, of later ones the failures."""

    folds: list[list[str]]
    kept: list[list[str]] = field(default_factory=list)

    @classmethod
    def of(cls, families: Mapping[str, str], folds: int = 5, seed: int = 0) -> Arena:
        """Folds of near-equal size from {problem id: family}, no family cut; ValueError for too few families."""
        members: dict[str, list[str]] = {}
        for name, family in families.items():
            members.setdefault(family or name, []).append(name)
        if folds < 2 or len(members) < folds:
            raise ValueError(f"{len(members)} families cannot be cut into {folds} folds; at least 2 folds are needed")
        parts: list[list[str]] = [[] for _ in range(folds)]
        for family in sorted(members, key=lambda name: unit_hash(f"arena {seed} {name}")):
            min(parts, key=len).extend(members[family])
        return cls(parts, [list(parts[0])])

    @property
    def round(self) -> int:
        """Number of folds that have been predicted."""
        return len(self.kept) - 1

    @property
    def is_finished(self) -> bool:
        return len(self.kept) == len(self.folds)

    def training_ids(self) -> list[str]:
        """What the model is trained on next: what was kept of the last fold."""
        return list(self.kept[-1])

    def ids_to_predict(self) -> list[str]:
        """The next fold; [] when all have been predicted."""
        return [] if self.is_finished else list(self.folds[len(self.kept)])

    def record(self, passed: Mapping[str, bool]) -> list[str]:
        """Notes the predictions of the next fold and returns its failures. ValueError if a problem has none."""
        if self.is_finished:
            raise ValueError("all folds have been predicted")
        missing = [name for name in self.ids_to_predict() if name not in passed]
        if missing:
            fold = f"fold {len(self.kept) + 1} of {len(self.folds)}"
            raise ValueError(f"{len(missing)} problems of {fold} have no result, for example {missing[0]}")
        self.kept.append([name for name in self.ids_to_predict() if not passed[name]])
        return list(self.kept[-1])

    def hard_ids(self, keep_first: bool = True) -> list[str]:
        """The SFT problems: the failures of all predicted folds, and the first fold."""
        return [name for fold in (self.kept if keep_first else self.kept[1:]) for name in fold]

    def save(self, path: str | Path) -> None:
        """Writes the books as JSON, replacing the file in one move."""
        save_bytes((json.dumps(asdict(self), indent=1) + "\n").encode(), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Arena:
        """The books in a file; FileNotFoundError without one, ValueError if it holds none, each in one line."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file; `rlvr arena new` makes one")
        try:
            body = json.loads(Path(path).read_bytes())
            return cls([list(map(str, fold)) for fold in body["folds"]], [list(map(str, k)) for k in body["kept"]])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: not the books of an arena: expected JSON with folds and kept") from None


def hard_repeat(ids: Sequence[str], hard: Collection[str], exposures: int = 2) -> list[str]:
    """The ids with each hard one `exposures` times in all ("twice hard"), copies behind the whole first pass.

    DRIVE's text can be read as two or as three exposures; its table compares equal token budgets, which two give.
    """
    if exposures < 1:
        raise ValueError(f"exposures={exposures}: at least 1 is needed")
    hard = set(hard)
    return [*ids, *(name for _ in range(exposures - 1) for name in ids if name in hard)]
