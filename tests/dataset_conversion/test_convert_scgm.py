import convert_scgm
import pytest

from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def cords(source, tools):
    for site in (1, 2):
        subject = f"site{site}-sc01"
        tools.write_volume(source / f"{subject}-image.nii.gz", tools.ct().astype("float32"))
        (source / f"{subject}-levels.txt").write_text("1,C3\n")
        for rater in (1, 2, 3, 4):
            tissue = tools.box_mask((3, 9, 8), value=2)
            tissue[1, 4, 4 : 4 + rater] = 1
            tools.write_volume(source / f"{subject}-mask-r{rater}.nii.gz", tissue)
    tools.write_volume(source / "site1-sc11-image.nii.gz", tools.ct().astype("float32"))  # a test subject
    return source


def test_grey_and_white_matter_of_four_raters(cords, tools):
    folder, content = tools.to_dataset(
        convert_scgm.cases(cords), labels=convert_scgm.LABELS, channel_names=["T2star"]
    )
    assert content["numTraining"] == 2
    soft = SoftDataset(folder).read_soft("site1-sc01")
    # raters 1 to 4 draw 1, 2, 3, 4 voxels of grey matter in this row; the rest of it is white matter
    assert soft[0, 1, 4, 4:8].tolist() == pytest.approx([1, 0.75, 0.5, 0.25])
    assert soft[1, 1, 4, 4:8].tolist() == pytest.approx([0, 0.25, 0.5, 0.75])
