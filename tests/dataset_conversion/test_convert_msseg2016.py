import convert_msseg2016
import pytest

from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def brains(source, tools):
    for place in (
        "Training/Center_01/Patient_01",
        "Training/Center_07/Patient_01",
        "Testing/Center_01/Patient_01",
    ):
        for sequence in convert_msseg2016.SEQUENCES:
            path = source / place / "Preprocessed_Data" / f"{sequence}_preprocessed.nii.gz"
            tools.write_volume(path, tools.ct().astype("float32"))
        for expert in range(1, 8):
            path = source / place / "Masks" / f"ManualSegmentation_{expert}.nii.gz"
            tools.write_volume(path, tools.box_mask((3, 4, 2 + expert)))
        tools.write_volume(source / place / "Masks" / "Consensus.nii.gz", tools.box_mask((3, 4, 5)))
    return source


def test_seven_experts_on_five_sequences(brains, tools):
    folder, content = tools.to_dataset(
        convert_msseg2016.cases(brains), labels=["lesion=1"], channel_names=convert_msseg2016.SEQUENCES
    )
    assert content["numTraining"] == 2
    assert len(content["soft_labels"]["raters"]) == 7
    dataset = SoftDataset(folder)
    assert len(dataset.image_files("Training_Center_07_Patient_01")) == 5
    assert dataset.cases("Ts") == ["Testing_Center_01_Patient_01"]
    # columns 2 to 8 are drawn by 7, 6, ..., 1 experts
    soft = dataset.read_soft("Training_Center_01_Patient_01")[0, 1, 2, 2:9]
    assert soft.tolist() == pytest.approx([k / 7 for k in range(7, 0, -1)])
