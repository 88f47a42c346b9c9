
import torch, numpy as np, pytest
from nnunet_softlabel.labels import SCALE
from tests.training.test_modes import SamplesAsStock, batches, nnUNetTrainer
def test_dbg(trainer_factory, planned_regions_dataset):
    d = planned_regions_dataset
    import json
    print(json.loads((d.preprocessed/"dataset.json").read_text())["labels"], json.loads((d.preprocessed/"dataset.json").read_text()).get("regions_class_order"))
    stock, _ = batches(trainer_factory(nnUNetTrainer, d), 4)
    ours, _ = batches(trainer_factory(SamplesAsStock, d), 4)
    for b, o in zip(stock, ours):
        h, s = b["target"][0], o["target"][0]
        for i in range(2):
          for c in range(2):
            a=(2*s[i,c]>SCALE); hh=h[i,c]
            print(b["keys"][i], c, "ours", int(a.sum()), "stock", int(hh.sum()), "both", int((a&hh).sum()), "ign", int(h[i,2].sum()), "stock ∩ ign", int((hh&h[i,2]).sum()))
    import nnunetv2
    f = d.preprocessed/"nnUNetPlans_3d_fullres"
    import blosc2
    for case in d.cases[:3]:
        hard = blosc2.open(str(f/f"{case}_seg.b2nd"))[:]; soft=blosc2.open(str(f/"soft_labels"/f"{case}.b2nd"))[:]
        print(case, hard.shape, np.unique(hard, return_counts=True), [(int((2*soft[c]>SCALE).sum()), int(((2*soft[c]>SCALE)&np.isin(hard[0], [[1,2],[2]][c])).sum())) for c in range(2)])
    assert 0
