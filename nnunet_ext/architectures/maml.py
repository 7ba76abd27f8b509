"""The MAML network (Zhang et al., Modality-aware mutual learning, MICCAI 2021, Fig. 1).

One U-Net per modality, which never sees the others; attention over their last features; one joint head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnunet_ext.architectures.cpu_layout import channels_last, use_channelwise_norms
from nnunet_ext.architectures.modality_attention import ModalityAttention


class MAMLNet(nn.Module):
    """Streams, `attention` and the joint `head`.

    Args:
        streams: one PlainConvUNet or ResidualEncoderUNet per modality, of one plan, initialised; 2D or 3D.
        modalities: the input channels of each stream.
        fusion: ``attention``, or ``ensemble``: no attention and no joint head but the mean of the streams'
            probabilities, told as logits.
        region_targets: probabilities are sigmoids, not a softmax.
        second_kernel, recompute: see `ModalityAttention`.
        stream_heads: a modality that is there alone is segmented by its own stream's head; False, for streams whose
            heads were not trained: by attention and joint head over it alone.
        deep_supervision: what `forward` returns.

    Attributes:
        modalities: channel indices per stream.
        present: the streams that run, positions in `modalities`; all unless `select_modalities` says otherwise.

    Raises:
        ValueError: streams of another kind, or as many as there are not modalities.
    """

    def __init__(
        self,
        streams: Sequence[nn.Module],
        modalities: Sequence[Sequence[int]],
        *,
        fusion: str = "attention",
        region_targets: bool = False,
        second_kernel: int = 3,
        recompute: bool = False,
        stream_heads: bool = True,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if len(streams) != len(modalities) or fusion not in ("attention", "ensemble"):
            raise ValueError(f"{len(streams)} streams for {len(modalities)} modalities, fusion={fusion!r}")
        _check_kind(streams)
        self.modalities = tuple(tuple(channels) for channels in modalities)
        self.fusion, self.region_targets, self.stream_heads = fusion, region_targets, stream_heads
        self.deep_supervision = deep_supervision
        self.streams = nn.ModuleList(streams)
        first: Any = streams[0]
        self.attention: ModalityAttention | None = None
        self.head: nn.Module | None = None
        if fusion == "attention":
            convolution, channels = first.encoder.conv_op, first.encoder.output_channels[0]
            self.attention = ModalityAttention(
                convolution, len(streams), channels, second_kernel=second_kernel, recompute=recompute
            )
            self.head = convolution(channels, first.decoder.num_classes, 1)
        self.present = tuple(range(len(streams)))
        use_channelwise_norms(self)

    def select_modalities(self, indices: Sequence[int] | None) -> None:
        """From now on run the streams `indices` only; None: all. Belongs to the object, not to its weights.

        Raises:
            ValueError: no index, or one without a stream.
        """
        self.present = tuple(range(len(self.modalities))) if indices is None else self._checked(indices)

    def forward(self, x: Tensor, *, present: Sequence[int] | None = None, return_attention: bool = False) -> Any:
        """Segment `x`.

        Args:
            x: (B, channels, *spatial), always all channels; those of absent modalities are not read.
            present: the streams that run, instead of `self.present`.
            return_attention: also return how much each modality counts.

        Returns: logits (B, classes, *spatial), a tensor of its own; with deep supervision on a list: joint logits,
        then for each present stream its logits at every level, finest first. With `return_attention` the pair of that
        and (B, present modalities, *spatial): each gate A_i averaged over its channels, detached; 1 / n where n streams
        are averaged, 1 where one stands alone.
        """
        present = self.present if present is None else self._checked(present)
        attends = self.attends(present)
        num_heads = None if self.deep_supervision else int(not attends)
        features, levels = [], []
        for index in present:
            feature, logits = self._run_stream(index, x, num_heads)
            features.append(feature)
            levels.append(logits)

        if attends and self.attention is not None and self.head is not None:
            attended, gates = self.attention(features, present, return_gates=return_attention)
            joint = self.head(attended)
        else:
            joint = mean_prediction([logits[0] for logits in levels], self.region_targets)
            gates = [torch.full_like(joint[:, 0], 1 / len(present)) for _ in present]
        output = [joint, *chain.from_iterable(levels)] if self.deep_supervision else joint
        return (output, torch.stack(gates, 1)) if return_attention else output

    def attends(self, present: Sequence[int]) -> bool:
        """Whether these modalities are fused by attention, rather than segmented by their streams' own heads."""
        return self.attention is not None and (len(present) > 1 or not self.stream_heads)

    def _run_stream(self, index: int, x: Tensor, num_heads: int | None) -> tuple[Tensor, list[Tensor]]:
        """Features (B, C, *spatial) behind the last decoder stage of one stream, and the logits of its `num_heads`
        finest levels, finest first; None: of all."""
        stream: Any = self.streams[index]
        decoder = stream.decoder
        *skips, features = stream.encoder(channels_last(_channels(x, self.modalities[index])))
        first_head = 0 if num_heads is None else len(decoder.stages) - num_heads
        logits = []
        for level, skip in enumerate(reversed(skips)):
            features = decoder.stages[level](torch.cat([decoder.transpconvs[level](features), skip], 1))
            if level >= first_head:
                logits.append(decoder.seg_layers[level](features))
        return features, logits[::-1]

    def _checked(self, indices: Sequence[int]) -> tuple[int, ...]:
        chosen = tuple(sorted(set(indices)))
        if not chosen or chosen[0] < 0 or chosen[-1] >= len(self.modalities):
            raise ValueError(f"modalities {tuple(indices)}: choose at least one of 0 to {len(self.modalities) - 1}")
        return chosen

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Number of values in the outputs of the convolutions in one training forward of one image, by which nnU-Net
        estimates GPU memory: all streams; F_dual, two per gate (those of one gate, if gates are computed again), F_att
        and the joint logits.

        input_size: spatial size of the image, voxels.
        """
        streams: list[Any] = list(self.streams)
        size = sum(int(stream.compute_conv_feature_map_size(input_size)) for stream in streams)
        if self.attention is None:
            return size
        gates_at_once = 1 if self.attention.recompute else len(streams)
        maps = (2 + 2 * gates_at_once) * self.attention.channels + int(streams[0].decoder.num_classes)
        return size + maps * math.prod(input_size)


def mean_prediction(logits: Sequence[Tensor], region_targets: bool) -> Tensor:
    """Logits of the mean probability of several predictions.

    Args:
        logits: each (B, classes, *spatial).
        region_targets: sigmoid of each channel instead of a softmax over channels.

    Returns: a new tensor (B, classes, *spatial): z with ``sigmoid(z) = mean_i sigmoid(logits_i)``, or
    ``softmax(z) = mean_i softmax(logits_i)``, then log-probabilities. A single prediction is returned as it is.
    """
    if len(logits) == 1:
        return logits[0].clone()
    if region_targets:
        return _log_mean_exp([F.logsigmoid(z) for z in logits]) - _log_mean_exp([F.logsigmoid(-z) for z in logits])
    return _log_mean_exp([F.log_softmax(z, 1) for z in logits])


def _log_mean_exp(tensors: Sequence[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack(tuple(tensors)), 0) - math.log(len(tensors))


def _channels(x: Tensor, channels: Sequence[int]) -> Tensor:
    """(B, all channels, *spatial) -> (B, len(channels), *spatial)."""
    parts = [x[:, channel : channel + 1] for channel in channels]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _check_kind(streams: Sequence[nn.Module]) -> None:
    for unet in streams:
        encoder, decoder = getattr(unet, "encoder", None), getattr(unet, "decoder", None)
        if not isinstance(encoder, PlainConvEncoder | ResidualEncoder) or not isinstance(decoder, UNetDecoder):
            raise ValueError(
                f"{type(unet).__name__} is not a U-Net of nnU-Net's; the plan must name PlainConvUNet or"
                " ResidualEncoderUNet"
            )
