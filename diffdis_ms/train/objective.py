"""The loss cells, one short class per objective, and the random draws they are fed.

A loss cell is deterministic: timesteps, noise and drop masks come in as inputs. `draw_*` is the one place that draws
them, from (seed, step) alone, so that a resumed run and an uninterrupted one see the same numbers.
Every cell returns (loss, loss_ig, loss_ita); parts an objective does not have are zero.
"""
import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
import mindspore.common.dtype as mstype

from diffdis_ms.diffusion.losses import alignment_loss, autoencoder_loss, image_generation_loss, total_loss
from diffdis_ms.diffusion.process import q_sample
from diffdis_ms.diffusion.schedule import alphas_cumprod


class LogitScale(nn.Cell):
    """CLIP's temperature: exp of a learnable logarithm, which the training step keeps below `max_logit_scale`."""

    def __init__(self, config):
        super().__init__(auto_prefix=False)
        self.weight = Parameter(Tensor(math.log(config.logit_scale), mstype.float32), name='logit_scale',
                                requires_grad=config.learnable_logit_scale)
        self.limit = math.log(config.max_logit_scale)

    def construct(self):
        return ops.exp(self.weight)


class DiffDisObjective(nn.Cell):
    """L_IG + lambda L_ITA (Algorithm 1, Eq. 9).

    Args:
        unet: DiffDisUNet.
        config: Config.
        empty_context: c of the empty caption (1, L, hidden), float32.
        zero_latent: V(0), the latent of the zero image (1, 4, H, W), float32.
        text_encoder: CLIPTextEncoder that trains along, or None where c and e come in computed.
    """

    def __init__(self, unet, config, empty_context, zero_latent, text_encoder=None):
        super().__init__(auto_prefix=False)      # parameters keep the names of their own network
        model, train = config.model, config.train
        self.unet, self.text_encoder = unet, text_encoder
        self.logit_scale = LogitScale(model)
        self.empty_context, self.zero_latent = Tensor(empty_context), Tensor(zero_latent)
        self.abar_z = Tensor(alphas_cumprod(model.image_diffusion).astype(np.float32))
        self.abar_e = Tensor(alphas_cumprod(model.text_diffusion).astype(np.float32))
        self.gamma = model.text_diffusion.gamma
        self.image_target, self.text_target = model.image_diffusion.target, model.text_diffusion.target
        self.task, self.lambda_ita = train.task, train.lambda_ita
        self.gen_batch = train.generation_batch_size or train.batch_size

    def construct(self, z, c, e, ids, t_z, noise_z, drop_caption, t_e, noise_e, drop_image):
        """z (B, 4, H, W); c (B, L, hidden), e (B, 1, D), or None where ids (B, L) are given; then `draw_diffdis`."""
        if self.text_encoder is not None:
            c, e = self.text_encoder(ids)
        loss_ig, loss_ita = Tensor(0.0, mstype.float32), Tensor(0.0, mstype.float32)
        if self.task != 'dis':
            n = self.gen_batch
            loss_ig = self.generation(z[:n], c[:n], t_z, noise_z, drop_caption)
        if self.task != 'gen':
            loss_ita = self.alignment(z, e, t_e, noise_e, drop_image)
        return total_loss(loss_ig, loss_ita, self.lambda_ita), loss_ig, loss_ita

    def generation(self, z, c, t_z, noise, drop_caption):
        """Eq. 4, with e masked and captions dropped for classifier-free guidance."""
        c = ops.where(drop_caption.reshape(-1, 1, 1), self.empty_context.astype(c.dtype), c)
        z_t = q_sample(z, noise, self.abar_z[t_z].reshape(-1, 1, 1, 1))
        prediction = self.unet(z_t.astype(z.dtype), t_z, c)
        return image_generation_loss(prediction, noise if self.image_target == 'noise' else z)

    def alignment(self, z, e, t_e, noise, drop_image):
        """Eqs. 5, 7, 8, with c masked and images dropped for classifier-free guidance."""
        z = ops.where(drop_image.reshape(-1, 1, 1, 1), self.zero_latent.astype(z.dtype), z)
        abar = self.abar_e[t_e].reshape(-1, 1, 1)
        e_t = q_sample(e, noise, abar, self.gamma)
        prediction = self.unet(z, t_e, None, e_t.astype(z.dtype)).astype(mstype.float32)     # (B, 1, D)
        if self.text_target == 'noise':
            # e0_hat = (e_t - sqrt(1 - abar) eps_hat) / (gamma sqrt(abar)); the positive divisor falls away in the cosine
            prediction = e_t - ops.sqrt(1 - abar) * prediction
        return alignment_loss(prediction[:, 0], e[:, 0], self.logit_scale())


def draw_diffdis(seed, step, config, latent_shape):
    """What one step of `DiffDisObjective` draws.

    Returns:
        tuple of NumPy arrays: t_z (G,) int32, noise_z (G, *latent_shape), drop_caption (G,) bool, t_e (B,) int32,
        noise_e (B, 1, D), drop_image (B,) bool; G is the generation batch, B the batch.
    """
    train, model = config.train, config.model
    b, g = train.batch_size, train.generation_batch_size or train.batch_size
    rng = step_generator(seed, step)
    return (rng.integers(0, model.image_diffusion.num_train_timesteps, g, dtype=np.int32),
            rng.standard_normal((g, *latent_shape), dtype=np.float32), rng.random(g) < train.caption_dropout,
            rng.integers(0, model.text_diffusion.num_train_timesteps, b, dtype=np.int32),
            rng.standard_normal((b, 1, model.text_encoder.projection_dim), dtype=np.float32), rng.random(b) < train.image_dropout)


class CLIPObjective(nn.Cell):
    """CLIP's contrastive loss (Eq. 8 over image and text embeddings): trains T, or a CLIP baseline."""

    def __init__(self, image_encoder, text_encoder, config):
        super().__init__(auto_prefix=False)      # parameters keep the names of their own network
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.logit_scale = LogitScale(config.model)

    def construct(self, pixels, ids):
        """pixels (B, 3, S, S), CLIP-normalised; ids (B, L)."""
        loss = alignment_loss(self.image_encoder(pixels), self.text_encoder(ids)[1][:, 0], self.logit_scale())
        return loss, ops.zeros_like(loss), loss


class AutoencoderObjective(nn.Cell):
    """Reconstruction and a small KL term, with the posterior sampled."""

    def __init__(self, vae, config):
        super().__init__(auto_prefix=False)      # parameters keep the names of their own network
        self.vae = vae
        self.kl_weight, self.chroma_weight = config.train.kl_weight, config.train.chroma_weight

    def construct(self, pixels, noise):
        """pixels (B, 3, H, W) in [-1, 1]; noise (B, latent_channels, H/f, W/f)."""
        mean, logvar = self.vae.moments(pixels)
        z = mean + ops.exp(0.5 * logvar) * noise
        reconstruction = self.vae.decoder(self.vae.post_quant_conv(z))
        loss = autoencoder_loss(reconstruction, pixels, mean, logvar, self.kl_weight, self.chroma_weight)
        return loss, ops.zeros_like(loss), ops.zeros_like(loss)


def step_generator(seed, step):
    """The random generator of one training step."""
    return np.random.Generator(np.random.Philox(key=[seed, step]))
