"""Learn schedulability from what was measured, without a leak: `python examples/learn.py RUN_FOLDER…`.

Sets that know each other's answer (one set under two schedulers, a set and the one grown from it) stay on one side of each split:
`group_lineage` says which they are. What the model reaches is shown beside what needs no learning: the more frequent label.
Needs `pip install 'rtfleet[learn]'`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold

import runner

_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """One of the splits: shares of the tested sets that were told rightly."""

    n_train: int
    n_test: int
    model: float
    frequent: float


def learn(*runs: str) -> list[Split]:
    """Train on four fifths of the lineages, test on the rest, five times."""
    frame = runner.load(*runs).pandas("features").dropna(subset=["label_schedulable"])
    labels = frame["label_schedulable"].astype(bool).to_numpy()
    # What was known before anything was measured, and no analysis: those are what a model has to beat.
    known = [
        name
        for name in frame.select_dtypes("number")
        if not name.startswith(("label_", "valid_", "group_", "verdict_", "margin_"))
    ]
    numbers = frame[known].astype(float).fillna(-1).to_numpy()
    splits = []
    for train, test in GroupKFold(n_splits=_FOLDS).split(numbers, labels, groups=frame["group_lineage"]):
        model = RandomForestClassifier(n_estimators=50, random_state=0).fit(numbers[train], labels[train])
        frequent = labels[train].mean() >= 0.5
        splits.append(
            Split(
                len(train),
                len(test),
                float((model.predict(numbers[test]) == labels[test]).mean()),
                float((labels[test] == frequent).mean()),
            )
        )
    return splits


if __name__ == "__main__":
    for split in learn(*sys.argv[1:]):
        print(
            f"trained on {split.n_train}, tested on {split.n_test}: model {split.model:.3f}, more frequent label {split.frequent:.3f}"
        )
