"""DiffDisPipeline: generate images from texts, and find the text that fits an image, with one network."""

from pathlib import Path

import mindspore.common.dtype as mstype
import numpy as np
from mindspore import Tensor, nn, ops
from tqdm import tqdm

from diffdis_ms import runtime
from diffdis_ms.data.benchmarks.class_names import read_templates
from diffdis_ms.data.tokenizer import Tokenizer
from diffdis_ms.data.transforms import resize_center_crop, to_image, to_pixels
from diffdis_ms.diffusion.process import data_from_noise, noise_from_target, starting_noise
from diffdis_ms.diffusion.samplers import SAMPLERS, guided, sample_text_query
from diffdis_ms.diffusion.schedule import alphas_cumprod, sampling_timesteps
from diffdis_ms.errors import ConfigError
from diffdis_ms.finite import check_finite
from diffdis_ms.models.autoencoder import AutoencoderKL
from diffdis_ms.models.clip import CLIPTextEncoder
from diffdis_ms.models.diffdis import DiffDisUNet
from diffdis_ms.models.encoders import Encoders, padded_batches
from diffdis_ms.models.init import initialize
from diffdis_ms.models.precision import store_precision
from diffdis_ms.models.prompt_ensemble import ensemble_labels
from diffdis_ms.pixels import to_unit_range
from diffdis_ms.storage.model_dir import load_weights, parameters_to_numpy, read_config, save_model


class GuidedNoise(nn.Cell):
    """Line 5 of Algorithm 2 as one graph: (1 + w) Phi_u(z_t, t, c) - w Phi_u(z_t, t, c of the empty caption)."""

    def __init__(self, unet):
        super().__init__(auto_prefix=False)
        self.unet = unet

    def construct(self, z_t, t, context, empty_context, guidance_weight):
        """z_t (B, 4, h, w), t (B,), context (B, L, hidden), empty_context (1, L, hidden), guidance_weight scalar."""
        both = ops.concat((context, ops.broadcast_to(empty_context, context.shape)))  # (2B, L, hidden)
        prediction = self.unet(ops.concat((z_t, z_t)), ops.concat((t, t)), both).astype(mstype.float32)
        conditional, unconditional = ops.chunk(prediction, 2)
        return guided(conditional, unconditional, guidance_weight)


class GuidedQuery(nn.Cell):
    """Line 5 of Algorithm 3 as one graph: (1 + w) Phi_theta(e_t, t, z) - w Phi_theta(e_t, t, z of the zero image)."""

    def __init__(self, unet):
        super().__init__(auto_prefix=False)
        self.unet = unet

    def construct(self, z, e_t, t, zero_latent, guidance_weight):
        """z (B, 4, h, w), e_t (B, 1, D), t (B,), zero_latent (1, 4, h, w), guidance_weight scalar."""
        both = ops.concat((z, ops.broadcast_to(zero_latent, z.shape)))  # (2B, 4, h, w)
        prediction = self.unet(both, ops.concat((t, t)), None, ops.concat((e_t, e_t))).astype(mstype.float32)
        conditional, unconditional = ops.chunk(prediction, 2)
        return guided(conditional, unconditional, guidance_weight)


