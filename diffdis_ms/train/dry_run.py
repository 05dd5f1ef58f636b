"""Preview of a run for `tools/train.py --dry-run`: parameters by group, memory by use, the first batch as an image."""

from pathlib import Path

from diffdis_ms.data.transforms import image_grid, to_image
from diffdis_ms.models.attention import uses_flash
from diffdis_ms.models.encoders import Encoders
from diffdis_ms.models.unet import activation_elements
from diffdis_ms.pixels import to_unit_range
from diffdis_ms.runtime.compile_cache import compile_cached
from diffdis_ms.train.optim import group_settings

GiB = 2**30


def describe(job, report=print):
    """Report parameters and memory, and write output_dir/first_batch.png with its captions in first_batch.txt.

    With `runtime.compile_cache` the step is also compiled, so that training starts at once and does not need the memory
    for compiling.

    Args:
        job: job.Job. report: called with each line.
    """
    output = Path(job.config.output_dir)
    for line in [*parameter_lines(job), '', *memory_lines(job)]:
        report(line)
    batches = iter(job.loader)
    batch = next(batches)
    batches.close()
    # Before any image is decoded: MindSpore's cache identifies graphs by their order, and training compiles the step
    # first.
    how = job.config.runtime.compile_cache and compile_cached(
        *job.step.main_graph(job.learner.features(batch, 0)), job.config, job.world
    )
    if how:
        report(f'the step compiles; its graph {"is now" if how == "cold" else "was already"} in the compile cache')
    output.mkdir(parents=True, exist_ok=True)
    shown = min(64, len(batch.captions))
    pixels = to_unit_range(batch.pixels) if hasattr(batch, 'pixels') else _decoded(job, batch.z[:shown])
    image_grid([to_image(x) for x in pixels[:shown]]).save(output / 'first_batch.png')
    (output / 'first_batch.txt').write_text(
        ''.join(f'{caption}\n' for caption in batch.captions[:shown]), encoding='utf-8'
    )
    report(f'\nfirst batch: {output / "first_batch.png"}, its captions in first_batch.txt')
    report(
        f'one step takes {job.global_batch} pairs: {job.config.train.batch_size} per device x'
        f' {job.config.train.accumulation_steps} micro-batches x {job.world.size} devices;'
        f' {len(job.loader.good)} good samples, {len(job.loader.skipped)} skipped'
    )


def _decoded(job, z):
    """Images decoded from cached latents, float32 in [-1, 1]."""
    return Encoders(job.learner.network('vae'), None, None, job.config.model, min(8, len(z))).decode_latents(z)


def parameter_lines(job):
    """Lines of a table: group, parameters, learning rate, weight decay."""
    options, sizes = job.config.optimizer, {'base': 0, 'new': 0, 'scale': 0}
    for group, units in job.update.units.groups.items():
        sizes[group] = sum(p.size for p in units)
    names = {'base': 'trained', 'new': 'trained, new', 'scale': 'logit scale'}
    settings = group_settings(options.learning_rate, options.new_learning_rate, options.weight_decay)
    lines = [f'{"parameters":<24}{"millions":>10}{"rate":>10}{"decay":>10}']
    lines += [
        f'{names[g]:<24}{size / 1e6:>10.3f}{settings[g]["lr"]:>10.1e}{settings[g]["weight_decay"]:>10.1e}'
        for g, size in sizes.items()
        if size
    ]
    lines += [
        f'{"frozen: " + stem:<24}{sum(p.size for p in network.get_parameters()) / 1e6:>10.3f}'
        for stem, network in _frozen(job)
    ]
    return lines


def _frozen(job):
    return [(stem, job.learner.networks[stem]) for stem in job.learner.frozen]


def memory_lines(job):
    """Lines of a table of `memory`, with its sum."""
    uses = memory(job)
    lines = [f'{"memory, estimated":<40}{"GiB":>8}'] + [
        f'{name:<40}{size / GiB:>8.2f}' for name, size in uses.items() if size
    ]
    return lines + [f'{"sum (compilation and workspaces apart)":<40}{sum(uses.values()) / GiB:>8.2f}']


def memory(job):
    """{use: bytes} of one device. All are exact except the last: activations are estimated from shapes
    (`activation_elements`)."""
    units = job.update.units
    trained, small = (
        sum(p.size for p in units.parameters),
        sum(p.size for p in units.units if p.name.startswith('small.')),
    )
    frozen = sum(p.size for _, network in _frozen(job) for p in network.get_parameters())
    config, train, shards = job.config, job.config.train, job.world.size if job.update.shards is not None else 1
    activations = 0
    if config.objective == 'diffdis':
        # bytes; half of the activations of a 16-bit network are float32 outputs of norms
        each = 4 if train.precision == 'fp32' else 3
        generation = 0 if train.task == 'dis' else train.generation_batch_size or train.batch_size
        alignment = 0 if train.task == 'gen' else train.batch_size
        how = {'fused': uses_flash() and train.precision != 'fp32', 'recompute': train.recompute}
        activations = each * (
            generation * activation_elements(config.model, True, **how)
            + alignment * activation_elements(config.model, False, **how)
        )
    return {
        'weights that train': 4 * trained,
        'small ones once more, as one vector': 4 * small,
        'frozen weights': 4 * frozen,
        'gradients': 4 * trained,
        'moments of AdamW': 8 * trained // shards,
        'EMA': 4 * trained // shards,
        "this device's shards of the weights": 4 * trained // shards * (shards > 1),
        'accumulated gradients': 4 * trained * (train.accumulation_steps > 1),
        'activations (estimate)': activations,
    }
