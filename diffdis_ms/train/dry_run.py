"""What a run will be, before it starts: parameters by group, memory by part, the first batch as a picture
(`tools/train.py --dry-run`)."""

from pathlib import Path

from diffdis_ms.data.transforms import image_grid, to_image
from diffdis_ms.models.encoders import Encoders, to_unit_range
from diffdis_ms.runtime.compile_cache import compile_cached

GiB = 2**30


def describe(job, report=print):
    """Report parameters and memory; write output_dir/first_batch.png with its captions in first_batch.txt. With
    `runtime.compile_cache` the step is compiled, too, so that training starts at once and without the memory that
    compiling takes.

    Args:
        job: loop.Job. report: called with each line.
    """
    output = Path(job.config.output_dir)
    for line in [*parameter_lines(job), '', *memory_lines(job)]:
        report(line)
    batches = iter(job.loader)
    batch = next(batches)
    batches.close()
    # Before any picture is decoded: MindSpore's cache knows graphs by their order, and training compiles the step
    # first.
    how = job.config.runtime.compile_cache and compile_cached(
        *job.step.main_graph(job.setup.features(batch, 0)), job.config, job.world.rank, job.world.size
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
        f'one step takes {job.global_batch} pairs: {job.config.train.batch_size} a device x'
        f' {job.config.train.accumulation_steps} parts x {job.world.size} devices; {len(job.loader.good)} good samples,'
        f' {len(job.loader.skipped)} skipped'
    )


def _decoded(job, z):
    """Pictures of cached latents, float32 in [-1, 1]."""
    return Encoders(job.setup.network('vae'), None, None, job.config.model, min(8, len(z))).decode_latents(z)


def parameter_lines(job):
    """A table: group, parameters, learning rate, weight decay."""
    options, sizes = job.config.optimizer, {'base': 0, 'new': 0, 'scale': 0}
    for group, units in job.update.units.groups.items():
        sizes[group] = sum(p.size for p in units)
    names = {
        'base': ('trained', options.learning_rate, options.weight_decay),
        'new': ('trained, new', options.new_learning_rate, options.weight_decay),
        'scale': ('logit scale', options.new_learning_rate, 0.0),
    }
    lines = [f'{"parameters":<24}{"millions":>10}{"rate":>10}{"decay":>10}']
    lines += [
        f'{names[g][0]:<24}{size / 1e6:>10.3f}{names[g][1]:>10.1e}{names[g][2]:>10.1e}'
        for g, size in sizes.items()
        if size
    ]
    lines += [
        f'{"frozen: " + stem:<24}{sum(p.size for p in network.get_parameters()) / 1e6:>10.3f}'
        for stem, network in _frozen(job)
    ]
    return lines


def _frozen(job):
    return [(stem, job.setup.networks[stem]) for stem in job.setup.frozen]


def memory_lines(job):
    """A table of `memory`, and its sum."""
    parts = memory(job)
    lines = [f'{"memory, estimated":<40}{"GiB":>8}'] + [
        f'{name:<40}{size / GiB:>8.2f}' for name, size in parts.items() if size
    ]
    return lines + [f'{"sum (compilation and workspaces apart)":<40}{sum(parts.values()) / GiB:>8.2f}']


def memory(job):
    """{part: bytes} of one device. All but the last part are exact; activations are counted from the shapes
    (`activation_elements`)."""
    units = job.update.units
    trained, small = (
        sum(p.size for p in units.parameters),
        sum(p.size for p in units.units if p.name.startswith('small.')),
    )
    frozen = sum(p.size for _, network in _frozen(job) for p in network.get_parameters())
    config, train, parts = job.config, job.config.train, job.world.size if job.update.shards is not None else 1
    activations = 0
    if config.objective == 'diffdis':
        each = (
            4 if train.precision == 'fp32' else 3
        )  # bytes: half of what a 16-bit network keeps are results of norms, float32
        generation = 0 if train.task == 'dis' else train.generation_batch_size or train.batch_size
        alignment = 0 if train.task == 'gen' else train.batch_size
        activations = each * (
            generation * activation_elements(config, True) + alignment * activation_elements(config, False)
        )
    return {
        'weights that train': 4 * trained,
        'small ones once more, as one vector': 4 * small,
        'frozen weights': 4 * frozen,
        'gradients': 4 * trained,
        'moments of AdamW': 8 * trained // parts,
        'EMA': 4 * trained // parts,
        "this device's parts of the weights": 4 * trained // parts * (parts > 1),
        'accumulated gradients': 4 * trained * (train.accumulation_steps > 1),
        'activations (estimate)': activations,
    }


def activation_elements(config, decoder):
    """Elements that one sample's forward pass through the UNet keeps for its gradients.

    A residual block keeps the inputs and outputs of its norms, of silu and its sigmoid, and of its convolutions: 4
    (C_in + C_out) a pixel. A transformer layer keeps some 31 maps of its width a pixel, and the attention weights and
    their softmax to the pixels and the context (not where the fused kernel of Ascend recomputes them).

    Args:
        config: Config. decoder: whether the decoder half is run, too (generation); alignment ends after the middle
            block.
    """
    unet, context = config.model.unet, config.model.text_encoder.max_position_embeddings
    fused = config.device == 'Ascend' and config.train.precision != 'fp32'
    side = config.model.image_size // 2 ** (len(config.model.vae.block_out_channels) - 1)
    pixels = [(side // 2**level) ** 2 for level in range(len(unet.block_out_channels))]

    def resnet(level, c_in, c_out):
        return 4 * (c_in + c_out) * pixels[level]

    def transformer(level, width):
        weights = 0 if fused else 2 * unet.num_attention_heads * (pixels[level] + context)
        return unet.transformer_layers_per_block * pixels[level] * (31 * width + weights)

    widths, total, skips = unet.block_out_channels, 0, []
    before = widths[0]
    for level, width in enumerate(widths):
        for i in range(unet.layers_per_block):
            total += resnet(level, before if i == 0 else width, width) + (
                transformer(level, width) if unet.attention_levels[level] else 0
            )
        before = width
        skips += [width] * unet.layers_per_block
    last = len(widths) - 1
    total += 2 * resnet(last, before, before) + transformer(last, before)
    if decoder:
        for level in reversed(range(len(widths))):
            for _ in range(unet.layers_per_block + 1):
                skip = skips.pop() if skips else widths[0]
                total += resnet(level, before + skip, widths[level]) + (
                    transformer(level, widths[level]) if unet.attention_levels[level] else 0
                )
                before = widths[level]
    return total
