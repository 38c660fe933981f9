"""Parts of Stable Diffusion as modules of tensors alone, which is what graphs are made of."""

from __future__ import annotations

from typing import Any

import torch


class PlainUnet(torch.nn.Module):
    """The U-Net of a ``Look``'s plain inputs, and of the added ones where it takes them."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        pooled: torch.Tensor | None = None,
        time_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        output: torch.Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=context,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output


class PlainDecoder(torch.nn.Module):
    """Of a ``diffusers`` AutoencoderKL: latents in its own scale to pixels."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.before = _or_nothing(vae.post_quant_conv)
        self.decoder = vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.decoder(self.before(latents))
        return pixels


class PlainEncoder(torch.nn.Module):
    """Pixels to the moments in the autoencoder's own scale."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.after = _or_nothing(vae.quant_conv)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        moments: torch.Tensor = self.after(self.encoder(pixels))
        return moments


def _or_nothing(layer: torch.nn.Module | None) -> torch.nn.Module:
    return torch.nn.Identity() if layer is None else layer
