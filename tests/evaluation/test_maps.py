from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.maps import _map_names, binary_entropy, mutual_information, write_maps
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_mask, write_image
from nnunet_softlabel.formats.labels import Labels


def another_model(data, folder):
    """A second model: the first one's probabilities, drawn half way to one half; decisions stay."""
    folder.mkdir()
    for path in data.predictions.glob("*.npz"):
        p = np.load(path)["probabilities"]
        np.savez_compressed(folder / path.name, probabilities=(p + 1 / len(p)) / 2)
    for path in data.predictions.glob(f"*{data.dataset.file_ending}"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def table(folder):
    with (folder / "volumes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_maps_lie_on_the_grid_of_the_image_and_hold_the_probabilities(build, tmp_path):
    data = build()
    files = write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    assert all(path.is_file() for path in files)
    case = data.dataset.cases()[0]
    read = sitk.ReadImage(str(tmp_path / "maps" / f"{case}_lesion_probability.nii.gz"))
    image = sitk.ReadImage(str(data.dataset.label_file(case)))
    assert (read.GetSpacing(), read.GetOrigin(), read.GetDirection()) == (
        image.GetSpacing(), image.GetOrigin(), image.GetDirection(),
    )  # fmt: skip
    p = np.load(data.predictions / f"{case}.npz")["probabilities"][1]
    np.testing.assert_allclose(sitk.GetArrayFromImage(read), p, atol=1e-6)
    entropy = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "maps" / f"{case}_lesion_entropy.nii.gz")))
    np.testing.assert_allclose(entropy, binary_entropy(p), atol=1e-6)


def test_volumes_are_those_of_the_maps_and_of_the_raters(build, tmp_path):
    data = build()
    write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    ml = 2.5 / 1000  # spacing 1 x 1 x 2.5 mm
    for row in table(tmp_path / "maps"):
        p = np.load(data.predictions / f"{row['case']}.npz")["probabilities"][1]
        drawn = [(m == 1).sum() * ml for m in data.dataset.read_raters(row["case"]).values()]
        assert float(row["expected_ml"]) == pytest.approx(p.sum(dtype=np.float64) * ml, rel=1e-5)
        assert float(row["low_ml"]) == pytest.approx((p > 0.9).sum() * ml)
        assert float(row["high_ml"]) == pytest.approx((p > 0.1).sum() * ml)
        assert int(row["raters"]) == len(drawn)
        assert float(row["raters_mean_ml"]) == pytest.approx(np.mean(drawn))
        assert (row["models"], row["models_low_ml"]) == ("1", "")


def test_several_models_give_their_mean_and_how_far_they_differ(build, tmp_path):
    data = build()
    folders = [data.predictions, another_model(data, tmp_path / "second")]
    files = write_maps(data.dataset, folders, tmp_path / "maps", num_processes=1)
    assert sorted(files) == sorted((tmp_path / "maps").iterdir())
    case = data.dataset.cases()[0]
    models = [np.load(folder / f"{case}.npz")["probabilities"][1] for folder in folders]
    for kind, expected in (
        ("probability", np.mean(models, axis=0)),
        ("mutual_information", mutual_information(models)),
    ):
        read = sitk.ReadImage(str(tmp_path / "maps" / f"{case}_lesion_{kind}.nii.gz"))
        np.testing.assert_allclose(sitk.GetArrayFromImage(read), expected, atol=1e-6)
    row = table(tmp_path / "maps")[0]
    assert float(row["models_low_ml"]) <= float(row["expected_ml"]) <= float(row["models_high_ml"])


def test_mutual_information_is_the_mean_divergence_from_the_mean(rng):
    models = [rng.random(50) for _ in range(3)]
    mean = np.mean(models, axis=0)
    divergence = [p * np.log2(p / mean) + (1 - p) * np.log2((1 - p) / (1 - mean)) for p in models]
    np.testing.assert_allclose(mutual_information(models), np.mean(divergence, axis=0), atol=1e-5)


def test_models_that_nearly_agree_have_no_mutual_information_below_0(rng):
    p = rng.random(10_000)
    models = [p, p + 1e-7, p - 1e-7]  # entropies are rounded
    assert mutual_information(models).min() == 0
    assert mutual_information(models).max() < 1e-6


def test_flat_images_get_flat_maps(build, tmp_path):
    data = build(ending=".png")
    files = write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    assert sorted(files) == sorted((tmp_path / "maps").iterdir())
    assert {path.suffix for path in files} == {".png", ".csv"}


def test_nothing_is_overwritten_unasked(build, tmp_path):
    data = build()
    write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    with pytest.raises(UsageError, match=r"pass overwrite=True\."):
        write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1, overwrite=True)


@pytest.mark.parametrize("kind", ["probability", "mutual_information"])
def test_maps_of_an_earlier_run_are_refused(build, tmp_path, kind):
    data, out = build(), tmp_path / "maps"
    other = tmp_path / "other"
    shutil.copytree(data.predictions, other)
    first = [data.predictions, other] if kind == "mutual_information" else data.predictions
    write_maps(data.dataset, first, out, num_processes=1)
    (out / "notes.nii.gz").write_bytes(b"of somebody else")
    if kind == "probability":
        for path in data.predictions.glob("case3.*"):
            path.unlink()
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match=rf"case\d_lesion_{kind}\.nii\.gz: is no result of this run"):
        write_maps(data.dataset, data.predictions, out, num_processes=1, overwrite=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("cases", "classes"),
    [
        (["k"], ["left/lung", "left_lung"]),
        (["k"], ["Lung", "lung"]),  # one file on Windows and macOS
        (["k", "k_left"], ["left_lung", "lung"]),
    ],
)
def test_maps_that_would_be_one_file_are_refused(cases, classes):
    with pytest.raises(
        UsageError, match=r"case k.*, class .*, would be one file, k_left.*|k_lung_probability"
    ):
        _map_names(cases, classes, ["probability"], ".nii.gz")
    assert _map_names(["a", "b"], ["c", "d"], ["entropy"], ".png") == [
        *("a_c_entropy.png", "a_d_entropy.png", "b_c_entropy.png", "b_d_entropy.png"),
    ]


