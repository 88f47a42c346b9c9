import pytest

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.plans import reduce_plans
from nnunet_softlabel.soft_labels import read_json, write_json


@pytest.fixture
def dataset(planned_dataset, tmp_path, monkeypatch):
    return planned_dataset.copy_to(tmp_path, monkeypatch)


def configurations(dataset, name):
    return read_json(dataset.preprocessed / f"{name}.json")["configurations"]


def test_reduced_plan_is_smaller_and_shares_preprocessed_data(dataset):
    path = reduce_plans(
        dataset.id, name="Small", features=4, batch_size=3, patch_size=[8, 16, 16], max_stages=3
    )
    assert path == dataset.preprocessed / "Small.json"
    assert read_json(path)["plans_name"] == "Small"
    for name, patch in (("3d_fullres", [8, 16, 16]), ("2d", [16, 16])):
        planned, reduced = (
            configurations(dataset, "nnUNetPlans")[name],
            configurations(dataset, "Small")[name],
        )
        assert reduced["data_identifier"] == planned["data_identifier"]
        assert reduced["patch_size"] == patch
        assert reduced["batch_size"] == 3
        network = reduced["architecture"]["arch_kwargs"]
        assert network["features_per_stage"] == [4, 8, 16][: network["n_stages"]]
        assert len(network["strides"]) == len(network["kernel_sizes"]) == network["n_stages"] <= 3
        assert len(network["n_conv_per_stage_decoder"]) == network["n_stages"] - 1


def test_patch_is_never_larger_than_planned(dataset):
    reduce_plans(dataset.id, name="Small", patch_size=[999, 999, 999])
    planned = configurations(dataset, "nnUNetPlans")["3d_fullres"]["patch_size"]
    assert all(a <= b for a, b in zip(configurations(dataset, "Small")["3d_fullres"]["patch_size"], planned, strict=True))


def test_cascade_is_added_as_nnunets_planner_would(dataset):
    before = configurations(dataset, "nnUNetPlans")["3d_fullres"]
    reduce_plans(dataset.id, name="Small", with_cascade=True)
    after = configurations(dataset, "Small")
    lowres = after["3d_lowres"]
    assert lowres["next_stage"] == "3d_cascade_fullres"
    assert lowres["data_identifier"] == "Small_3d_lowres"
    assert after["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    assert (lowres["batch_dice"], after["3d_fullres"]["batch_dice"]) == (False, True)
    factors = [a / b for a, b in zip(lowres["spacing"], before["spacing"], strict=True)]
    assert 4 <= factors[0] * factors[1] * factors[2] < 4.5
    size = zip(
        before["median_image_size_in_voxels"], factors, lowres["median_image_size_in_voxels"], strict=True
    )
    assert all(round(full / factor) == low for full, factor, low in size)
    assert all(
        p <= q + 7 for p, q in zip(lowres["patch_size"], lowres["median_image_size_in_voxels"], strict=True)
    )


def test_cascade_coarsens_the_finer_axes_first(dataset):
    path = dataset.preprocessed / "nnUNetPlans.json"
    plans = read_json(path)
    plans["configurations"]["3d_fullres"]["spacing"] = [8.0, 1.0, 1.0]
    write_json(path, plans)
    reduce_plans(dataset.id, name="Small", with_cascade=True)
    spacing = configurations(dataset, "Small")["3d_lowres"]["spacing"]
    assert spacing[0] == 8
    assert spacing[1] == spacing[2] > 2


def test_planned_cascade_is_kept(dataset):
    reduce_plans(dataset.id, name="Small", with_cascade=True)
    reduce_plans(dataset.id, plans="Small", name="Smaller", features=2, with_cascade=True)
    assert configurations(dataset, "Smaller")["3d_lowres"]["data_identifier"] == "Small_3d_lowres"


def test_two_dimensional_data_have_no_cascade(dataset):
    path = dataset.preprocessed / "nnUNetPlans.json"
    plans = read_json(path)
    del plans["configurations"]["3d_fullres"]
    write_json(path, plans)
    with pytest.raises(UsageError, match=r"--cascade: nnUNetPlans has no 3d_fullres"):
        reduce_plans(dataset.id, name="Small", with_cascade=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plans": "nnUNetPlansOther"}, r"-p nnUNetPlansOther: .* is not there"),
        ({"name": "nnUNetPlansReduced"}, r"already there; add --overwrite"),
        ({"name": "nnUNetPlans", "overwrite": True}, r"already there"),
    ],
)
def test_what_cannot_be_reduced_is_refused(dataset, options, message):
    with pytest.raises(UsageError, match=message):
        reduce_plans(dataset.id, **options)


def test_command_tells_how_to_go_on(dataset, capsys):
    arguments = ["reduce-plans", "-d", str(dataset.id), "-o", "Small", "--features", "4", "--cascade"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "train with -p Small" in printed
    assert f"nnUNetv2_preprocess -d {dataset.id} -plans_name Small -c 3d_lowres" in printed
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0
