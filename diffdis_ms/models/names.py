"""Properties of parameters according to their names. Without MindSpore, because its import takes seconds."""

NEW_PARTS = ('text_query', 'dual_stream', 'alignment')
# last parts of the names of norms and embeddings: MindSpore's -> torch's
LEAVES = {
    'gamma': 'weight',
    'beta': 'bias',
    'embedding_table': 'weight',
    'moving_mean': 'running_mean',
    'moving_variance': 'running_var',
}


def is_new_parameter(name):
    """Whether Stable Diffusion's UNet does not have this parameter, which is then trained with `new_learning_rate`."""
    return not set(NEW_PARTS).isdisjoint(name.split('.'))


def is_text_parameter(name):
    """Whether a parameter belongs to the text tower T."""
    return name.split('.')[0] in ('text_model', 'text_projection')


def copied_from(name):
    """Name of the image's parameter that a parameter of the query starts as a copy of; None for all others. The image's
    parameter may not exist."""
    source = name.replace('.dual_stream.blocks.', '.transformer_blocks.')
    return source if source != name else None


def field_name(name):
    """Name of one of our parameters in diffusers, transformers and torch."""
    module, dot, leaf = name.rpartition('.')
    return module + dot + LEAVES.get(leaf, leaf)