class DiffDisPipeline:
    """A trained or freshly initialised DiffDis with everything it needs for inference.

    Args:
        precision: 'fp32', 'fp16' or 'bf16': of matrix products, convolutions and their weights, see
            `models.precision`. Noise, guidance and the samplers' sums are float32.

    Attributes:
        unet: DiffDisUNet. vae: AutoencoderKL. text_encoder: CLIPTextEncoder. tokenizer: Tokenizer. config: ModelConfig.
    """

    def __init__(self, config, unet, vae, text_encoder, tokenizer, batch_size=32, precision='fp32'):
        self.config, self.unet, self.vae, self.text_encoder, self.tokenizer = config, unet, vae, text_encoder, tokenizer
        self.batch_size, self.precision = batch_size, precision
        for network in (unet, vae, text_encoder):
            store_precision(network, precision).set_train(False)
        self._encoders = Encoders(vae, text_encoder, tokenizer, config, batch_size)
        self._guided_noise, self._guided_query = GuidedNoise(unet), GuidedQuery(unet)
        self._abar_z, self._abar_e = alphas_cumprod(config.image_diffusion), alphas_cumprod(config.text_diffusion)

    @classmethod
    def from_config(cls, config, seed=0, tokenizer=None, batch_size=32):
        """Make a pipeline with random weights, of any size.

        Args:
            config: ModelConfig.
            seed: seed of the weights.
            tokenizer: Tokenizer or its directory; without one, only methods that take no text work.
        """
        runtime.setup_once()
        networks = DiffDisUNet(config), AutoencoderKL(config.vae), CLIPTextEncoder(config.text_encoder)
        for network in networks:
            initialize(network, seed)
        if isinstance(tokenizer, (str, Path)):
            tokenizer = Tokenizer.load(tokenizer)
        return cls(config, *networks, tokenizer, batch_size)

    @classmethod
    def from_pretrained(cls, directory, batch_size=32, precision='fp32'):
        """Read a model directory.

        Args:
            directory: the README describes its files.
            batch_size: samples per call of a graph. It changes memory use, and results only by rounding.
            precision: see the class.

        Raises:
            ConfigError: `directory` is no model directory, or a file in it is missing, damaged or does not fit the
                config.
        """
        runtime.setup_once()
        config, directory = read_config(directory), Path(directory)
        networks = {
            'unet': DiffDisUNet(config),
            'vae': AutoencoderKL(config.vae),
            'text_encoder': CLIPTextEncoder(config.text_encoder),
        }
        for stem, network in networks.items():
            load_weights(network, directory / f'{stem}.safetensors')
        tokenizer = Tokenizer.load(directory / 'tokenizer')
        if tokenizer.vocab_size != config.text_encoder.vocab_size:
            raise ConfigError(
                f'{directory}: the tokenizer has {tokenizer.vocab_size} tokens, the text encoder '
                f'{config.text_encoder.vocab_size}; the directory mixes files of two models'
            )
        return cls(config, **networks, tokenizer=tokenizer, batch_size=batch_size, precision=precision)

    def save_pretrained(self, directory, extra=None):
        """Write a model directory, completely or not at all. `extra` goes into manifest.json.

        Raises:
            ConfigError: the weights are rounded to 16 bits.
        """
        if self.precision != 'fp32':
            raise ConfigError(f'the weights are rounded to {self.precision}: open the model in fp32 to save it')
        networks = {stem: parameters_to_numpy(getattr(self, stem)) for stem in ('unet', 'vae', 'text_encoder')}
        save_model(directory, self.config, networks, self.tokenizer, extra)

    def generate(self, prompts, steps=50, guidance_weight=3.0, sampler='pndm', seed=0, latents=None, progress=False):
        """Text-conditional image generation (Algorithm 2).

        Args:
            prompts: list of N strings.
            steps: 1..1000.
            guidance_weight: w; diffusers' guidance_scale is 1 + w.
            sampler: 'pndm', 'ddim' or 'dpm++'.
            seed: the initial noise of image i depends only on (seed, i), not on the batch size.
            latents: initial z_T (N, 4, H/8, W/8) instead of noise from `seed`, array or Tensor.
            progress: show a progress bar.

        Returns:
            list of N PIL images.

        Raises:
            ConfigError: unknown sampler, steps out of range, latents of another shape.
        """
        prompts = _texts(prompts)
        if sampler not in SAMPLERS:
            raise ConfigError(f'sampler: {sampler!r} is none of {", ".join(SAMPLERS)}')
        timesteps = sampling_timesteps(steps, len(self._abar_z))
        latents = self._noise(latents, len(prompts), self.latent_shape, seed, 'latents')
        context, empty = self._encoders.encode_texts(prompts)[0], Tensor(self._encoders.encode_texts([''])[0])
        images = []
        bar = tqdm(
            total=-(-len(prompts) // self.batch_size) * (steps + (sampler == 'pndm' and steps > 1)),
            desc='drawing',
            disable=None if progress else True,
        )
        for rows, kept in padded_batches(len(prompts), min(len(prompts), self.batch_size)):
            c = Tensor(context[rows])

            def predict_noise(z, t, c=c, b=len(rows)):
                prediction = self._guided_noise(z, _timestep(t, b), c, empty, Tensor(guidance_weight, z.dtype))
                bar.update()
                return noise_from_target(z, prediction, float(self._abar_z[t]), self.config.image_diffusion.target)

            z = SAMPLERS[sampler](predict_noise, Tensor(latents[rows]), timesteps, self._abar_z)
            images += [to_image(x) for x in self.decode_latents(z)[:kept]]
        bar.close()
        return images

    def embed_images(self, images, steps=8, guidance_weight=3.0, seed=0, noise=None, progress=False):
        """The text query generated from each image (Algorithm 3).

        Args:
            images: list of N PIL images, or pixels (N, 3, H, W), uint8 or float in [-1, 1].
            steps, guidance_weight: sampling steps and w of the text diffusion.
            seed: the initial noise of image i depends only on (seed, i).
            noise: initial e_T (N, 1, D) or (N, D) instead of noise from `seed`.

        Returns:
            e0 (N, D) float32, L2-normalised.
        """
        return self.embed_latents(self.encode_images(images), steps, guidance_weight, seed, noise, progress)

    def embed_latents(self, z, steps=8, guidance_weight=3.0, seed=0, noise=None, progress=False):
        """Do the same as `embed_images` for latents z (N, 4, H/8, W/8)."""
        timesteps = sampling_timesteps(steps, len(self._abar_e), last=len(self._abar_e) - 1)
        config, size = self.config.text_diffusion, self.config.text_encoder.projection_dim
        noise = self._noise(noise, len(z), (1, size), seed, 'noise')
        zero_latent, embeddings = Tensor(self._encoders.zero_latent()), []
        bar = tqdm(
            total=-(-len(z) // self.batch_size) * steps,
            desc='embedding images',
            disable=None if progress else True,
            leave=False,
        )
        for rows, kept in padded_batches(len(z), min(len(z), self.batch_size)):
            latents = Tensor(np.asarray(z)[rows])

            def predict_data(e_t, t, latents=latents, b=len(rows)):
                prediction = self._guided_query(
                    latents, e_t, _timestep(t, b), zero_latent, Tensor(guidance_weight, e_t.dtype)
                )
                bar.update()
                if config.target == 'noise':
                    prediction = data_from_noise(e_t, prediction, float(self._abar_e[t]), config.gamma)
                return _normalized(prediction)

            e0 = sample_text_query(predict_data, Tensor(noise[rows]), timesteps, self._abar_e, config.gamma)
            embeddings.append(e0.asnumpy()[:kept, 0])
        bar.close()
        return np.concatenate(embeddings)

    def embed_texts(self, texts):
        """e = T(y): list of N strings -> (N, D) float32, L2-normalised."""
        return self._encoders.embed_texts(_texts(texts))[:, 0]

    def embed_labels(self, labels, templates=None):
        """Prompt ensembling: average each label's embeddings over all templates, L2-normalise; (len(labels), D)."""
        templates = read_templates(templates) if isinstance(templates, str) else templates or ['{}']
        return ensemble_labels(self.embed_texts, _texts(labels), templates, self.batch_size)

    def classify(self, images, labels, templates=None, steps=8, guidance_weight=3.0, seed=0, names=None):
        """Zero-shot classification: softmax of the scaled cosines between generated e0 and label embeddings.

        Args:
            images: as for `embed_images`. labels: list of names.
            templates: list of strings with one {}, a name of `class_names.TEMPLATES`, or None for the bare name.
            names: names of the N images, for messages.

        Returns:
            (N, len(labels)) float32 probabilities.

        Raises:
            ConfigError: there is no image or no label, or an embedding is not finite.
        """
        e0 = check_finite(self.embed_images(images, steps, guidance_weight, seed), 'images', names)
        logits = self.config.logit_scale * e0 @ self.embed_labels(labels, templates).T
        exp = np.exp(logits - logits.max(1, keepdims=True))
        return (exp / exp.sum(1, keepdims=True)).astype(np.float32)

    def encode_context(self, texts):
        """c = T(y): list of N strings -> (N, L, hidden) float32."""
        return self._encoders.encode_texts(_texts(texts))[0]

    def encode_images(self, images):
        """z = V(x): images as for `embed_images` -> (N, 4, H/8, W/8) float32, scaled latent means."""
        return self._encoders.encode_images(self._pixels(images))

    def decode_latents(self, z):
        """x = D(z): (N, 4, H/8, W/8), array or Tensor -> (N, 3, H, W) float32 in [-1, 1]."""
        return self._encoders.decode_latents(z.asnumpy() if isinstance(z, Tensor) else np.asarray(z))

    def _pixels(self, images):
        if isinstance(images, Tensor):
            images = images.asnumpy()
        if isinstance(images, np.ndarray):
            if images.ndim != 4 or images.shape[1] != 3:
                raise ConfigError(f'images: shape {images.shape}, expected (N, 3, H, W)')
            return to_unit_range(images)
        if not images:
            raise ConfigError('images: the list is empty')
        return np.stack(
            [to_pixels(resize_center_crop(image.convert('RGB'), self.config.image_size)) for image in images]
        )

    @property
    def latent_shape(self):
        """Shape of one z: (4, H/8, W/8)."""
        return self.config.latent_shape

    @staticmethod
    def _noise(given, n, shape, seed, name):
        """Check the given noise, or draw noise whose row i depends only on (seed, i)."""
        if given is None:
            return starting_noise(range(n), seed, shape)
        given = (given.asnumpy() if isinstance(given, Tensor) else np.asarray(given)).astype(np.float32)
        if given.size != n * int(np.prod(shape)) or len(given) != n:
            raise ConfigError(f'{name}: shape {given.shape}, expected {(n, *shape)}')
        return given.reshape(n, *shape)


def _texts(texts):
    if isinstance(texts, str):
        return [texts]
    if not len(texts):
        raise ConfigError('the list of texts is empty')
    return list(texts)


def _timestep(t, b):
    return Tensor(np.full(b, t, np.int32))


def _normalized(e):
    return e / ops.sqrt(ops.sum(e * e, -1, keepdim=True))
