"""The options that say where and how a tool runs a model: --device, --precision and --set runtime.KEY=VALUE."""

from diffdis_ms.config import RuntimeConfig, load
from diffdis_ms.errors import ConfigError

TRAINING_ONLY = ('compile_cache', 'compile_cache_dir')  # fields of RuntimeConfig that only tools/train.py honours


def add_options(parser):
    """Add the options to an argparse parser."""
    parser.add_argument('--device', choices=['CPU', 'Ascend'], default='CPU')
    parser.add_argument(
        '--precision',
        choices=['fp32', 'fp16', 'bf16'],
        help=(
            'of matrix products, convolutions and their weights (default: fp32 on the CPU, which has no bf16; on Ascend'
            ' fp16 on a 910, bf16 on later chips)'
        ),
    )
    parser.add_argument(
        '--set',
        dest='settings',
        nargs='+',
        action='extend',
        default=[],
        metavar='runtime.KEY=VALUE',
        help='settings of the device as in configs (docs/ascend.md), for example runtime.flash_attention=false',
    )


def setup(args):
    """`runtime.setup` with the values of `add_options`.

    Returns:
        (precision, device) for the networks and for records: 'fp32', 'fp16' or 'bf16'; 'CPU' or the chip's name.

    Raises:
        ConfigError: a setting is not one of `runtime`, has no effect here, or does not suit the device.
    """
    wanted = runtime_settings(args.settings)
    if args.precision == 'bf16' and args.device == 'CPU':
        raise ConfigError('--precision: MindSpore has no bf16 kernels for the CPU; use fp32 or fp16 there')
    from diffdis_ms.runtime import context  # only once the options are checked: importing MindSpore takes seconds

    context.setup(args.device, wanted, args.precision)
    chip = context.ascend_chip() if args.device == 'Ascend' else 'CPU'
    return args.precision or default_precision(chip), chip


def runtime_settings(settings):
    """RuntimeConfig of a list of runtime.KEY=VALUE."""
    known = [name for name in vars(RuntimeConfig()) if name not in TRAINING_ONLY]
    for item in settings:
        key = item.partition('=')[0]
        if not key.startswith('runtime.') or key.removeprefix('runtime.') in TRAINING_ONLY:
            raise ConfigError(f'--set {item}: {key} has no effect here; this takes {", ".join(known)} of runtime.')
    return load(overrides=settings).runtime


def default_precision(chip):
    """What a chip ('CPU', or as `context.ascend_chip`) is made for; a 910 has no bf16."""
    return {'CPU': 'fp32', 'ascend910': 'fp16'}.get(chip, 'bf16')
