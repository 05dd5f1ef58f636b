"""Messages about what a plan lacks or assumes."""

from ckpt_convert.configs import clip as clip_configs
from ckpt_convert.plan import make_plan
from diffdis_ms.config import ModelConfig
from diffdis_ms.errors import ConfigError
from diffdis_ms.storage.tensors import short


def complaints(plan):
    """One line that names the first few mismatches; '' if there are none."""
    lines = plan.problems + [f'{short(name)} has no place' for name in plan.unmapped]
    return '; '.join(lines[:5]) + (f' (and {len(lines) - 5} more; `inspect` lists all)' if len(lines) > 5 else '')


def assumptions(source, overrides=()):
    """List what was assumed because no file of the source gives it."""
    if source.kind == 'clip':
        return clip_configs.assumed({stem: network.json for stem, network in source.networks.items()}, overrides)
    if source.kind != 'sd' or source.config:
        return []
    given = {item.partition('=')[0] for item in overrides}
    if source.layout == 'diffusers':
        untold = {
            'scheduler/scheduler_config.json': (
                source.json.get('scheduler'),
                'image_diffusion.target=noise image_diffusion.schedule=linear',
            ),
            'unet/config.json': (source.networks['unet'].json, 'unet.num_attention_heads=8'),
            'vae/config.json': (source.networks['vae'].json, f'vae.scaling_factor={ModelConfig().vae.scaling_factor}'),
        }
    else:
        untold = {
            'YAML file of the same name': (
                source.json.get('yaml'),
                'image_diffusion.target=noise unet.num_attention_heads=8',
            )
        }
    return [
        f'no {file} beside the weights; using Stable Diffusion v1\'s settings: {settings} (--set changes them)'
        for file, (found, settings) in untold.items()
        if not found and not {item.partition('=')[0] for item in settings.split()} <= given
    ]


def inspect_plan(source):
    """List what an import of only this source would lack."""
    try:
        plan = make_plan(source)
    except ConfigError as e:
        return [f'  to be mended   {e}']
    lines = [f'  to be mended   {line}' for line in plan.problems] + [
        f'  no place       {short(name, 200)}' for name in plan.unmapped
    ]
    if source.kind == 'sd':
        diffusion = plan.config.image_diffusion
        lines.insert(
            0,
            f'  diffusion      the UNet predicts {diffusion.target}; {diffusion.num_train_timesteps} timesteps, '
            f'schedule {diffusion.schedule}, betas {diffusion.beta_start} to {diffusion.beta_end}',
        )
    whole = not plan.problems and not plan.unmapped
    if whole:
        count = sum(c.tensor is not None for n in plan.networks.values() for c in n.values())
        lines.append(f'  would convert  {count} parameters, nothing left over')
    return lines + [f'  assumed        {line}' for line in assumptions(source)]
