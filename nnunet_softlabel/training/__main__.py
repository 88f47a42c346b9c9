"""``python -m nnunet_softlabel.training ARGUMENTS.json RESULT.json``: a training in a process of its own."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":  # nnU-Net's worker processes import this module again
    from nnunet_softlabel.formats.files import write_json
    from nnunet_softlabel.training.budget import Budget
    from nnunet_softlabel.training.run import train

    arguments, result = map(Path, sys.argv[1:3])
    asked = json.loads(arguments.read_text(encoding="utf-8"))
    budget = Budget(asked.pop("epochs"), asked.pop("iterations"), asked.pop("device"))
    write_json(result, train(**asked, budget=budget))
