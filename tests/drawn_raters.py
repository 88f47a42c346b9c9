"""Raters of one case, drawn at random for property tests: as all votes at once, and packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_softlabel.cases.rater_maps import RaterMaps
from nnunet_softlabel.formats.encoding import channels_of_raters
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.fusion import RaterVotes

LABELS = {
    "one class": Labels({"a": (1,)}),
    "classes": Labels({"a": (1,), "b": (2,), "c": (3,)}),
    "regions": Labels({"whole": (1, 2, 3), "core": (2, 3), "centre": (3,)}),
    "many": Labels({f"l{value}": (value,) for value in range(1, 12)}),
}
IGNORE = 12
SPACING_MM = (2.0, 1.0, 0.7)


@dataclass
class Drawn:
    """Label maps of three raters, and what their labels mean."""

    maps: dict[str, NDArray[np.uint8]]
    labels: Labels

    @property
    def votes(self) -> RaterVotes:
        """All of them at once, as the formulas want them."""
        maps = list(self.maps.values())
        answered = None
        if self.labels.ignore is not None:
            answered = np.stack([own != self.labels.ignore for own in maps])
        return RaterVotes(
            channels_of_raters(maps, self.labels),
            tuple(self.maps),
            SPACING_MM,
            answered=answered,
            exclusive=not self.labels.has_regions,
        )

    @property
    def packed(self) -> RaterMaps:
        """The same, packed."""
        maps = {name: PackedMap.of(own) for name, own in self.maps.items()}
        return RaterMaps(maps, self.labels, SPACING_MM)


@st.composite
def drawings(draw, labels: Sequence[str] = tuple(LABELS)) -> Drawn:
    """Smooth blobs on a part of the image that most raters see alike; now and then a rater draws nothing."""
    known = LABELS[draw(st.sampled_from(labels))]
    if draw(st.booleans()):
        known = replace(known, ignore=IGNORE)
    shape = tuple(draw(st.integers(2, 9)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.array(sorted({v for own in known.values.values() for v in own}), np.uint8)
    common = random.normal(size=(len(values), *shape))
    maps = {}
    for name in ("ann", "bob", "eve")[: draw(st.integers(1, 3))]:
        field = common + 0.5 * random.normal(size=common.shape)
        field = ndimage.gaussian_filter(field, (0, 1, 1, 1))
        own = values[field.argmax(axis=0)]
        own[field.max(axis=0) < np.quantile(field.max(axis=0), draw(st.sampled_from([0, 0.6, 1])))] = 0
        own[draw(st.integers(1, shape[0])) :] = 0
        if known.ignore is not None:
            own[random.random(shape) < 0.2] = known.ignore
        maps[name] = own
    return Drawn(maps, known)
