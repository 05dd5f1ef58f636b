"""Open a model directory, DiffDis or a CLIP, for the evaluation of an image set."""

from pathlib import Path

from diffdis_ms import DiffDisPipeline
from diffdis_ms.evaluate.clip_model import ClipModel, open_clip_directory
from diffdis_ms.evaluate.embedding import ClipEmbeddings, GeneratedQueries
from diffdis_ms.storage.model_dir import file_hashes


def open_model(directory, batch_size, precision='fp32'):
    """Open a model directory; returns (model, its image encoder for `embed_set`, entries for the result's protocol).

    A directory with a UNet is a DiffDis, otherwise a CLIP, which embeds images directly, without sampling.

    Raises:
        ConfigError: the directory is neither, or its files do not fit together.
    """
    directory = Path(directory)
    if (directory / 'image_encoder.safetensors').is_file() and not (directory / 'unet.safetensors').is_file():
        model = ClipModel(open_clip_directory(directory), batch_size, precision)
        encoder, image = ClipEmbeddings(model), model.config.image_encoder
        resize = f'{image.interpolation}, {"centre crop" if image.resize_mode == "shortest" else "both sides squashed"}'
        about = {
            'model': 'CLIP',
            'resize': f'{resize}, {encoder.image_size}',
            'mean': list(image.image_mean),
            'std': list(image.image_std),
        }
        weights = 'image_encoder.safetensors'
    else:
        model = DiffDisPipeline.from_pretrained(directory, batch_size, precision)
        encoder = GeneratedQueries(model)
        about = {
            'model': 'DiffDis',
            'gamma': model.config.text_diffusion.gamma,
            'resize': f'bicubic, centre crop, {encoder.image_size}',
        }
        weights = 'unet.safetensors'
    hashes = file_hashes(directory)
    return model, encoder, {**about, 'weights_sha256': hashes[weights], 'files_sha256': hashes}
