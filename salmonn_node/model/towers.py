"""Vision tower and audio tower: encode camera patches and log-mel windows to tokens of the language model's width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from salmonn_node.model.config import AudioConfig, SalmonnConfig
from salmonn_node.model.qformer import QFormer, windows_of


def vision_config(config: SalmonnConfig) -> Qwen3VLVisionConfig:
    """Return transformers' configuration of the vision model."""
    return Qwen3VLVisionConfig(**config.vision)


def whisper_config(audio: AudioConfig) -> WhisperConfig:
    """Return transformers' configuration of the Whisper encoder."""
    return WhisperConfig(
        d_model=audio.d_model,
        encoder_layers=audio.layers,
        encoder_attention_heads=audio.heads,
        encoder_ffn_dim=audio.ffn,
        num_mel_bins=audio.mel_bins,
        max_source_positions=audio.window_s * 50,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
    )


class PatchEmbed(nn.Module):
    """Rows of a patch's pixels to rows of the vision model's width.

    The kernel of the convolution covers the patch and never moves, so it is one matrix product. On a GPU, cuDNN has no
    fast way for such a convolution in bf16: seconds a call and gigabytes were seen (huggingface/transformers #45750,
    pytorch/pytorch #174051). On the CPU the convolution stays, so that its last bits do.

    Args:
        convolution: weight (width, channels, 2, patch, patch) and bias.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.proj = convolution

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, channels * 2 * patch * patch) to (n, width)."""
        weight = self.proj.weight
        rows = pixels.to(weight.dtype)
        if rows.is_cpu:
            return self.proj(rows.view(-1, *weight.shape[1:])).view(-1, len(weight))
        return functional.linear(rows, weight.flatten(1), self.proj.bias)


class VisionTower(nn.Module):
    """Qwen3-VL's vision model over temporal patches of one camera grid. Patches do not attend to each other."""

    def __init__(self, config: SalmonnConfig) -> None:
        super().__init__()
        self.visual = Qwen3VLVisionModel._from_config(vision_config(config), attn_implementation="sdpa")
        self.visual.patch_embed = PatchEmbed(self.visual.patch_embed.proj)

    @property
    def merge(self) -> int:
        """Patches per token along a side."""
        return int(self.visual.spatial_merge_size)

    def forward(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Encode temporal patches.

        Args:
            pixels: (B, h * w, channels * 2 * patch * patch), rows in the merge order of `frames.patchify`.
            grid: (h, w) in patches, before merging.

        Returns:
            Tokens (B, h * w / merge**2, D), and deepstack rows (K, B, h * w / merge**2, D).
        """
        batch = pixels.shape[0]
        thw = torch.tensor([[1, *grid]] * batch, device=pixels.device)
        out = self.visual(pixels.flatten(0, 1), thw)
        tokens = out.pooler_output.unflatten(0, (batch, -1))
        if not out.deepstack_features:
            return tokens, tokens.new_zeros((0, *tokens.shape))
        return tokens, torch.stack([rows.unflatten(0, (batch, -1)) for rows in out.deepstack_features])


class AudioTower(nn.Module):
    """Whisper encoder, Q-Former with one learned query per 0.5 s, projection. Names as in the release."""

    def __init__(self, audio: AudioConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = audio
        self.encoder = WhisperEncoder._from_config(whisper_config(audio), attn_implementation="sdpa")
        self.q_tokens = nn.Parameter(torch.empty(1, 1, audio.qformer_hidden).normal_(std=0.02))
        self.qformer = QFormer(
            audio.qformer_hidden, audio.qformer_layers, audio.qformer_heads, audio.qformer_ffn, audio.d_model
        )
        self.audio_proj = nn.Linear(audio.qformer_hidden, hidden_size)

    def forward(self, mel: Tensor) -> Tensor:
        """Encode complete windows: log-mel (B, mel_bins, 100 * window_s) -> tokens (B, window_tokens, D)."""
        frames = self.encoder(mel).last_hidden_state
        windows = windows_of(frames, self.config.pool_frames)
        queries = self.q_tokens.expand(windows.shape[0], -1, -1)
        tokens = self.audio_proj(self.qformer(queries, windows))
        return tokens.reshape(mel.shape[0], -1, tokens.shape[-1])
