"""``nnunet_softlabel maps``: probabilities, uncertainty and volumes as files that people can open."""

from __future__ import annotations

import argparse

from nnunet_softlabel.command_line import (
    Commands,
    add_dataset,
    add_output,
    add_overwrite,
    add_predictions,
    add_processes,
)


def add_parser(commands: Commands) -> None:
    """Declare the command's flags."""
    parser = commands.add_parser("maps", help="Write probability and uncertainty maps, and volumes.")
    add_dataset(parser, "says what channels mean")
    add_predictions(parser, "Folder with .npz files; of several models, their mean and how far they differ.")
    add_output(parser, "For the maps and volumes.csv.")
    add_processes(parser)
    add_overwrite(parser, "Replace earlier files.")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the maps and say what was written."""
    from nnunet_softlabel.evaluation.maps import write_maps
    from nnunet_softlabel.formats.soft_dataset import SoftDataset

    dataset = SoftDataset.find(args.d)
    files = write_maps(dataset, args.i, args.o, num_processes=args.np, overwrite=args.overwrite)
    print(f"{len(files) - 1} maps of {', '.join(dataset.labels.names)}: probability, entropy (bits)", end="")
    print(", mutual information (bits)" if any("_mutual_information" in file.name for file in files) else "")
    print(f"Written: {files[-1]}")
