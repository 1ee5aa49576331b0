"""A small trained-looking network: every test of the model stands on one."""

from __future__ import annotations

import pytest
import torch

from mirage_plugin.model.network import TIERS, MirageNet


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def net() -> MirageNet:
    """Nano with heads that do something: what it draws is nonsense, but depends on everything it sees."""
    torch.manual_seed(0)
    made = MirageNet(TIERS["nano"])
    made.begin_training()
    with torch.no_grad():
        made.head_matrices.weight.normal_(0, 0.02)
        made.head_words.weight.normal_(0, 0.02)
        made.head_detail.weight.normal_(0, 0.02)
    return made.eval()
