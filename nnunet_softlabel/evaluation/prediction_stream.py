"""The probabilities of a case channel by channel, and what all channels together decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.evaluation.consistency import check_segmentation, stock_threshold, stored_segmentation
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.thresholds import Threshold
from nnunet_softlabel.formats.predictions import probability_channels, read_probabilities
from nnunet_softlabel.formats.soft_dataset import SoftDataset


class PredictionStream:
    """Foreground channels of a case once, in order; the decision afterwards.

    One file without recalibration is never held as a whole. A mean of models, and a recalibration, which
    asks all channels of a voxel, are.
    """

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
        stock = stock_threshold(dataset.labels)
        self._stock = self._decision if threshold.is_stock else Decision(dataset.labels, stock, shape)

    def channels(self) -> Iterator[NDArray[Any]]:
        """Each foreground channel ``(*spatial)``.

        Raises:
            DatasetError: as `Predictions.read`; of all channels together after the last one.
        """
        labels = self._dataset.labels
        for number, channel in enumerate(self._stored()):
            for decision in {id(d): d for d in (self._decision, self._stock)}.values():
                decision.take(channel)
            if number > 0 or labels.has_regions:
                yield channel

    def _stored(self) -> Iterator[NDArray[Any]]:
        if self._predictions.models > 1 or self._predictions.calibration is not None:
            yield from self._predictions.read(self._case, self._dataset, self._shape)
            return
        (folder,), labels = self._predictions.folders_of[self._case], self._dataset.labels
        yield from probability_channels(folder, self._case, labels, self._shape)
        stored = stored_segmentation(self._dataset, folder, self._case)
        if stored is None or (stored.shape == self._shape and bool((stored == self._stock.label_map).all())):
            return
        whole = read_probabilities(folder, self._case, labels, self._shape)
        check_segmentation(self._dataset, folder, self._case, whole)  # closer calls may fall either way

    def decision(self) -> NDArray[Any]:
        """The label map ``(*spatial)``, when all channels were taken."""
        return self._decision.label_map
