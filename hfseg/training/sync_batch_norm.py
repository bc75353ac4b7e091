"""BatchNorm whose statistics are those of all processes' batches."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norms(module: nn.Module) -> None:
    """Turns every BatchNorm that is trained into SyncBatchNorm, in place; the parameters stay the same objects.

    Frozen ones have nothing to synchronise, and keep the hook that holds them in evaluation mode.
    """
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            synchronise_batch_norms(child)
        elif any(parameter.requires_grad for parameter in child.parameters()):
            module.add_module(name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
