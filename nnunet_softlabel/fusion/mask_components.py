"""Connected components of masks, in as few bytes as their number needs; their voxels come piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cc3d
import numpy as np
import scipy  # its parts load when used: every worker of `convert` would wait for them
from numpy.typing import NDArray

from nnunet_softlabel.boxes import Box
from nnunet_softlabel.fusion.rater_votes import box_of

PIECE = 1 << 16  # voxels worked on at a time; at least one row of the first axis


@dataclass(frozen=True)
class MaskComponents:
    """The components of one mask, where voxels that share a corner touch; numbered from 1.

    Attributes:
        shape: of the image.
        box: around the mask.
        numbers: ``(*box)`` of the component in which a voxel lies; 0 outside the mask.
        sizes: ``(N,)`` voxels of each.
        boxes: around each, in the image.
    """

    shape: tuple[int, ...]
    box: Box
    numbers: NDArray[Any]
    sizes: NDArray[Any]
    boxes: tuple[Box, ...]

    @classmethod
    def of(cls, mask: NDArray[Any]) -> MaskComponents:
        """Those of a bool array of two or three axes.

        >>> found = MaskComponents.of(np.array([[1, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], bool))
        >>> found.sizes
        array([2, 3])
        """
        box = box_of(mask, (1.0,) * mask.ndim, margin_mm=0)
        if box is None:
            nowhere = (slice(0, 0),) * mask.ndim
            return cls(mask.shape, nowhere, np.zeros((0,) * mask.ndim, np.uint8), np.zeros(0, int), ())
        inside = mask[box]
        # a flat image as one slice: cc3d 3.29 puts voxels of flat images with an odd side elsewhere
        volume = np.ascontiguousarray(inside.reshape((1,) * (3 - mask.ndim) + inside.shape))
        numbers, count = cc3d.connected_components(volume, connectivity=26, return_N=True)
        numbers = numbers.reshape(inside.shape).astype(np.min_scalar_type(count), copy=False)
        sizes = np.zeros(count + 1, int)
        for piece in pieces_of(tuple(map(slice, numbers.shape))):
            sizes += np.bincount(numbers[piece].ravel(), minlength=count + 1)
        boxes = tuple(_moved(own, box) for own in scipy.ndimage.find_objects(numbers))
        return cls(mask.shape, box, numbers, sizes[1:], boxes)

    def within(self, box: Box) -> NDArray[Any]:
        """The numbers in a box of the image; not to be changed."""
        both = overlap(self.box, box)
        inside = self.numbers[_relative(both, self.box)]
        if both == box:
            return inside
        found = np.zeros(shape_of(box), self.numbers.dtype)
        if inside.size:
            found[_relative(both, box)] = inside
        return found

    def first_voxels(self) -> NDArray[Any]:
        """``(N,)`` flat index in the image of the first voxel of each."""
        first = np.empty(len(self.boxes), np.intp)
        for index, box in enumerate(self.boxes):
            row = (slice(box[0].start, box[0].start + 1), *box[1:])
            found = np.flatnonzero(self.within(row) == index + 1)[:1]
            first[index] = flat_index(found, row, self.shape)[0]
        return first


@dataclass(frozen=True)
class Extent:
    """Components of several masks of one image that are one thing.

    Attributes:
        masks: of the image.
        chosen: index of a mask -> numbers of its components; only masks with some.
    """

    masks: Sequence[MaskComponents]
    chosen: Mapping[int, NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the image."""
        return self.masks[0].shape

    @cached_property
    def box(self) -> Box:
        """The smallest around it, in the image."""
        own = [self.masks[m].boxes[n - 1] for m, numbers in self.chosen.items() for n in numbers]
        return tuple(
            slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*own, strict=True)
        )

    @cached_property
    def n_voxels(self) -> int:
        """Number of its voxels."""
        return sum(voxels.size for voxels, _ in self.pieces())

    def pieces(self, box: Box | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Its voxels, piece by piece in the order of the image.

        Args:
            box: of the image, outside of which no voxel counts; None: all count.

        Yields:
            ``(n,)`` flat indices, and ``(n,)`` in how many of the masks each voxel lies.
        """
        for piece in pieces_of(self.box if box is None else overlap(self.box, box)):
            counts = np.zeros(shape_of(piece), np.intp)
            for mask, numbers in self.chosen.items():
                counts += _are_in(self.masks[mask].within(piece), numbers, len(self.masks[mask].boxes))
            inside = np.flatnonzero(counts)
            if inside.size:
                yield flat_index(inside, piece, self.shape), counts.ravel()[inside]

    def voxels(self, box: Box | None = None) -> NDArray[Any]:
        """``(M,)`` flat indices of all its voxels, in order; in a box of the image, if there is one."""
        return np.concatenate([np.empty(0, np.intp), *(voxels for voxels, _ in self.pieces(box))])


def shared_voxels(
    one: MaskComponents, two: MaskComponents
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Components of two masks that overlap: ``(K,)`` index of the first, of the second, number of voxels."""
    pairs: list[NDArray[Any]] = [np.empty(0, np.intp)]
    counts: list[NDArray[Any]] = [np.empty(0, np.intp)]
    n_two = max(len(two.boxes), 1)
    for piece in pieces_of(overlap(one.box, two.box)):
        first, second = one.within(piece), two.within(piece)
        both = (first > 0) & (second > 0)
        own = (first[both].astype(np.intp) - 1) * n_two + (second[both].astype(np.intp) - 1)
        in_piece, times = np.unique(own, return_counts=True)
        pairs.append(in_piece)
        counts.append(times)
    found, row = np.unique(np.concatenate(pairs), return_inverse=True)
    shared = np.zeros(found.size, np.intp)
    np.add.at(shared, row, np.concatenate(counts))
    return found // n_two, found % n_two, shared


def pieces_of(box: Box) -> Iterator[Box]:
    """A box in pieces of about `PIECE` voxels, along the first axis; none of an empty box."""
    rows = max(1, PIECE // max(1, int(np.prod(shape_of(box[1:])))))
    if all(shape_of(box)):
        for start in range(box[0].start or 0, box[0].stop, rows):
            yield (slice(start, min(start + rows, box[0].stop)), *box[1:])


def is_overlap(one: Box, two: Box) -> bool:
    """True if two boxes share a voxel."""
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, two, strict=True))


