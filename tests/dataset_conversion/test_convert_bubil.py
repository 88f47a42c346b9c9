import convert_bubil
import numpy as np
import pytest
from skimage import io

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.soft_dataset import SoftDataset


@pytest.fixture
def cells(source, tools):
    """Two images, black object on white; person 3 in RGB and once with a capital S, person 5 with 24."""
    for name, prefix_of_3 in (("B01", "seg_"), ("B02", "Seg_")):
        tools.write_flat(source / "RawImages" / f"{name}.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
        for person in (1, 2, 3, 4, 5):
            mask = np.full((6, 8), 255, dtype=np.uint8)
            mask[1:3, 1 : 1 + person] = 0
            if person == 5:
                mask[1, 1] = 24
            if person == 3:
                mask = np.stack([mask] * 3, axis=-1)
            prefix = prefix_of_3 if person == 3 else "seg_"
            tools.write_flat(
                source / "ExpertsAnnotations" / f"Person{person}_Amira" / f"{prefix}{name}.png", mask
            )
    return source


def test_black_is_the_object_in_every_file_format(cells, tools):
    case = next(convert_bubil.cases(cells))
    areas = {person: int(tools.voxels(mask).sum()) for person, mask in case.raters.items()}
    assert areas == {"person1": 2, "person3": 6, "person4": 8, "person5": 10}


def test_bubil_becomes_a_flat_data_set(cells, tools):
    folder, content = tools.to_dataset(convert_bubil.cases(cells), labels=["cell=1"], channel_names=["phase"])
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".png"
    dataset = SoftDataset(folder)
    # column 2 is drawn by persons 3, 4, 5 of four
    assert dataset.read_soft("B02")[0, 1, :6].tolist() == pytest.approx(
        [0, 1, 0.75, 0.75, 0.5, 0.25], abs=1e-4
    )
    assert io.imread(folder / "imagesTr" / "B01_0000.png").shape == (6, 8)


def test_a_missing_expert_is_named(cells):
    (cells / "ExpertsAnnotations" / "Person3_Amira" / "Seg_B02.png").unlink()
    with pytest.raises(DatasetError, match=r"B02\.png: person3 has no mask"):
        list(convert_bubil.cases(cells))


@pytest.mark.shared_data
def test_real_images_have_four_experts_who_roughly_agree(shared_data, tools):
    cases = list(convert_bubil.cases(shared_data / "bubil_rat_smc"))
    assert len(cases) == 35
    for case in (case for case in cases if case.name in ("B02", "B04", "B18")):
        image = tools.voxels(case.images[0])
        masks = np.stack([tools.voxels(mask) for mask in case.raters.values()])
        assert masks.shape == (4, *image.shape)
        assert 0.6 < 2 * masks.min(axis=0).sum() / (masks.min(axis=0) + masks.max(axis=0)).sum() < 1


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_script_converts_the_real_images(shared_data, source):
    """All 35 images, from the challenge's folder to soft labels."""
    assert convert_bubil.main([str(shared_data / "bubil_rat_smc"), "-d", "501", "-np", "1"]) == 0
    dataset = SoftDataset.find(501)
    assert len(dataset.cases()) == 35
    for case in ("B02", "B18"):
        (soft,) = dataset.read_soft(case)
        assert np.unique(soft) == pytest.approx([0, 1 / 4, 1 / 2, 3 / 4, 1], abs=1e-4)
        assert len(dataset.read_raters(case)) == 4


@pytest.mark.shared_data
def test_the_third_value_of_a_real_mask_is_object(shared_data):
    path = shared_data / "bubil_rat_smc" / "ExpertsAnnotations" / "Person5_Amira" / "seg_B04.png"
    assert convert_bubil.read_object(path)[convert_bubil.read_grey(path) == 24].all()
