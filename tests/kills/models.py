"""A model for tests that only move its files."""

from __future__ import annotations

import pytest
import torch

from nnunet_softlabel.formats.files import write_json


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model as nnU-Net leaves it, with small weights."""
    folder = tmp_path / "results" / "Dataset901_Tiny" / "nnUNetTrainerSoftCE__nnUNetPlans__2d"
    for fold in (0, 1):
        (folder / f"fold_{fold}").mkdir(parents=True)
        content = {"trainer_name": "nnUNetTrainerSoftCE", "network_weights": {"w": torch.zeros(200_000)}}
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
        write_json(folder / f"fold_{fold}" / "debug.json", {"fold": fold})
    for name in ("plans.json", "dataset.json"):
        write_json(folder / name, {"labels": {"background": 0, "lesion": 1}})
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return folder
