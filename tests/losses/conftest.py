"""Random logits, soft targets and masks."""

from functools import partial

import pytest
import torch

from nnunet_softlabel.losses import LOSSES, active_passive_loss

ALL_LOSSES = {
    **LOSSES,
    "apl_consistent": active_passive_loss,
    "apl_expectation": partial(active_passive_loss, mode="expectation"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loss" in metafunc.fixturenames:
        metafunc.parametrize("loss", ALL_LOSSES.values(), ids=ALL_LOSSES.keys())
    if "activation" in metafunc.fixturenames:
        metafunc.parametrize("activation", ["softmax", "sigmoid"])


@pytest.fixture(autouse=True)
def _one_thread_and_fixed_seed():
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def logits():
    return 2 * torch.randn(2, 3, 5, 4)


@pytest.fixture
def target():
    q = torch.softmax(2 * torch.randn(2, 3, 5, 4), dim=1)
    q[:, :, 0] = torch.tensor([0.0, 0.4, 0.6]).view(1, 3, 1)
    return q


@pytest.fixture
def mask():
    return torch.rand(1, 1, 5, 4).expand(2, 1, 5, 4) < 0.6
