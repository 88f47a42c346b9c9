"""The folder trees of docs/layouts.md; all hold the same drawings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_softlabel.formats.grid import Grid
from tests.formats.dicom_files import write_dicom
from tests.formats.test_slicer import write_segmentation

SHAPE = (6, 12, 10)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def image(case: str) -> sitk.Image:
    """A volume of noise, 1 x 1 x 2 mm."""
    seed = int(case[-1])
    return as_image(np.random.default_rng(seed).integers(0, 200, SHAPE).astype(np.int16))


def as_image(array: np.ndarray) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing((1.0, 1.0, 2.0))
    return made


def drawing(rater: str) -> np.ndarray:
    """Lesion 1 beside bone 2; Bob's lesion is longer."""
    array = np.zeros(SHAPE, np.uint8)
    array[2:5, 3:7, 2:5] = 1
    array[2:5, 7:10, 2:8] = 2
    if rater == "bob":
        array[2:5, 3:7, 5] = 1
    return array


def write(path: Path, made: sitk.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(made, str(path))


def write_layouts(root: Path) -> None:
    """Write every tree of the page."""
    for case in ("k1", "k2"):
        for place in ("plain/images/{}", "folders/{}/image", "grid/{}", "channels/{}", "classes/{}"):
            write(root / f"{place.format(case)}.nii.gz", image(case))
        write_flat(root / f"flat/{case}.tiff", sitk.GetArrayFromImage(image(case))[3].astype(np.uint8))
        for place in ("values/{}", "maps/{}", "dicom/{}"):
            write(root / f"{place.format(case)}.nii.gz", image(case))
        write(root / f"slicer/{case}.nrrd", image(case))
        write(root / f"bids/sub-{case[-1]}/ses-1/anat/sub-{case[-1]}_ses-1_T2w.nii.gz", image(case))
        for rater in ("anna", "bob"):
            _write_rater(root, case, rater)
        both = sitk.JoinSeries([as_image(drawing("anna")), as_image(drawing("bob"))])
        write(root / f"channels/{case}_raters.nii.gz", both)
        shares = (drawing("anna") == 1).astype(np.float32) + (drawing("bob") == 1)
        write(root / f"maps/{case}_lesion.nii.gz", as_image(np.rint(shares * 127.5).astype(np.uint8)))
    _write_table(root / "table")
    _write_datasets(root / "raw")
    for rater in ("anna", "bob"):
        write(root / f"some/{rater}/k1.nii.gz", as_image(drawing(rater)))


def write_flat(path: Path, array: np.ndarray) -> None:
    """Write a flat image."""
    from skimage import io

    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, array, check_contrast=False)


def _write_dicom(path: Path, masks: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dicom(path, masks, grid=Grid(SHAPE[::-1], (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), IDENTITY))


def _write_rater(root: Path, case: str, rater: str) -> None:
    array, own = drawing(rater), as_image(drawing(rater))
    write(root / f"plain/{rater}/{case}.nii.gz", own)
    write(root / f"folders/{case}/{rater}.nii.gz", own)
    subject = f"sub-{case[-1]}"
    name = f"{subject}/ses-1/anat/{subject}_ses-1_dseg.nii.gz"
    write(root / f"bids/derivatives/{rater}/{name}", own)
    cropped = sitk.RegionOfInterest(own, (8, 9, 4), (1, 2, 1))
    fine = sitk.Expand(own, (2, 2, 2), sitk.sitkNearestNeighbor)
    write(root / f"grid/{case}_{rater}.nii.gz", cropped if rater == "anna" else fine)
    parts = [as_image((array == value).astype(np.uint8)) for value in (1, 2)]
    write(root / f"classes/{case}_{rater}.nii.gz", sitk.JoinSeries(parts))
    other = np.array([0, 1, 2] if rater == "anna" else [0, 3, 1], np.uint8)[array]
    write(root / f"values/{case}_{rater}.nii.gz", as_image(other))
    masks = {"Lesion": array == 1, "Bone": array == 2}
    _write_dicom(root / f"dicom/{case}_{rater}.dcm", masks)
    write_flat(root / f"flat/{rater}/{case}.png", array[3])
    segments = [("Lesion", 0, 1), ("Bone", 0, 2)] if rater == "anna" else [("Bone", 0, 1), ("Lesion", 0, 2)]
    numbers = np.array([0, 1, 2] if rater == "anna" else [0, 2, 1], np.uint8)[array]
    write_segmentation(root / f"slicer/{case}_{rater}.seg.nrrd", segments, numbers[None])


def _write_datasets(raw: Path) -> None:
    for number, rater, labels in (
        (621, "anna", {"background": 0, "lesion": 1, "bone": 2}),
        (622, "bob", {"background": 0, "bone": 1, "lesion": 2}),
    ):
        folder = raw / f"Dataset{number}_{rater.title()}"
        drawn = np.array([0, labels["lesion"], labels["bone"]], np.uint8)[drawing(rater)]
        for case in ("k1", "k2"):
            write(folder / "imagesTr" / f"{case}_0000.nii.gz", image(case))
            write(folder / "labelsTr" / f"{case}.nii.gz", as_image(drawn))
        content = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def _write_table(folder: Path) -> None:
    rows = ["case;image;rater;mask;group"]
    for case, number in (("k1", 7), ("k2", 8)):
        write(folder / f"scan{number}.nii.gz", image(case))
        for rater in ("anna", "bob"):
            name = "drawn by Anna" if rater == "anna" else "bob_final"
            name += "" if case == "k1" else " 2"
            write(folder / f"{name}.nii.gz", as_image(drawing(rater)))
            rows.append(f"{case};scan{number}.nii.gz;{rater};{name}.nii.gz;patient{case[-1]}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
