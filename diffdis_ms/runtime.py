"""MindSpore's context, set in one place."""
import mindspore as ms

_device = None


def setup(device='CPU'):
    """Graph mode on `device` ('CPU' or 'Ascend'). Once a process: MindSpore cannot change its device later."""
    global _device
    if _device == device:
        return
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device(device)
    if device == 'CPU':
        # Kernels are parallel inside; several dispatched at once fight over the cores (measured: one is about twice as fast).
        ms.runtime.dispatch_threads_num(1)
    _device = device


def setup_once():
    """`setup` with the default device, where nobody called it before."""
    if _device is None:
        setup()
