"""MindSpore's context, set in one place."""
import os

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


def rank_and_size():
    """(rank, number of processes) under msrun; (0, 1) without it. Nothing is set up: evaluation needs no collectives."""
    if 'RANK_ID' in os.environ and 'MS_WORKER_NUM' in os.environ:
        return int(os.environ['RANK_ID']), int(os.environ['MS_WORKER_NUM'])
    if os.environ.get('MS_ROLE') == 'MS_WORKER':                                 # msrun over several machines leaves the rank to them
        ms.communication.init()
        return ms.communication.get_rank(), ms.communication.get_group_size()
    return 0, 1
