"""Set up MindSpore's context.

Differences between chips as documented by MindSpore 2.7.2 (not tested on an NPU):

    chip                             graphs (jit_level)            overflow in float16    FlashAttentionScore   bfloat16
    910 (soc ascend910)              O2: the whole graph by GE     saturates, no inf      no: plain formula     no
    910B, Atlas A2 (ascend910b)      O0: kernel by kernel;         inf and nan (default), yes                   yes
    910C, Atlas A3 (ascend910_93)    O1 fuses kernels besides      or saturates           yes                   yes

With saturation, an overflow leaves no inf in the gradients, so loss scaling must ask the device for overflows.
MindFormers and `mindspore.amp` do so according to MS_ASCEND_CHECK_OVERFLOW_MODE, which is set here.
"""

import os

import mindspore as ms

from diffdis_ms.config import RuntimeConfig
from diffdis_ms.errors import ConfigError
from diffdis_ms.models.attention import use_flash
from diffdis_ms.world import World

FLASH_CHIPS = ('ascend910b', 'ascend910_93')
HCCL_CONNECT_TIMEOUT = 600  # seconds; CANN's default of 120 is short if one rank compiles longer than the others
OVERFLOW_MODES = {'infnan': 'INFNAN_MODE', 'saturation': 'SATURATION_MODE'}  # of runtime.overflow_mode

_device = None


def setup(device='CPU', runtime=None, precision='fp32'):
    """Set graph mode on `device` ('CPU' or 'Ascend'). MindSpore cannot change the device of a process later.

    Args:
        runtime: `Config.runtime`; None for its defaults. precision: `Config.train.precision`.

    Raises:
        ConfigError: the chip does not support a setting of `runtime`, or this MindSpore cannot use Ascend.
    """
    global _device
    if _device == device:
        return
    runtime = runtime or RuntimeConfig()
    if os.environ.get('MS_COMPILER_CACHE_ENABLE') == '1':
        raise ConfigError(
            "unset MS_COMPILER_CACHE_ENABLE: MindSpore's compile cache gives one graph's results for another; "
            "runtime.compile_cache=true is safe"
        )
    ms.set_context(mode=ms.GRAPH_MODE)
    if device == 'CPU':
        ms.set_device(device)
        # Kernels are parallel inside. Several at once compete for the cores: one at a time is about twice as fast
        # (measured).
        ms.runtime.dispatch_threads_num(1)
        use_flash(False)
    else:
        _setup_ascend(runtime, precision)
    if runtime.deterministic:
        ms.set_deterministic(True)
    _device = device


def _setup_ascend(runtime, precision):
    """Set up Ascend. Environment variables come first, because HCCL and the device read them when they start."""
    os.environ.update(ascend_environment(runtime, os.environ))
    if runtime.jit_level is not None:
        ms.set_context(jit_config={'jit_level': runtime.jit_level})
    try:
        ms.set_device('Ascend')
    except (RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise ConfigError(
            f'device=Ascend cannot be used ({reason}); python tools/doctor.py says what is missing'
        ) from None
    chip = ascend_chip()
    if runtime.overflow_mode == 'infnan' and chip == 'ascend910':
        raise ConfigError(
            'runtime.overflow_mode: infnan is not possible on a 910, which saturates; leave it out or use saturation'
        )
    if precision == 'bf16' and chip == 'ascend910':
        raise ConfigError('train.precision: a 910 has no bf16; use fp16')
    if runtime.memory_limit_gb is not None:
        ms.runtime.set_memory(max_size=f'{runtime.memory_limit_gb}GB')
    if chip != 'ascend910':  # CANN's default lets float32 convolutions run in HF32, which has 11 bits of mantissa
        ms.device_context.ascend.op_precision.conv_allow_hf32(False)
    use_flash(runtime.flash_attention and chip in FLASH_CHIPS)


def ascend_environment(runtime, environ):
    """Environment variables for a `RuntimeConfig`. A field that is set overrides `environ`, which overrides our
    default."""
    connect_timeout = runtime.hccl_connect_timeout or environ.get('HCCL_CONNECT_TIMEOUT', HCCL_CONNECT_TIMEOUT)
    found = {'HCCL_CONNECT_TIMEOUT': str(connect_timeout)}
    if runtime.hccl_exec_timeout is not None:
        found['HCCL_EXEC_TIMEOUT'] = str(runtime.hccl_exec_timeout)
    if runtime.overflow_mode is not None:
        found['MS_ASCEND_CHECK_OVERFLOW_MODE'] = OVERFLOW_MODES[runtime.overflow_mode]
    return found


def ascend_chip():
    """MindSpore's name of the chip ('ascend910', 'ascend910b', 'ascend910_93'), or '' without one."""
    from mindspore._c_expression import MSContext

    return MSContext.get_instance().get_ascend_soc_version()


def setup_once():
    """Call `setup` with the default device if it was not called before."""
    if _device is None:
        setup()


def this_world():
    """The `World` that msrun started, or a single process without msrun.

    It sets up no collectives, which work shared through files does not need (see `train.distributed.join_world`).
    msrun also starts the command once as the cluster's scheduler. That process has nothing to do and ends here.

    Raises:
        ConfigError: msrun was started on several machines without --node_rank.
    """
    role = os.environ.get('MS_ROLE')
    if role is None:
        return World()
    if role == 'MS_SCHED':
        raise SystemExit(0)
    if 'MS_NODE_ID' not in os.environ:
        raise ConfigError(
            'with several machines msrun needs --node_rank on each (tools/launch.sh gives it): otherwise processes do'
            ' not know their rank'
        )
    return World(int(os.environ['RANK_ID']), int(os.environ['MS_WORKER_NUM']))
