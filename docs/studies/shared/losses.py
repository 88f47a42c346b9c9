"""Losses of the studies: nnU-Net's, the package's and the candidates for the default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from docs.studies.shared.small_network import StudyLoss
from nnunet_softlabel.losses import (
    FusedSoftLoss,
    RegionSums,
    TermWeights,
    active_passive_loss,
    cross_entropy,
    dice_semimetric_loss,
    soft_dice_loss,
)

BATCH = RegionSums(batch_dice=True)
WARM_UP = 0.25  # share of the training with cross entropy alone


def fused(**weights: float) -> StudyLoss:
    """DML + CE + NKL + TV with other weights."""
    loss = FusedSoftLoss(TermWeights(**weights), sums=BATCH)
    return lambda logits, target, progress: loss(logits, target)


def stock(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """nnU-Net's Dice + CE."""
    return soft_dice_loss(logits, target, sums=BATCH) + cross_entropy(logits, target)


def expectation(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """DML + NCE + MAE, the target put in linearly."""
    return dice_semimetric_loss(logits, target, sums=BATCH) + active_passive_loss(
        logits, target, mode="expectation"
    )


def balanced(logits: Tensor, target: Tensor, progress: float) -> Tensor:
    """NKL + TV, averaged over voxels that some rater marked and over the others with equal weight."""
    is_marked = target[:, :1] < 1
    return 0.5 * sum(active_passive_loss(logits, target, mask=mask) for mask in (is_marked, ~is_marked))


def last_part_ce(loss: StudyLoss, share: float) -> StudyLoss:
    """Cross entropy alone in the last part of a training."""
    ce = fused(dml=0.0, nkl=0.0, tv=0.0)
    return lambda z, q, progress: (ce if progress >= 1 - share else loss)(z, q, progress)


def warmed_up(loss: StudyLoss) -> StudyLoss:
    """Cross entropy first."""

    def switched(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        return cross_entropy(logits, target) if progress < WARM_UP else loss(logits, target, progress)

    return switched


def balanced_start(weight: float) -> StudyLoss:
    """DML + CE + weight * (NKL + TV), its voxel terms balanced as above in the first quarter."""
    settled = fused(nkl=weight, tv=weight)

    def voxel_terms(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        apl = active_passive_loss(logits, target, mask=mask) if weight else 0.0
        return cross_entropy(logits, target, mask=mask) + weight * apl

    def switched(logits: Tensor, target: Tensor, progress: float) -> Tensor:
        if progress >= WARM_UP:
            return settled(logits, target, progress)
        is_marked = target[:, :1] < 1
        terms = 0.5 * (voxel_terms(logits, target, is_marked) + voxel_terms(logits, target, ~is_marked))
        return dice_semimetric_loss(logits, target, sums=BATCH) + terms

    return switched


@dataclass(frozen=True)
class Candidate:
    """A loss and the label it is trained on: ``majority`` or ``soft``."""

    label: str
    loss: Callable[[], StudyLoss]


def _off(*names: str) -> dict[str, float]:
    return {name: 0.0 for name in names}


CANDIDATES: dict[str, Candidate] = {
    "stock": Candidate("majority", lambda: stock),
    "HardBCE": Candidate("majority", lambda: fused(**_off("dml", "nkl", "tv"))),
    "DML+CE": Candidate("soft", lambda: fused(**_off("nkl", "tv"))),
    "DML+CE+NKL+TV": Candidate("soft", fused),
    "DML+CE+0.1(NKL+TV)": Candidate("soft", lambda: fused(nkl=0.1, tv=0.1)),
    "DML+NCE+MAE": Candidate("soft", lambda: expectation),
    "NKL+TV": Candidate("soft", lambda: fused(**_off("dml", "ce"))),
    "DML+NKL+TV": Candidate("soft", lambda: fused(**_off("ce"))),
    "CE+NKL+TV": Candidate("soft", lambda: fused(**_off("dml"))),
    "balanced NKL+TV": Candidate("soft", lambda: balanced),
    "CE, then NKL+TV": Candidate("soft", lambda: warmed_up(fused(**_off("dml", "ce")))),
    "CE, then DML+NKL+TV": Candidate("soft", lambda: warmed_up(fused(**_off("ce")))),
    "DML+10NKL+0.1TV": Candidate("soft", lambda: fused(ce=0.0, nkl=10.0, tv=0.1)),
    "DML+NKL+9.21TV": Candidate("soft", lambda: fused(ce=0.0, tv=9.21)),
    # the second round, after the first had shown that only a balanced average never collapses
    "balanced start, DML+CE": Candidate("soft", lambda: balanced_start(0.0)),
    "balanced start, DML+CE+0.1(NKL+TV)": Candidate("soft", lambda: balanced_start(0.1)),
    "balanced start, DML+CE+NKL+TV": Candidate("soft", lambda: balanced_start(1.0)),
}
