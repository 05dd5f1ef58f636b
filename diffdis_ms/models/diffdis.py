"""DiffDis: one UNet, two diffusion models (Sec. 3.3).

predict_noise(z_t, t_z, c)   Phi_u      the whole UNet, without a text query
predict_query(z, e_t, t_e)   Phi_theta  encoder half and middle block with the query, then the alignment transformer
"""

import numpy as np
from mindspore import Tensor, ops

from diffdis_ms.models.alignment import AlignmentTransformer
from diffdis_ms.models.dual_stream import DualStreamTransformer2D, TextQueryEmbedding
from diffdis_ms.models.unet import Transformer2DModel, UNet2DConditionModel


def as_tensor(x):
    """Convert a NumPy array to a Tensor (float64 and int64 to 32 bits); a Tensor is returned unchanged."""
    if isinstance(x, Tensor):
        return x
    x = np.asarray(x)
    return Tensor(x.astype({'f': np.float32, 'i': np.int32}.get(x.dtype.kind, x.dtype)))


class DiffDisUNet(UNet2DConditionModel):
    """The UNet with the dual-stream blocks and the alignment transformer.

    Args:
        config: ModelConfig.
    """

    def __init__(self, config):
        super().__init__(config, DualStreamTransformer2D if config.dual_stream.fusion else Transformer2DModel)
        self.fusion = config.dual_stream.fusion
        self.condition_timestep = config.dual_stream.image_condition_timestep
        self.text_query = TextQueryEmbedding(config.text_encoder.projection_dim)
        self.alignment = AlignmentTransformer(config)

    def predict_noise(self, z_t, t_z, context):
        """Phi_u (Eq. 4), as one graph.

        Args:
            z_t: (B, 4, H, W). t_z: (B,) int, 0..999. context: c, (B, L, hidden). NumPy arrays or Tensors.

        Returns:
            Tensor (B, 4, H, W), the noise (or z, if data is the target).
        """
        return self(as_tensor(z_t), as_tensor(t_z), as_tensor(context))

    def predict_query(self, z, e_t, t_e):
        """Phi_theta (Eqs. 5, 7), as one graph.

        Args:
            z: (B, 4, H, W). e_t: (B, 1, D). t_e: (B,) int, 0..999. NumPy arrays or Tensors.

        Returns:
            Tensor (B, 1, D), not normalised: e0_hat, or the noise if that is the target.
        """
        return self(as_tensor(z), as_tensor(t_e), None, as_tensor(e_t))

    def construct(self, z, t, context=None, e_t=None):
        """Predict the query if there is a text query e_t (t = t_e), otherwise the noise (t = t_z)."""
        if e_t is None:
            return super().construct(z, t, context)
        return self._query(z, e_t, t)

    def _query(self, z, e_t, t_e):
        """Phi_theta: c is masked (a zero context), and t_z is the timestep that marks z as a condition."""
        temb = self.embed_timestep(ops.full((z.shape[0],), self.condition_timestep, dtype=t_e.dtype))
        query = self.text_query(e_t, t_e)
        hidden = ops.zeros_like(query)  # h_{e,0} = 0
        x = self.conv_in(z)
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                x = resnet(x, temb)
                if block.has_attention:
                    x, hidden = self._attend(block.attentions[i], x, hidden, query)
            for downsampler in block.downsamplers:
                x = downsampler(x)
        x = self.mid_block.resnets[0](x, temb)
        x, hidden = self._attend(self.mid_block.attentions[0], x, hidden, query)
        x = self.mid_block.resnets[1](x, temb)
        return self.alignment(x, hidden if self.fusion else query)

    def _attend(self, block, x, hidden, query):
        """Run an attention block on both streams, or only on the image if fusion is off."""
        if self.fusion:
            return block.fuse(x, hidden, query)
        return block(x, None), hidden
