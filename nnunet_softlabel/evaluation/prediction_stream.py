"""The probabilities of a case channel by channel, and what all channels together decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.formats.predictions import foreground_channels
from nnunet_softlabel.formats.soft_dataset import SoftDataset


class PredictionStream:
    """Foreground channels of a case once, in order; the decision afterwards. None of them is kept."""

    def __init__(
        self,
        predictions: Predictions,
        case: str,
        dataset: SoftDataset,
        shape: tuple[int, ...],
        *,
        threshold: Threshold,
    ) -> None:
        self._predictions, self._case, self._dataset, self._shape = predictions, case, dataset, shape
        self._decision = Decision(dataset.labels, threshold, shape)
        # the segmentation beside a single model's probabilities is held against the decision at 0.5
        is_plain = predictions.models == 1 and predictions.calibration is None
        self._stock = self._decision if is_plain and threshold.is_stock else None

    def channels(self) -> Iterator[NDArray[Any]]:
        """Each foreground channel ``(*spatial)``.

        Raises:
            DatasetError: as `Predictions.channels`; of all channels together after the last one.
        """
        found = self._predictions.channels(self._case, self._dataset, self._shape, stock=self._stock)
        return foreground_channels(map(self._decision.take, found), self._dataset.labels)

    def decision(self) -> NDArray[Any]:
        """The label map ``(*spatial)``, when all channels were taken."""
        return self._decision.settled()
