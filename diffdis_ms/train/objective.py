"""The loss cells, one short class per objective, and their random inputs.

A loss cell is deterministic: timesteps, noise and drop masks are inputs. `draw_*` draws them from (seed, step) only, so
that a resumed run gets the same numbers as an uninterrupted one, and any number of processes gets the same numbers. An
objective computes the terms of its own rows in `terms`; `Objective` computes the loss over the global batch.
"""

import math

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from diffdis_ms.diffusion.losses import alignment_loss, autoencoder_loss, image_generation_loss, total_loss
from diffdis_ms.diffusion.process import q_sample, velocity
from diffdis_ms.diffusion.schedule import alphas_cumprod
from diffdis_ms.train.distributed import Gather
from diffdis_ms.world import World


class LogitScale(nn.Cell):
    """CLIP's logit scale: exp of a learnable logarithm, which the training step limits to `max_logit_scale`."""

    def __init__(self, config):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(
            Tensor(math.log(config.logit_scale), mstype.float32),
            name='logit_scale',
            requires_grad=config.learnable_logit_scale,
        )
        self.limit = math.log(config.max_logit_scale)

    def construct(self):
        return ops.exp(self.weight)

    def value(self):
        """The scale as a number."""
        return float(np.exp(self.weight.asnumpy()))


class Objective(nn.Cell):
    """A loss of two terms: a mean over this process' rows, and the alignment of queries and texts over the global
    batch.

    Args:
        world: World.
        lambda_ita: weight of the alignment.

    Attributes:
        logit_scale: LogitScale or None; set by objectives that have one.
        aligned: whether `terms` returns queries to align.

    Returns:
        (loss, loss_ig, loss_ita) of this process, scalars. A term that an objective does not have is zero. The first
        term (an autoencoder's only one) is always called loss_ig.
    """

    def __init__(self, world, lambda_ita=1.0):
        super().__init__(auto_prefix=False)  # parameters keep their names in their network
        self.lambda_ita, self.gather = lambda_ita, Gather(world)
        self.logit_scale, self.aligned = None, False

    def terms(self, *inputs):
        """(loss_ig scalar, p, e): p, e are predicted and true queries (B, D), or None without alignment."""
        raise NotImplementedError

    def align(self, p, e):
        """Eq. 8 over the rows of all processes."""
        return alignment_loss(self.gather(p), self.gather(e), self.logit_scale())

    def construct(self, *inputs):
        loss_ig, p, e = self.terms(*inputs)
        loss_ita = Tensor(0.0, mstype.float32) if p is None else self.align(p, e)
        return total_loss(loss_ig, loss_ita, self.lambda_ita), loss_ig, loss_ita