def test_cases_that_differ_in_capitals_have_maps_of_their_own():
    assert _map_names(["Knee", "knee"], ["lesion"], ["entropy"], ".png") == [
        *("Knee_lesion_entropy.png", "knee_lesion_entropy.png"),
    ]


def test_classes_whose_maps_would_be_one_file_leave_nothing(build, tmp_path):
    data = build(Labels({"a/b": (1,), "a_b": (2,)}))
    with pytest.raises(UsageError, match=r"class a_b, and that of case .*, class a/b, would be one file"):
        write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    assert not (tmp_path / "maps").exists()


def test_folds_are_taken_together(build, tmp_path):
    data = build()
    fold = tmp_path / "fold"
    fold.mkdir()
    case = data.dataset.cases()[0]
    for path in list(data.predictions.glob(f"{case}.*")):
        path.rename(fold / path.name)
    write_maps(data.dataset, [data.predictions, fold], tmp_path / "maps", num_processes=1)
    assert {row["case"] for row in table(tmp_path / "maps")} == set(data.dataset.cases())
    assert not list((tmp_path / "maps").glob("*mutual_information*"))


def test_models_of_other_cases_are_refused(build, tmp_path):
    data = build()
    second = another_model(data, tmp_path / "second")
    case = data.dataset.cases()[0]
    for path in second.glob(f"{case}.*"):
        path.unlink()
    with pytest.raises(DatasetError, match="a mean over different models is no comparison"):
        write_maps(data.dataset, [data.predictions, second], tmp_path / "maps", num_processes=1)
    assert not (tmp_path / "maps").exists()


def test_the_predictions_own_folder_is_refused(build):
    data = build()
    with pytest.raises(UsageError, match="the predictions themselves lie there"):
        write_maps(data.dataset, data.predictions, data.predictions, num_processes=1)


def test_the_command_says_what_it_wrote(build, tmp_path, monkeypatch, capsys):
    data = build()
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    name = data.dataset.folder.name
    code = main(["maps", "-d", name, "-i", str(data.predictions), "-o", str(tmp_path / "m"), "-np", "1"])
    assert code == 0
    assert "maps of lesion: probability, entropy (bits)\n" in capsys.readouterr().out


def test_volumes_of_every_class_have_their_own_raters_and_models(build, tmp_path):
    data = build(Labels({"outer": (1,), "inner": (2,)}), cases=2)
    folders = [data.predictions, another_model(data, tmp_path / "second")]
    write_maps(data.dataset, folders, tmp_path / "maps", num_processes=1)
    ml = 2.5 / 1000
    rows = table(tmp_path / "maps")
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in ("case0", "case1") for name in ("outer", "inner")
    ]
    for row in rows:
        value = {"outer": 1, "inner": 2}[row["class"]]
        drawn = [(m == value).sum() * ml for m in data.dataset.read_raters(row["case"]).values()]
        own = [np.load(f / f"{row['case']}.npz")["probabilities"][value] for f in folders]
        volumes = [p.sum(dtype=np.float64) * ml for p in own]
        expected = {
            "raters_mean_ml": np.mean(drawn),
            "raters_low_ml": min(drawn),
            "raters_high_ml": max(drawn),
            "models": 2,
            "models_low_ml": min(volumes),
            "models_high_ml": max(volumes),
            "expected_ml": np.mean(volumes),
            "low_ml": (np.mean(own, axis=0) > 0.9).sum() * ml,
            "high_ml": (np.mean(own, axis=0) > 0.1).sum() * ml,
        }
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-5)
    assert len({row["raters_mean_ml"] for row in rows}) == 4


def test_a_case_without_raters_has_no_volumes_of_raters(build, tmp_path):
    data = build(cases=2)
    for path in (data.dataset.folder / "raterLabelsTr").glob("*/case1.*"):
        path.unlink()
    write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    first, second = table(tmp_path / "maps")
    assert (first["raters"], second["raters"]) == ("3", "0")
    assert first["raters_mean_ml"] != second["raters_mean_ml"] == ""


def test_raters_of_test_cases_count_too(build, tmp_path, monkeypatch):
    data = build(cases=2)
    for folder in ("labels", "softLabels", "raterLabels"):
        (data.dataset.folder / f"{folder}Tr").rename(data.dataset.folder / f"{folder}Ts")
    (data.dataset.folder / "raterLabelsTr" / "bob").mkdir(parents=True)  # of training cases
    names = sorted(path.name for path in (data.dataset.folder / "raterLabelsTs").iterdir())
    monkeypatch.setitem(data.dataset.about, "raters_of_case", dict.fromkeys(("case0", "case1"), names))
    write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
    assert [row["raters"] for row in table(tmp_path / "maps")] == ["3", "3"]


def test_raters_of_another_shape_are_refused(build, tmp_path):
    data = build(cases=1)
    (path,) = (data.dataset.folder / "raterLabelsTr" / "bob").iterdir()
    mask, grid = read_mask(path)
    smaller = Grid((20, 20, 5), grid.spacing_mm, grid.origin, grid.direction)
    write_image(path, mask[:5], smaller)
    with pytest.raises(DatasetError, match="Case case0: rater bob has shape"):
        write_maps(data.dataset, data.predictions, tmp_path / "maps", num_processes=1)
