"""The RDCL network (Zhang et al., Relation-driven collaborative learning, IEEE JBHI 25(11), 2021, Fig. 2).

Two encoders of one shape, one decoder. The target encoder gives the skips; the general encoder only joins at the
bottleneck, where its features are concatenated to those of the target encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from nnunet_ext.architectures.cpu_layout import channels_last, use_channelwise_norms

ATTRIBUTES_READ_BY_THE_DECODER = ("strides", "output_channels")
FEWEST_COSTLY_CHANNELS = 8


class RelationFeatures(NamedTuple):
    """Bottleneck features (B, C, *spatial) that the relation losses compare."""

    general_non_target: Tensor | None
    """F_G(X^n); None without non-target images."""
    general_target: Tensor
    """F_G(X^c), labelled images first."""
    target: Tensor
    """F_T(X^c), in the same order."""


class RDCLNet(nn.Module):
    """Target encoder (`encoder`), `general_encoder` and `decoder` with the sizes of one of nnU-Net's U-Nets.

    Args:
        unet: a PlainConvUNet or ResidualEncoderUNet, 2D or 3D, as a plan describes it. Its parts become ours.
        joint_general: let gradients of segmentation and target relation reach the general encoder, which Algorithm 1
            of the paper forbids.
        recompute_general: in training, keep only the outputs of the costly convolutions of the general encoder and
            compute the rest again in the backward pass: less than half of its memory for little time.

    The features of the general encoder before the last stage are never kept as skips.

    Raises:
        ValueError: a network of another kind.
    """

    def __init__(self, unet: nn.Module, *, joint_general: bool = False, recompute_general: bool = False) -> None:
        super().__init__()
        parts: Any = unet
        encoder, decoder = getattr(parts, "encoder", None), getattr(parts, "decoder", None)
        if not isinstance(encoder, PlainConvEncoder | ResidualEncoder) or not isinstance(decoder, UNetDecoder):
            raise ValueError(
                f"{type(unet).__name__} is not a U-Net of nnU-Net's; the plan must name PlainConvUNet or"
                " ResidualEncoderUNet"
            )
        self.joint_general, self.recompute_general = joint_general, recompute_general
        self.encoder = encoder
        self.general_encoder = deepcopy(encoder)
        self.decoder = _with_twice_the_bottleneck(decoder)
        self.apply(parts.initialize)
        use_channelwise_norms(self)

    def forward(
        self,
        x: Tensor,
        *,
        non_target: Tensor | None = None,
        relations: bool = False,
        num_labeled: int | None = None,
    ) -> Any:
        """Segment `x`; in training also return what the relation losses need.

        Args:
            x: (B, channels, *spatial), target images.
            non_target: (B', channels, *spatial) with the spatial size of `x`; implies `relations`.
            relations: return the bottleneck features too.
            num_labeled: only so many first images of `x` go through the decoder; None: all.

        Returns: logits (num_labeled, classes, *spatial), or a list of them, finest first, with deep supervision on;
        with `relations` the pair of these and `RelationFeatures`.
        """
        x = channels_last(x)
        *skips, target = self.encoder(x)
        both = x if non_target is None else torch.cat([x, channels_last(non_target)])
        # Normalised per image, so one pass over both batches equals two passes.
        general = self._general_features(both)
        general_target, general_non_target = general[: len(x)], general[len(x) :]
        bottleneck = torch.cat([target, general_target if self.joint_general else general_target.detach()], 1)
        features = [*skips, bottleneck]
        if num_labeled is not None and num_labeled < len(x):  # even a slice of all is a copy in the backward pass
            features = [each[:num_labeled] for each in features]
        logits = self.decoder(features)
        if non_target is None and not relations:
            return logits
        return logits, RelationFeatures(None if non_target is None else general_non_target, general_target, target)

    def _general_features(self, x: Tensor) -> Tensor:
        """The last features of the general encoder, (B, C, *spatial)."""
        encoder: Any = self.general_encoder
        stem = getattr(encoder, "stem", None)
        stages = [*encoder.stages] if stem is None else [stem, *encoder.stages]
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in encoder.parameters())
        # A compiler decides by itself what to compute again.
        if self.recompute_general and self.training and learns and not torch.compiler.is_compiling():
            context = partial(create_selective_checkpoint_contexts, _keep_costly_convolutions)
            return checkpoint(_run, stages, x, use_reentrant=False, context_fn=context)
        return _run(stages, x)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Number of values in the feature maps of one training forward of one target and one non-target image, by
        which nnU-Net estimates GPU memory: target encoder, decoder, and the general encoder twice.

        input_size: spatial size of the images, voxels.
        """
        encoder = self.encoder.compute_conv_feature_map_size(input_size)
        return int(3 * encoder + self.decoder.compute_conv_feature_map_size(input_size))


def _run(stages: Sequence[nn.Module], x: Tensor) -> Tensor:
    """One stage after the other; what only the next one needs is gone after it."""
    for stage in stages:
        x = stage(x)
    return x


def _keep_costly_convolutions(context: Any, operator: Any, *args: Any, **_: Any) -> CheckpointPolicy:  # noqa: ARG001
    """Norms, nonlinearities and convolutions of few channels take little time to compute again."""
    costly = operator is torch.ops.aten.convolution.default and args[0].shape[1] >= FEWEST_COSTLY_CHANNELS
    return CheckpointPolicy.MUST_SAVE if costly else CheckpointPolicy.PREFER_RECOMPUTE


def _with_twice_the_bottleneck(decoder: UNetDecoder) -> UNetDecoder:
    """`decoder`, whose first transposed convolution takes twice the channels and which holds no encoder: that of
    nnU-Net names each of the encoder's parameters a second time."""
    up: Any = decoder.transpconvs[0]
    decoder.transpconvs[0] = type(up)(
        2 * up.in_channels, up.out_channels, up.kernel_size, up.stride, bias=up.bias is not None
    )
    read = {name: getattr(decoder.encoder, name) for name in ATTRIBUTES_READ_BY_THE_DECODER}
    del decoder.encoder
    decoder.encoder = SimpleNamespace(**read)
    return decoder
