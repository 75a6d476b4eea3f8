import gc
import sys
from pathlib import Path

import pytest
import torch

from chiasm.evaluation import metrics

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))  # for `plausible`


@pytest.fixture
def nothing_left_behind():
    """A plugin registers for the process; here each test begins without."""
    registered, imported = dict(metrics._metrics), set(sys.modules)
    yield
    metrics._metrics.clear()
    metrics._metrics.update(registered)
    for name in set(sys.modules) - imported:
        if name.startswith("chiasm_plugin_"):
            del sys.modules[name]
    gc.collect()  # the subclasses of `Task` that a plugin defined
