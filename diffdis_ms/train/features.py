"""Turn a batch of pixels and captions into the inputs of an objective. Frozen features may be computed only once."""

import numpy as np

from diffdis_ms.data.stream.loader import read_all
from diffdis_ms.data.transforms import clip_normalize
from diffdis_ms.pixels import to_unit_range
from diffdis_ms.train.objective import draw_diffdis, step_generator
from diffdis_ms.world import World


class DiffDisFeatures:
    """z, c and e of a batch.

    Args:
        encoders: Encoders. config: Config.
        caption_set: with `data.cache_in_memory`, the features of all its samples are computed at the start and kept.
        world: World.
    """

    def __init__(self, encoders, config, caption_set, world=World()):
        self.encoders, self.config, self.world = encoders, config, world
        self.cache = None
        if config.data.cache_in_memory:
            samples = read_all(caption_set, config.model.image_size, config.data.num_workers)
            z = encoders.encode_images(samples.pixels, progress=True)
            c, e = encoders.encode_texts(samples.captions, progress=True)
            row_of = np.full(len(caption_set), -1)
            row_of[samples.indices] = np.arange(len(samples.indices))
            self.cache = row_of, z, c, e
        self.zero_latent = encoders.zero_latent()
        self.empty_ids = encoders.tokenizer.encode([''], config.model.text_encoder.max_position_embeddings)
        self.empty_context = encoders.encode_ids(self.empty_ids)[0]
        self.latent_shape = self.zero_latent.shape[1:]

    def __call__(self, batch, step):
        """Make the inputs of `DiffDisObjective` for a loader's batch at a step."""
        z, c, e, ids = self._features(batch)
        return z, c, e, ids, *draw_diffdis(self.config.seed, step, self.config, self.latent_shape, self.world)

    def _features(self, batch):
        if self.cache is not None:
            row_of, z, c, e = self.cache
            rows = row_of[batch.indices]
            return z[rows], c[rows], e[rows], None
        z = self.encoders.encode_images(batch.pixels)
        if self.config.train.freeze_text_encoder:
            return (z, *self.encoders.encode_ids(batch.token_ids), None)
        return z, None, None, batch.token_ids


class CachedFeatures:
    """z, c and e of a `LatentBatch`, which contains them.

    Args:
        cache: LatentCache. config: Config. world: World.
    """

    def __init__(self, cache, config, world=World()):
        self.config, self.world = config, world
        self.zero_latent, self.empty_context, self.latent_shape = (
            cache.zero_latent,
            cache.empty_context,
            cache.shapes['z'],
        )

    def __call__(self, batch, step):
        return (
            batch.z,
            batch.c,
            batch.e,
            None,
            *draw_diffdis(self.config.seed, step, self.config, self.latent_shape, self.world),
        )


class CLIPFeatures:
    """Pixels, normalised according to an ImageEncoderConfig, and token ids."""

    def __init__(self, image):
        self.mean, self.std = image.image_mean, image.image_std

    def __call__(self, batch, step):
        return clip_normalize(batch.pixels, self.mean, self.std), batch.token_ids


class AutoencoderFeatures:
    """Pixels, and noise for the posterior."""

    def __init__(self, config, world=World()):
        train, self.seed, self.world = config.train, config.seed, world
        self.shape = (train.batch_size * train.accumulation_steps * world.size, *config.model.latent_shape)

    def __call__(self, batch, step):
        noise = step_generator(self.seed, step).standard_normal(self.shape, dtype=np.float32)
        return to_unit_range(batch.pixels), self.world.share(noise)
