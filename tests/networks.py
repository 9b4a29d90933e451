import torch
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.backbones.contract import Backbone


def randomise(backbone: Backbone, generator: torch.Generator) -> None:
    """In a new network statistics are 0 and 1 and residual branches switched off: errors would not show."""
    with torch.no_grad():
        for module in backbone.network.modules():
            if isinstance(module, _BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0.0, 0.1, generator=generator)
                module.running_var.uniform_(0.8, 1.2, generator=generator)
                module.weight.uniform_(0.8, 1.2, generator=generator)
                module.bias.normal_(0.0, 0.1, generator=generator)
