import convert_curvas_pdacvi
import numpy as np
import pytest

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def scans(source, tools):
    for folder, case in (
        ("training_set", "PDAC001"),
        ("training_set", "PDAC002"),
        ("testing_set", "PDAC100"),
    ):
        place = source / folder / case
        tools.write_volume(place / "image.nii.gz", tools.ct())
        for rater in range(1, 6):
            tumour = tools.box_mask((3, 5, 2 + rater))
            if rater == 1:
                tumour[0, 0, :6] = np.arange(1, 7)  # PANORAMA's legend; the first is tumour
            tools.write_volume(place / f"annotation_{rater}.nii.gz", tumour)
        (place / "._annotation_2.nii.gz").touch()
    return source


def test_five_annotations_and_the_test_set(scans, tools):
    folder, content = tools.to_dataset(
        convert_curvas_pdacvi.cases(scans), labels=convert_curvas_pdacvi.LABELS, channel_names=["CT"]
    )
    assert content["numTraining"] == 2
    assert content["soft_labels"]["raters"] == ["panorama", *(f"radiologist{i}" for i in range(2, 6))]
    dataset = SoftDataset(folder)
    assert dataset.cases("Ts") == ["PDAC100"]
    soft = dataset.read_soft("PDAC001")[0]
    assert soft[1, 3, 2:8].tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert soft[0, 0, :7].tolist() == pytest.approx([0.2, 0, 0, 0, 0, 0, 0])


def test_a_value_that_panorama_does_not_know_is_an_error(scans, tools):
    path = scans / "testing_set" / "PDAC100" / "annotation_1.nii.gz"
    tools.write_volume(path, tools.box_mask((3, 5, 5), value=255))
    with pytest.raises(DatasetError, match="holds the value 255; PANORAMA's values are 0 to 6"):
        tools.voxels(next(convert_curvas_pdacvi.cases(scans)).raters["panorama"])
