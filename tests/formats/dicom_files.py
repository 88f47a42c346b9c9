"""DICOM-SEG files that highdicom makes of a CT series made here."""

from __future__ import annotations

import locale
from pathlib import Path

import numpy as np

from nnunet_softlabel.formats.grid import Grid

LOCALE = locale.setlocale(locale.LC_ALL)


def ct_series(grid: Grid) -> list:
    """Slices of a CT on an upright grid."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    slices = []
    for z in range(grid.size[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.Modality, data.PatientID, data.PatientName, data.StudyID = "CT", "1", "a^", "1"
        data.PatientBirthDate = data.PatientSex = data.AccessionNumber = data.ReferringPhysicianName = ""
        data.StudyDate, data.StudyTime, data.InstanceNumber, data.SeriesNumber = (
            "20200101",
            "000000",
            z + 1,
            1,
        )
        data.Rows, data.Columns = grid.shape[1:]
        x_mm, y_mm, z_mm = grid.spacing_mm
        data.PixelSpacing, data.SliceThickness, data.SpacingBetweenSlices = [y_mm, x_mm], z_mm, z_mm
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [*grid.origin[:2], grid.origin[2] + z_mm * z]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.PixelData = bytes(2 * data.Rows * data.Columns)
        slices.append(data)
    return slices


def write_dicom(path: Path, masks: dict[str, np.ndarray], *, grid: Grid, kind: str = "BINARY") -> None:
    """Write masks ``(slice, row, column)`` under their labels."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(masks, start=1)
    ]
    array = np.stack(list(masks.values()), axis=-1)
    made = hd.seg.Segmentation(
        source_images=ct_series(grid),
        pixel_array=array.astype(np.uint8) if kind == "BINARY" else array.astype(np.float32),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
    )
    made.save_as(path)
    # highdicom's packages set the C locale, in which later tests could not read their pages
    locale.setlocale(locale.LC_ALL, LOCALE)
