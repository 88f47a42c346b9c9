"""Labels where readers miss and invent lesions, and networks that learn from them.

    python -m docs.studies.refine              # all cells that results.csv lacks
    python -m docs.studies.refine --data knees --seeds 2    # knees, seeds 0 and 1 only
    python -m docs.studies.refine --tables     # only rewrites tables.md

Design and goals are in DESIGN.md, which was written before the first run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from torch import Tensor, nn

from docs.studies.refine import labels, real, scenes, tables
from docs.studies.shared.labels import rater_corrected
from docs.studies.shared.resumable import Cell, Row, run_missing, study_parser
from docs.studies.shared.scores import best_threshold, mean_dice
from docs.studies.shared.small_network import NetworkBudget, StudyLoss, predict, train
from nnunet_softlabel.fusion import RaterVotes
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.rater_rates import ANYONE
from nnunet_softlabel.losses import cross_entropy, dice_semimetric_loss
from nnunet_softlabel.metrics.lesions import count_lesions

RESULTS = Path(__file__).parent / "results.csv"
DATA = ("knees", "scenes", "lidc", "brain growth", "hippocampus")
KEY = ("data", "regime", "contrast", "correlation", "seed")
SCORES = ("label_dice", "label_brier", "label_precision", "dice", "brier_near", "recall", "precision", "f1")
COLUMNS = (*KEY, "label", "threshold", *SCORES, "worst_rate_error", "model")
BUDGET = NetworkBudget(iterations=1000, optimizer="adamw")
N_FOLDS = 3
PAPER = "majority, cross entropy"  # what the paper compares with; all other networks learn with DML + CE
TRAINED = ("mean", PAPER, "staple", "every mark", "anatomy", "lesion-wise", "lesion-wise, anatomy")
MAIN_KNEES = ("1", "0.3")  # contrast, correlation
HARMLESS = ("brain growth", "hippocampus")  # nobody misses anything: only whether the mean stays is asked
NEAR_PIXELS = 5


def loss(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    return dice_semimetric_loss(logits, target) + cross_entropy(logits, target)


def paper_loss(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    return cross_entropy(logits, target)


def fitted(images: np.ndarray, label: np.ndarray, seed: int, loss: StudyLoss = loss) -> nn.Module:
    return train(images, label[:, None], loss, seed=seed, budget=BUDGET, draw=label.any(axis=(1, 2)))


def cross_fitted(images: scenes.Images, label: np.ndarray, seed: int) -> np.ndarray:
    """``(N, H, W)`` probabilities of networks that did not see the image."""
    fold = np.arange(len(label)) % N_FOLDS
    found = np.zeros(label.shape, np.float32)
    for k in range(N_FOLDS):
        network = fitted(images.image[fold != k], label[fold != k], seed * N_FOLDS + k)
        found[fold == k] = predict(network, images.image[fold == k])[:, 0]
    return found


def run_cell(cell: Cell) -> list[Row]:
    data, regime, contrast, correlation, seed = cell
    if data == "knees":
        training, test = scenes.knees(regime, float(contrast), float(correlation), int(seed))
    elif data == "scenes":
        training, test = scenes.lidc_scenes(regime, int(seed))
    else:
        training, test = real.real_readers(data, regime, int(seed))
    votes, shared = labels.votes_of(training), training.is_anonymous
    made: dict[str, np.ndarray] = {"mean": labels.mean(votes)}
    made["staple"] = labels.pooled_staple(votes, is_anonymous=shared)
    made[PAPER] = (made["mean"] > 0.5).astype(np.float32)
    made["every mark"] = labels.every_mark(votes)
    made["lesion-wise without network"], blind = labels.lesions(votes, None, is_anonymous=shared)
    seen = cross_fitted(training, made["mean"], int(seed))
    made["lesion-wise"], model = labels.lesions(votes, seen, is_anonymous=shared)
    for name, of in (("anatomy", "mean"), ("lesion-wise, anatomy", "lesion-wise")):
        in_bone = labels.anatomy(training, made[of])
        if in_bone is not None:
            made[name] = in_bone
    models = {"lesion-wise without network": blind, "lesion-wise": model}
    predictions: dict[str, np.ndarray] = {}
    rows: list[Row] = []
    for name, label in made.items():
        row: Row = dict(zip(KEY, cell, strict=True)) | {"label": name} | label_scores(training, label)
        row |= rate_error(models[name], training.rates) if name in models else {}
        if name not in trained_on(cell):
            rows.append(row)
            continue
        same = next(
            (n for n in predictions if PAPER not in (n, name) and np.array_equal(made[n], label)), None
        )
        predictions[name] = (
            predict(fitted(training.image, label, int(seed), learns_with(name)), test.image)[:, 0]
            if same is None
            else predictions[same]
        )
        rows += [
            row | {"threshold": how} | network_scores(test, predictions[name], at, how == "tuned")
            for how, at in thresholds(name, test, predictions[name], votes, model).items()
        ]
    return rows


def trained_on(cell: Cell) -> Sequence[str]:
    """The labels that networks learn from."""
    data, _, contrast, correlation, _ = cell
    if data in HARMLESS:
        return ("mean", PAPER, "lesion-wise")
    is_main = data != "knees" or (contrast, correlation) == MAIN_KNEES
    return TRAINED if is_main else ("mean", "lesion-wise", "anatomy")


def learns_with(name: str) -> StudyLoss:
    return paper_loss if name == PAPER else loss


def thresholds(
    name: str,
    test: scenes.Images,
    prediction: np.ndarray,
    votes: Sequence[RaterVotes],
    model: DetectionModel,
) -> dict[str, float]:
    """0.5; for the mean also the best on the first half of the images, and those of the readers' rates."""
    if name != "mean":
        return {"0.5": 0.5}
    half = len(prediction) // 2
    rates = np.mean(list(model.rates().values()), axis=0)
    return {
        "0.5": 0.5,
        "tuned": best_threshold(test.truth[:half], prediction[:half]),
        "voxel rates": rater_corrected(votes),
        "rates": 0.5 if model.is_mean else float(rates.sum() / 2),
    }


