"""One rank of two: takes steps on its own share of documents and saves the weights. Run by torchrun.

Rank 0 has words only; rank 1 has the pictures. `union.py FOLDER` with one process has all of them.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toy import Squares, toy

from chiasm.data.documents import PictureReader, document
from chiasm.distribution.processes import Ranks
from chiasm.sequence import pack
from chiasm.training.optimiser import build_optimiser
from chiasm.training.step import DocumentsAim, TrainStep
from chiasm.training.train import build_model

torch.set_num_threads(1)
ranks = Ranks.start(torch.device("cpu"))
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
    Path(sys.argv[1]) / f"rank{ranks.rank}of{ranks.world}.safetensors",
)
ranks.stop()
