import json


def test_fixture(planned_dataset, planned_dataset_two_classes):
    for d in (planned_dataset, planned_dataset_two_classes):
        p = json.loads((d.preprocessed / "nnUNetPlansReduced.json").read_text())
        print(d, json.dumps(p["configurations"]["3d_fullres"], indent=1)[:1500])
        import subprocess

        print(
            subprocess.run(["find", str(d.preprocessed), str(d.raw)], capture_output=True, text=True).stdout
        )
    assert 0