def label_scores(images: scenes.Images, label: np.ndarray) -> Row:
    hard = label > 0.5
    return {
        "label_dice": dice_with_lesion(images.truth, hard),
        "label_brier": 1000 * float(np.mean((label - images.clean) ** 2, dtype=np.float64)),
        "label_precision": float((hard & images.truth).sum() / max(hard.sum(), 1)),
    }


def network_scores(test: scenes.Images, prediction: np.ndarray, at: float, is_tuned: bool) -> Row:
    """Of all test images; of the second half where the first chose the threshold."""
    chosen = slice(len(prediction) // 2 if is_tuned else 0, None)
    truth, found = test.truth[chosen], prediction[chosen] > at
    near = np.stack([ndimage.binary_dilation(t, iterations=NEAR_PIXELS) for t in test.clean[chosen] > 0])
    counts = np.sum([count_lesions(t, f) for t, f in zip(truth, found, strict=True)], axis=0)
    matched, reference, predicted = (float(c) for c in counts)
    return {
        "dice": dice_with_lesion(truth, found),
        "brier_near": float(np.mean((prediction[chosen] - test.clean[chosen])[near] ** 2)),
        "recall": matched / max(reference, 1),
        "precision": matched / max(predicted, 1),
        "f1": 2 * matched / max(reference + predicted, 1),
    }


def dice_with_lesion(truth: np.ndarray, found: np.ndarray) -> float:
    has_lesion = truth.any(axis=(1, 2))
    return mean_dice(truth[has_lesion], found[has_lesion])


def rate_error(model: DetectionModel, true: np.ndarray) -> Row:
    """The largest error of a reader's sensitivity, where the model says something about it."""
    rates = model.rates()
    readers = scenes.READERS[: len(true)]
    found = np.array([rates.get(name, rates.get(ANYONE, (np.nan, 0)))[0] for name in readers])
    error = float("nan") if model.is_mean else float(np.abs(found - true).max())
    return {"worst_rate_error": error, "model": model.name}


def cells(data: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """The knees of contrast 1 and correlation 0.3 and the scenes, then real readers, then the other knees."""
    every = [
        *(("knees", regime, *MAIN_KNEES) for regime in ("missed", "boundary", "false_positives", "all")),
        *(("scenes", regime, "", "") for regime in scenes.SCENE_REGIMES),
        ("lidc", "real", "", ""),
        ("brain growth", "real", "", ""),
        *(("hippocampus", part, "", "") for part in real.HIPPOCAMPUS_CLASSES),
        *(("knees", regime, "1", c) for c in ("0", "0.6") for regime in ("missed", "all")),
        *(("knees", regime, "0.15", "0.3") for regime in ("missed", "boundary")),
    ]
    for part in (every[:9], every[9:13], every[13:]):
        yield from ((*cell, str(seed)) for seed in seeds for cell in part if cell[0] in data)


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="Seeds 0, 1, ... (default 5).")
    parser.add_argument("--data", nargs="+", default=DATA, choices=DATA, help="Default: all.")
    args = parser.parse_args()
    if not args.tables:
        wanted = cells(args.data, range(args.seeds))
        run_missing(RESULTS, wanted, run_cell, key=KEY, columns=COLUMNS, jobs=args.jobs)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