class DiffDisObjective(Objective):
    """L_IG + lambda L_ITA (Algorithm 1, Eq. 9).

    Args:
        unet: DiffDisUNet.
        config: Config.
        empty_context: c of the empty caption (1, L, hidden), float32.
        zero_latent: V(0), the latent of the zero image (1, 4, H, W), float32.
        text_encoder: CLIPTextEncoder that is also trained, or None if c and e are inputs.
        empty_ids: token ids of the empty caption (1, L) int32, needed if T is trained, because its context then changes
            at each step.
    """

    def __init__(self, unet, config, empty_context, zero_latent, text_encoder=None, world=World(), empty_ids=None):
        model, train = config.model, config.train
        super().__init__(world, train.lambda_ita)
        self.unet, self.text_encoder = unet, text_encoder
        self.logit_scale, self.aligned = LogitScale(model), train.task != 'gen'
        self.empty_context, self.zero_latent = Tensor(empty_context), Tensor(zero_latent)
        if text_encoder is not None:
            self.empty_ids = Tensor(empty_ids, mstype.int32)
        self.abar_z = Tensor(alphas_cumprod(model.image_diffusion).astype(np.float32))
        self.abar_e = Tensor(alphas_cumprod(model.text_diffusion).astype(np.float32))
        self.gamma = model.text_diffusion.gamma
        self.image_target, self.text_target = model.image_diffusion.target, model.text_diffusion.target
        self.task = train.task
        self.gen_batch = train.generation_batch_size or train.batch_size

    def terms(self, z, c, e, ids, t_z, noise_z, drop_caption, t_e, noise_e, drop_image):
        """z (B, 4, H, W); c (B, L, hidden) and e (B, 1, D), or None with ids (B, L); the others from `draw_diffdis`."""
        empty = self.empty_context
        if self.text_encoder is not None:  # with the empty caption as an additional row
            c, e = self.text_encoder(ops.concat((ids, self.empty_ids)))
            c, e, empty = c[:-1], e[:-1], c[-1:]
        loss_ig, p = Tensor(0.0, mstype.float32), None
        if self.task != 'dis':
            n = self.gen_batch
            loss_ig = self.generation(z[:n], c[:n], empty, t_z, noise_z, drop_caption)
        if self.task != 'gen':
            p, e = self.query(z, e, t_e, noise_e, drop_image), e[:, 0]
        return loss_ig, p, e

    def generation(self, z, c, empty, t_z, noise, drop_caption):
        """Eq. 4, with e masked, and captions dropped for classifier-free guidance."""
        c = ops.where(drop_caption.reshape(-1, 1, 1), empty.astype(c.dtype), c)
        abar = self.abar_z[t_z].reshape(-1, 1, 1, 1)
        z_t = q_sample(z, noise, abar)
        prediction = self.unet(z_t.astype(z.dtype), t_z, c)
        if self.image_target == 'noise':
            return image_generation_loss(prediction, noise)
        return image_generation_loss(prediction, z if self.image_target == 'data' else velocity(z, noise, abar))

    def query(self, z, e, t_e, noise, drop_image):
        """e0_hat (B, D), not normalised: Eq. 5, with c masked, and images dropped for classifier-free guidance."""
        z = ops.where(drop_image.reshape(-1, 1, 1, 1), self.zero_latent.astype(z.dtype), z)
        abar = self.abar_e[t_e].reshape(-1, 1, 1)
        e_t = q_sample(e, noise, abar, self.gamma)
        prediction = self.unet(z, t_e, None, e_t.astype(z.dtype)).astype(mstype.float32)  # (B, 1, D)
        if self.text_target == 'noise':
            # only the numerator of `data_from_noise`: its positive divisor does not change the cosine
            prediction = e_t - ops.sqrt(1 - abar) * prediction
        return prediction[:, 0]


def draw_diffdis(seed, step, config, latent_shape, world=World()):
    """Draw the random inputs of a step of `DiffDisObjective` for the global batch; each process takes its share.

    Returns:
        tuple of NumPy arrays: t_z (G,) int32, noise_z (G, *latent_shape), drop_caption (G,) bool, t_e (B,) int32,
        noise_e (B, 1, D), drop_image (B,) bool; G is the generation batch, B the batch, over all accumulation steps of
        this process.
    """
    train, model = config.train, config.model
    b = train.batch_size * train.accumulation_steps * world.size
    g = (train.generation_batch_size or train.batch_size) * train.accumulation_steps * world.size
    rng = step_generator(seed, step)
    drawn = (
        rng.integers(0, model.image_diffusion.num_train_timesteps, g, dtype=np.int32),
        rng.standard_normal((g, *latent_shape), dtype=np.float32),
        rng.random(g) < train.caption_dropout,
        rng.integers(0, model.text_diffusion.num_train_timesteps, b, dtype=np.int32),
        rng.standard_normal((b, 1, model.text_encoder.projection_dim), dtype=np.float32),
        rng.random(b) < train.image_dropout,
    )
    return tuple(world.share(x) for x in drawn)


class CLIPObjective(Objective):
    """CLIP's contrastive loss (Eq. 8 over image and text embeddings): trains T, or a CLIP baseline."""

    def __init__(self, image_encoder, text_encoder, config, world=World()):
        super().__init__(world)
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.logit_scale, self.aligned = LogitScale(config.model), True

    def terms(self, pixels, ids):
        """pixels (B, 3, S, S), CLIP-normalised; ids (B, L)."""
        return Tensor(0.0, mstype.float32), self.image_encoder(pixels), self.text_encoder(ids)[1][:, 0]


class AutoencoderObjective(Objective):
    """Reconstruction and a small KL term, with the posterior sampled."""

    def __init__(self, vae, config, world=World()):
        super().__init__(world)
        self.vae = vae
        self.kl_weight, self.chroma_weight = config.train.kl_weight, config.train.chroma_weight

    def terms(self, pixels, noise):
        """pixels (B, 3, H, W) in [-1, 1]; noise (B, latent_channels, H/f, W/f)."""
        mean, logvar = self.vae.moments(pixels)
        z = mean + ops.exp(0.5 * logvar) * noise
        reconstruction = self.vae.decoder(self.vae.post_quant_conv(z))
        return autoencoder_loss(reconstruction, pixels, mean, logvar, self.kl_weight, self.chroma_weight), None, None


def step_generator(seed, step):
    """The random generator of one training step."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))
