"""What the names of parameters tell; no MindSpore, whose import takes longer than some who ask."""

NEW_PARTS = ('text_query', 'dual_stream', 'alignment')
# the leaves of norms and embeddings: MindSpore's name -> torch's
LEAVES = {
    'gamma': 'weight',
    'beta': 'bias',
    'embedding_table': 'weight',
    'moving_mean': 'running_mean',
    'moving_variance': 'running_var',
}


def is_new_parameter(name):
    """Whether a parameter is one that Stable Diffusion's UNet does not have (it is trained at `new_learning_rate`)."""
    return not set(NEW_PARTS).isdisjoint(name.split('.'))


def is_text_parameter(name):
    """Whether a parameter is one of the text tower T."""
    return name.split('.')[0] in ('text_model', 'text_projection')


def copied_from(name):
    """The image's parameter, where it exists, of which a parameter of the query starts as a copy; None for all
    others."""
    source = name.replace('.dual_stream.blocks.', '.transformer_blocks.')
    return source if source != name else None


def field_name(name):
    """The name that diffusers, transformers and torch give to one of our parameters."""
    module, dot, leaf = name.rpartition('.')
    return module + dot + LEAVES.get(leaf, leaf)
