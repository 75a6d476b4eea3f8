"""What a rank of two does: steps on its own share of documents, whose weights it saves, then a whole short run.

Run by torchrun, once for both, with a folder.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy import Squares, toy

from chiasm.data.documents import PictureReader, document
from chiasm.distribution.processes import Ranks
from chiasm.sequence import pack
from chiasm.training import train
from chiasm.training.aims import DocumentsAim
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import TrainStep
from chiasm.training.train import build_model

RECIPE = ("stages.codes.steps=4", "stages.learn.steps=4")


def union(folder: Path, ranks: Ranks) -> None:
    """Rank 0 has words only; rank 1 has the pictures; one process has all of them."""
    recipe = toy("stages.learn.precision=fp32")
    stage = recipe.stages[1]
    model = build_model(recipe)
    model.train_only(stage.train)
    step = TrainStep(DocumentsAim(model), build_optimiser(model, stage), stage, ranks, torch.device("cpu"))
    shares = [Squares(kinds=("words",)), Squares(kinds=("see", "draw"))]
    for start in (0, 4, 8):
        rows = [
            [document(model.contract, sample) for index in range(start, start + 4) for sample in share[index]]
            for share in (shares if ranks.world == 1 else shares[ranks.rank : ranks.rank + 1])
        ]
        batch, slots = pack(rows)
        outcome = step([PictureReader(model.contract).attach(batch, slots)])
    learnt = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    save_file(
        {**learnt, "norm": torch.tensor(outcome.norm), "objective": torch.tensor(outcome.objective)},
        folder / f"rank{ranks.rank}of{ranks.world}.safetensors",
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = Ranks.start(torch.device("cpu"))
    union(Path(sys.argv[1]), ranks)
    train(toy(*RECIPE), Path(sys.argv[1]) / "run")
    ranks.stop()
