"""Which channel of a file is which class: one without label must be the background, and that is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.channels import Channel, read_channels
from nnunet_softlabel.formats.labels import Labels, Values, channels_of_labels

LARGEST_DEVIATION = 1e-2  # of the sum of probabilities from 1


def check_masks(masks: Sequence[NDArray[Any]], labels: Labels, values: Values, what: str) -> None:
    """Refuse masks of classes, one per channel, of which one without label is not the background.

    Args:
        masks: bool, in the order of the channels.
        labels: of the data set.
        values: number of a channel, from 1 -> label value; 0: the background.
        what: the file, for messages.

    Raises:
        DatasetError: saying which channel, and what to write.
    """
    named = {
        name: [n for n in _numbers(values) if values[n] in region] for name, region in labels.values.items()
    }
    if labels.has_regions:
        _check_nested(masks, named, what)
    if labels.ignore is not None:
        named["ignore"] = [n for n in _numbers(values) if values[n] == labels.ignore]
    _check(masks, named, [n for n in _numbers(values) if values[n] == 0], what, deviation=0)


def check_maps(
    sources: Mapping[str, object], labels: Labels, values: Values, *, scale: float | None, what: str
) -> None:
    """Refuse probability maps that are channels of one file, if one without label is not the background.

    Regions have no background: the file has a channel for each of them, in their order.

    Args:
        sources: label -> its map; maps in files of their own are passed over.
        labels: of the data set.
        values: as in `check_masks`.
        scale: value that means 1; None: 1.
        what: the case, for messages.

    Raises:
        DatasetError: saying which channel, and what to write.
    """
    channels = {name: source for name, source in sources.items() if isinstance(source, Channel)}
    for path, axis in {(channel.path, channel.axis) for channel in channels.values()}:
        named = {name: [c.index + 1] for name, c in channels.items() if (c.path, c.axis) == (path, axis)}
        maps, _ = read_channels(path, axis)
        if labels.has_regions and len(maps) != len(named):
            in_order = ", ".join(
                f"{name} {number}" for name, number in channels_of_labels(labels, {}).items()
            )
            raise DatasetError(
                f"{what} ({path}): has {len(maps)} channels for {len(named)} regions; store a channel for "
                f"each region, in the order of --labels ({in_order}), and no other."
            )
        if labels.has_regions:
            continue
        deviation = LARGEST_DEVIATION
        if maps.dtype.kind in "ui" and scale:
            deviation += len(maps) * 0.5 / scale  # each is rounded
        parts = [channel.astype(np.float32) / np.float32(scale or 1) for channel in maps]
        background = [number for number in _numbers(values) if values[number] == 0]
        _check(parts, named, background, f"{what} ({path})", deviation=deviation)


def _check_nested(masks: Sequence[NDArray[Any]], named: Mapping[str, Sequence[int]], what: str) -> None:
    """Refuse a channel inside another that is in more regions: it would change nothing."""
    regions = {
        number: {name for name, own in named.items() if number in own}
        for number, mask in enumerate(masks, start=1)
        if mask.any()
    }
    for inner, outer in product(regions, regions):
        if (
            regions[inner]
            and regions[inner] < regions[outer]
            and not (masks[inner - 1] & ~masks[outer - 1]).any()
        ):
            raise DatasetError(
                f"{what}: channel {inner} lies inside channel {outer}, but --labels puts {outer} into more "
                f"regions ({', '.join(sorted(regions[outer]))}); if each channel is a region, give a "
                f"region its own channel and those inside it, as in whole=1,2,3 core=2,3 enhancing=3."
            )


def _numbers(values: Values) -> list[int]:
    return [value for value in values if isinstance(value, int) and value > 0]


def _check(
    channels: Sequence[NDArray[Any]],
    named: Mapping[str, Sequence[int]],
    background: Sequence[int],
    what: str,
    *,
    deviation: float,
) -> None:
    marked = {number: float(channel.sum()) for number, channel in enumerate(channels, start=1)}
    absent = [number for number in background if number not in marked]
    if absent:
        raise DatasetError(f"{what}: has {len(channels)} channels, but --labels names channel {absent[0]}.")
    with_label = {number for numbers in named.values() for number in numbers}
    strangers = [number for number in marked if number not in with_label and number not in background]
    seen = [number for number in strangers if marked[number] > deviation]
    if seen and len(seen) + len(background) > 1:
        raise DatasetError(
            f"{what}: has {len(channels)} channels, and no --labels entry names the channels "
            f"{' and '.join(map(str, seen))}; one alone may be the background: name the others "
            f"(LABEL={seen[0]}), or store the file without them."
        )
    total = np.zeros(channels[0].shape, np.float32)
    rest = total.copy()  # the background is what the channels with labels leave
    for number, channel in enumerate(channels, start=1):
        total += channel
        if number in (*seen, *background):
            rest += channel
    is_rest = bool((np.abs(np.minimum(total - rest, 1) + rest - 1) <= deviation).all())
    if (seen or background) and not (is_rest and with_label):
        number = (*seen, *background)[0]
        about = "background" if background else "which no --labels entry names"
        raise DatasetError(
            f"{what}: holds the channel {number}, {about}, and it is not just what the other channels leave; "
            f"name it (LABEL={number}) or remove it."
        )
    if strangers and with_label and not background and (np.abs(total - 1) <= deviation).all():
        _check_size(marked, named, seen[0] if seen else strangers[-1], strangers, what=what)


def _check_size(
    marked: Mapping[int, float],
    named: Mapping[str, Sequence[int]],
    last: int,
    strangers: Sequence[int],
    *,
    what: str,
) -> None:
    """Where each channel is what the others leave, only its size tells the background.

    Who counts from 0, with the background first, leaves the last channel without label.
    """
    with_label = sorted({number for numbers in named.values() for number in numbers})
    largest = max(with_label, key=lambda number: marked[number])
    if last == 1 or marked[largest] <= marked[last]:
        return
    others = [
        number for number in marked if number != largest and (number == last or number not in strangers)
    ]
    moved = dict(zip(with_label, others, strict=True))
    advice = " ".join(f"{name}={','.join(str(moved[n]) for n in own)}" for name, own in named.items() if own)
    raise DatasetError(
        f"{what}: channel {last} has no label and would be the background, but channel {largest} marks more; "
        f"if channel {largest} is the background, write --labels {advice}; if channel {last} is, add "
        f"background={last}."
    )
