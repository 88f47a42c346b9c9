"""What two GPUs would do, proven with two processes on the CPU (gloo)."""

import csv
import traceback
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as nnunet_module
from nnunetv2.utilities.helpers import softmax_helper_dim1
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.losses import (
    CompactTargetLoss,
    FusedSoftLoss,
    RegionSums,
    TermWeights,
    dice_semimetric_loss,
    soft_dice_loss,
)
from nnunet_softlabel.preprocessing import preparation as preprocessing
from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.training.recipes import nnUNetTrainerAPL, nnUNetTrainerAPLExpectation
from nnunet_softlabel.training.soft_scores import SoftScores
from nnunet_softlabel.training.trainer import SCORES_FILE
from tests.process_group import joined_by_gloo
from tests.training.conftest import in_fresh_process, make_trainer, seed_everything

WORLD = 2
PER_RANK = 2
LONGEST_WAIT_S = 900  # 35 s are usual; a busy machine took more than 300
CHANNELS = 3


def _run_rank(function, rank, folder, arguments):
    try:
        torch.set_num_threads(1)
        with joined_by_gloo(folder, rank, WORLD):
            torch.save(function(rank, *arguments), folder / f"rank{rank}.pt")
    except BaseException:
        (folder / f"rank{rank}.txt").write_text(traceback.format_exc())
        raise


def run_ranks(function, folder: Path, *arguments):
    """What ``function(rank, *arguments)`` returned in each of two processes that are joined by gloo."""
    folder = folder / "ranks"
    folder.mkdir()
    processes = [in_fresh_process(_run_rank, function, rank, folder, arguments) for rank in range(WORLD)]
    late = []
    for rank, process in enumerate(processes):
        process.join(LONGEST_WAIT_S)
        late += [rank] if process.is_alive() else []
        process.kill()
    errors = [path.read_text(encoding="utf-8") for path in folder.glob("*.txt")]
    assert not errors, "\n".join(errors)
    assert not late, f"ranks {late} have not ended within {LONGEST_WAIT_S} s"
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(WORLD)]


def nnunets_dice(*, ddp):
    """nnU-Net's own Dice of class indices, as its trainer sets it up where the plan says batch Dice."""
    dice = MemoryEfficientSoftDiceLoss(
        softmax_helper_dim1, batch_dice=True, do_bg=False, smooth=1e-5, ddp=ddp
    )

    def loss(logits, compact):
        return 1 + dice(logits, one_hot_to_index(compact))

    return loss


def one_hot_to_index(compact):
    classes = torch.arange(1, compact.shape[1] + 1).view(1, -1, 1, 1, 1)
    return ((compact == SCALE) * classes).sum(dim=1, keepdim=True)


def region_loss(function, *, ddp):
    return CompactTargetLoss(partial(function, sums=RegionSums(batch_dice=True, ddp=ddp)))


def fused_loss(*, ddp, **options):
    return FusedSoftLoss(sums=RegionSums(batch_dice=True, ddp=ddp), **options)


LOSSES = {
    "nnunet_dice": nnunets_dice,
    "dml": partial(region_loss, dice_semimetric_loss),
    "soft_dice": partial(region_loss, soft_dice_loss),
    "fused_dml": partial(fused_loss, weights=TermWeights(ce=0.0, nkl=0.0, tv=0.0)),
    "fused": fused_loss,
    "fused_sigmoid": partial(fused_loss, activation="sigmoid"),
}
ON_ONE_HOT = ["nnunet_dice", "dml", "soft_dice", "fused_dml"]


def images_and_targets(*, is_one_hot: bool):
    seed_everything(4)
    images = torch.randn(WORLD * PER_RANK, 1, 5, 6, 7)
    if is_one_hot:
        index = torch.randint(0, CHANNELS, (len(images), 1, 5, 6, 7))
        classes = torch.arange(1, CHANNELS).view(1, -1, 1, 1, 1)
        return images, (index == classes).short() * SCALE
    return images, torch.randint(0, SCALE // 2, (len(images), CHANNELS - 1, 5, 6, 7)).short()


def make_network(name):
    seed_everything(5)
    return nn.Conv3d(1, CHANNELS - ("sigmoid" in name), 3, padding=1)


def loss_and_gradients(names, is_one_hot, rank=None):
    images, targets = images_and_targets(is_one_hot=is_one_hot)
    if rank is not None:
        part = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
        images, targets = images[part], targets[part]
    results = {}
    for name in names:
        network = make_network(name)
        wrapped = network if rank is None else DistributedDataParallel(network)
        loss = LOSSES[name](ddp=rank is not None)(wrapped(images), targets)
        loss.backward()
        results[name] = (loss.item(), [p.grad.clone() for p in network.parameters()])
    return results


def _losses_of_rank(rank):
    return loss_and_gradients(LOSSES, False, rank), loss_and_gradients(ON_ONE_HOT, True, rank)


@pytest.fixture(scope="module")
def losses_of_ranks(tmp_path_factory):
    return run_ranks(_losses_of_rank, tmp_path_factory.mktemp("ddp"))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "nnunet_dice"])