def overlap(one: Box, two: Box) -> Box:
    """What two boxes share; an empty box if nothing."""
    if not is_overlap(one, two):
        return (slice(0, 0),) * len(one)
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, two, strict=True))


def shape_of(box: Box) -> tuple[int, ...]:
    """Voxels along each axis."""
    return tuple(side.stop - (side.start or 0) for side in box)


def flat_index(inside: NDArray[Any], box: Box, shape: tuple[int, ...]) -> NDArray[Any]:
    """Flat indices in a box as flat indices in the image."""
    position = np.unravel_index(inside, shape_of(box))
    moved = [own + side.start for own, side in zip(position, box, strict=True)]
    return np.ravel_multi_index(moved, shape)


def _are_in(found: NDArray[Any], numbers: NDArray[Any], n: int) -> NDArray[Any]:
    if numbers.size == 1:
        return found == int(numbers[0])
    is_chosen = np.zeros(n + 1, bool)
    is_chosen[numbers] = True
    return is_chosen[found]


def _relative(box: Box, around: Box) -> Box:
    """A box of the image as a box of another box around it."""
    return tuple(
        slice(side.start - own.start, side.stop - own.start) for side, own in zip(box, around, strict=True)
    )


def _moved(box: Box, around: Box) -> Box:
    """Inverse of `_relative`."""
    return tuple(
        slice(side.start + own.start, side.stop + own.start) for side, own in zip(box, around, strict=True)
    )
