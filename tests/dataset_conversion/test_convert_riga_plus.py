import convert_riga_plus
import numpy as np
import pytest

from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def eyes(source, tools):
    colour = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    for place in ("BinRushed/BinRushed1", "Magrabia/MagrabiaMale", "MESSIDOR_Base1/Labeled"):
        for image in ("image1", "image10"):
            tools.write_flat(source / "RIGA" / place / f"{image}.tif", colour)
            for reader in range(1, 7):
                mask = np.zeros((12, 12), dtype=np.uint8)
                mask[2:10, 2:10] = 255
                mask[5, 3 : 3 + reader] = 128
                tools.write_flat(source / "RIGA-mask" / place / f"{image}-{reader}.tif", mask)
    tools.write_flat(source / "RIGA" / "MESSIDOR_Base1" / "Unlabeled" / "image99.tif", colour)
    return source


def test_cup_lies_in_the_disc_of_six_readers(eyes, tools):
    folder, content = tools.to_dataset(
        convert_riga_plus.cases(eyes), labels=convert_riga_plus.LABELS, channel_names=["R", "G", "B"]
    )
    assert content["numTraining"] == 6
    dataset = SoftDataset(folder)
    assert dataset.labels.names == ("disc", "cup")
    disc, cup = dataset.read_soft("BinRushed_BinRushed1_image1")
    assert disc[5, 2:10].min() == 1
    assert cup[5, 3:9].tolist() == pytest.approx([k / 6 for k in range(6, 0, -1)], abs=1e-4)


def test_photographs_without_masks_are_left_out(eyes):
    names = [case.name for case in convert_riga_plus.cases(eyes)]
    assert "MESSIDOR_Base1_Labeled_image10" in names
    assert not any("image99" in name for name in names)
