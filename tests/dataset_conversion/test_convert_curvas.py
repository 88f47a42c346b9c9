import convert_curvas
import pytest

from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def scans(source, tools):
    for folder, case in (
        ("training_set", "UKCHLL001"),
        ("training_set", "UKCHLL002"),
        ("testing_set", "UKCHLL007"),
    ):
        tools.write_volume(source / folder / case / "image.nii.gz", tools.ct())
        for rater in (1, 2, 3):
            organs = tools.box_mask((3, 4, 4), value=1) + tools.box_mask((3, 5, 4 + rater), value=2)
            organs[0, 0, 0] = 3
            tools.write_volume(source / folder / case / f"annotation_{rater}.nii.gz", organs.clip(0, 3))
    return source


def test_three_radiologists_and_the_test_set(scans, tools):
    folder, content = tools.to_dataset(
        convert_curvas.cases(scans), labels=convert_curvas.LABELS, channel_names=["CT"]
    )
    assert content["numTraining"] == 2
    assert content["labels"] == {"background": 0, "pancreas": 1, "kidney": 2, "liver": 3}
    assert content["soft_labels"]["raters"] == ["radiologist1", "radiologist2", "radiologist3"]
    dataset = SoftDataset(folder)
    assert dataset.cases("Ts") == ["UKCHLL007"]
    # where two organs add up to 3 it is liver here; column 5 is kidney for raters 2 and 3 only
    assert dataset.read_soft("UKCHLL001")[1, 1, 2, 5] == pytest.approx(2 / 3)
