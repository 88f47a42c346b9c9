"""What preprocessed soft labels were made from: in each file, and in ``manifest.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from nnunet_softlabel.formats.soft_labels import SoftLabels

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class PlanRecord(TypedDict):
    """What of nnU-Net's plan, and of the data set, decides the result; plain values, as in JSON.

    Only where labels know an ignore value: what was done to ``unanswered`` voxels (see `filled`).
    """

    format_version: int
    scale: int
    labels: list[list[object]]
    spacing: list[float]
    transpose_forward: list[int]
    resampling: str
    resampling_options: dict[str, object]
    unanswered: NotRequired[str]


class CaseSource(TypedDict):
    """What of a case decides the result.

    Attributes:
        shape: of the channels, and of the preprocessed image.
        source: digest of the soft label.
        properties: digest of what nnU-Net knows of the image, its crop included.
    """

    shape: list[int]
    source: str
    properties: str


class MadeFrom(CaseSource):
    """All that decides the result; each file says it of itself."""

    plan: PlanRecord


class FileProof(TypedDict):
    """What proves the files of a case: size in bytes, digest of the disputed voxels."""

    bytes: int
    disputed: str


class ManifestEntry(CaseSource):
    """A case; ``files`` is None for a damaged one, and absent in manifests of earlier versions."""

    files: NotRequired[FileProof | None]


class Manifest(TypedDict):
    """All of ``manifest.json``; ``about`` is what the data set says of its soft labels."""

    plan: PlanRecord
    about: SoftLabels
    cases: dict[str, ManifestEntry]