def test_two_processes_have_the_loss_and_gradient_of_one_with_the_whole_batch(losses_of_ranks, name):
    """As DDP: each process backpropagates its own loss, and gradients are averaged."""
    value, gradients = loss_and_gradients([name], False)[name]
    values = [soft[name][0] for soft, _ in losses_of_ranks]
    assert np.mean(values) == pytest.approx(value, rel=1e-5)
    for soft, _ in losses_of_ranks:
        for mine, expected in zip(soft[name][1], gradients, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ON_ONE_HOT[1:])
def test_one_hot_dice_of_two_processes_is_nnunets(losses_of_ranks, name):
    for _, hard in losses_of_ranks:
        (value, gradients), (stock, stock_gradients) = hard[name], hard["nnunet_dice"]
        assert value == pytest.approx(stock, rel=1e-5)
        for mine, expected in zip(gradients, stock_gradients, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-7)


def _prepare(rank, folder, gate):
    make_case, log = preprocessing.make_case, []

    def slow_make_case(*arguments):
        while not gate.exists():  # until the other has found the lock taken
            sleep(0.01)
        return make_case(*arguments)

    def note(line):
        log.append(line)
        if line.startswith("Waiting"):
            gate.touch()

    preprocessing.make_case, preprocessing.POLL_SECONDS = slow_make_case, 0.1
    plans = PlansManager(read_json(folder / "nnUNetPlans.json"))
    distributed.barrier()
    manifest = Preparation(folder, plans, plans.get_configuration("3d_fullres")).ensure(log=note)
    return log, manifest


def test_one_process_prepares_and_the_other_waits(planned_dataset, tmp_path, monkeypatch):
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    folder = copied.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels"
    for path in folder.iterdir():
        path.unlink()
    (log_a, manifest_a), (log_b, manifest_b) = run_ranks(
        _prepare, tmp_path, copied.preprocessed, tmp_path / "gate"
    )
    assert manifest_a == manifest_b
    assert sorted(log[0].split()[0] for log in (log_a, log_b)) == ["Preprocessing", "Waiting"]
    assert len(log_a) == len(log_b) == 1
    assert len(list(folder.glob("*.b2nd"))) == 6


def _on_the_cpu(trainer):
    """nnU-Net gives a trainer under DDP a CUDA device, and nothing else here needs one."""
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    return trainer


def _initialized_past_its_start(trainer):
    """A balanced start averages over the voxels of one process; the loss after it is what is compared."""
    trainer.initialize()
    if trainer.balanced_start is not None:
        trainer.balanced_start.skip()


def _train_one_step(rank, trainer_class, dataset):
    nnunet_module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    seed_everything(rank)
    trainer = _on_the_cpu(make_trainer(trainer_class, dataset))
    _initialized_past_its_start(trainer)
    before = {k: v.clone() for k, v in trainer.network.module.state_dict().items()}
    batch = next(trainer.get_dataloaders()[0])
    loss = trainer.train_step(batch)["loss"]
    return before, batch, loss, trainer.network.module.state_dict()


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerAPL, nnUNetTrainerAPLExpectation])
def test_step_of_two_processes_is_the_step_of_one_with_both_batches(
    trainer_factory, planned_unanimous_dataset, tmp_path, trainer_class
):
    (before, batch, loss, after), (_, other, other_loss, other_after) = run_ranks(
        _train_one_step, tmp_path, trainer_class, planned_unanimous_dataset
    )
    assert all(torch.equal(after[key], other_after[key]) for key in after)
    trainer = trainer_factory(trainer_class, planned_unanimous_dataset)
    assert trainer.configuration_manager.batch_dice
    _initialized_past_its_start(trainer)
    trainer.network.load_state_dict(before)
    both = [torch.cat(pair) for pair in zip(batch["target"], other["target"], strict=True)]
    single = trainer.train_step({"data": torch.cat([batch["data"], other["data"]]), "target": both})["loss"]
    assert np.mean([loss, other_loss]) == pytest.approx(single, rel=1e-5)
    for key, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, after[key], rtol=1e-4, atol=1e-5)


def _train(rank, dataset):
    nnunet_module.DDP = lambda network, device_ids: DistributedDataParallel(network)
    seed_everything(rank)
    own_sums = []
    sums = SoftScores.sums
    SoftScores.sums = lambda self: own_sums.append(sums(self).copy()) or sums(self)
    trainer = _on_the_cpu(make_trainer(nnUNetTrainerAPL, dataset))
    trainer.run_training()
    trainer.perform_actual_validation(True)
    return own_sums, trainer.output_folder, trainer.network.module.state_dict()


def test_two_processes_train_validate_and_add_their_scores(
    trainer_factory, planned_unanimous_dataset, tmp_path
):
    ranks = run_ranks(_train, tmp_path, planned_unanimous_dataset)
    (own, folder, weights), (other, _, other_weights) = ranks
    assert all(torch.equal(weights[key], other_weights[key]) for key in weights)
    with open(f"{folder}/{SCORES_FILE}") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row, mine, others in zip(rows, own, other, strict=True):
        dice, brier = SoftScores.results(mine + others)
        assert [float(row["soft_dice_1"]), float(row["soft_dice_2"])] == pytest.approx(dice.tolist())
        assert float(row["brier"]) == pytest.approx(brier)
    assert len(list(Path(folder, "validation").glob("*.npz"))) == 2
    assert Path(folder, "checkpoint_final.pth").is_file()
