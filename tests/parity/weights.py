"""The same weights on both sides, matched by name, and the measure of agreement."""

import numpy as np
import torch
from mindspore import Tensor, nn

from diffdis_ms.models.names import field_name as torch_name
from diffdis_ms.models.names import is_new_parameter

TORCH_NORMS = (torch.nn.LayerNorm, torch.nn.GroupNorm, torch.nn.BatchNorm2d)


def copy_to_torch(module, *cells, torch_only=()):
    """Fill a torch module from our cells and return it in evaluation mode.

    The names, and the shape of each, must be the same on both sides but for DiffDis' new parameters, `torch_only` and
    torch's count of training batches: a missing or an extra name is a failure, not a default. So must be the epsilon of
    every norm, which random weights and inputs of unit size would not show.
    """
    ours = {
        torch_name(name): p for cell in cells for name, p in cell.parameters_and_names() if not is_new_parameter(name)
    }
    theirs = {
        name: p
        for name, p in module.state_dict().items()
        if name not in torch_only and not name.endswith('.num_batches_tracked')
    }
    assert set(ours) == set(theirs), {
        'only ours': sorted(set(ours) - set(theirs)),
        'only theirs': sorted(set(theirs) - set(ours)),
    }
    assert {n: tuple(p.shape) for n, p in ours.items()} == {n: tuple(p.shape) for n, p in theirs.items()}
    assert our_epsilons(cells) == {n: m.eps for n, m in module.named_modules() if isinstance(m, TORCH_NORMS)}
    with torch.no_grad():
        for name, p in theirs.items():
            p.copy_(to_torch(ours[name]))
    return module.eval()


def settle_batch_norms(cell, module, x):
    """Give both sides running means that one batch x has in the torch module, and 1.5 times its variances.

    With random means a deep network's activations drown in them: at its end pictures differ, and mistakes in early
    layers show, by less than the tolerance. With the batch's own variances it is chaotic: torch's float32 is 6e-5 off
    its float64 (RN50).
    """
    norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    for norm in norms:
        norm.running_var *= 1.5
    settled = module.eval().state_dict()
    for name, p in cell.parameters_and_names():
        if name.endswith(('.moving_mean', '.moving_variance')):
            p.set_data(Tensor(settled[torch_name(name)].numpy()))


def our_epsilons(cells):
    """{name: epsilon} of the norms that the torch side has, too."""
    norms = {
        name: c
        for cell in cells
        for name, c in cell.cells_and_names()
        if isinstance(c, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d))
    }
    return {
        name: c.epsilon if isinstance(c, nn.LayerNorm) else c.eps
        for name, c in norms.items()
        if not is_new_parameter(name)
    }


def to_torch(tensor):
    """A MindSpore tensor as a torch one."""
    return torch.from_numpy(np.ascontiguousarray(tensor.asnumpy()))


def relative_error(a, b):
    """|a - b| / |b|, in float64; the shapes must agree."""
    a, b = (np.asarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x.asnumpy(), np.float64) for x in (a, b))
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def check(what, ours, theirs, tolerance):
    """Fail above `tolerance`; print the relative error (`pytest -rP` shows it)."""
    error = relative_error(ours, theirs)
    print(f'{what}: relative error {error:.1e} (tolerance {tolerance:.0e})')
    assert error <= tolerance, f'{what}: {error}'
