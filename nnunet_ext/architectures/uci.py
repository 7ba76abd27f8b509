"""The UCI network (Guan et al., Unpaired Cross-Modal Interaction Learning, MICCAI 2023, Fig. 1).

A CT volume and a chest X-ray go through one encoder: a convolutional stem, then four Transformer stages. In the last
stage each modality condenses its features into prototypes (KC) and attends to the prototypes of the other (KI).
A decoder segments the CT, a linear layer on the class token classifies the X-ray.

The paper's "three-stage encoder, then KC and KI" is read as the authors' code has it: stages 1 to 3, and a fourth
stage whose blocks contain KC and KI.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from nnunet_ext.architectures.prototypes import PrototypeBank
from nnunet_ext.architectures.uci_decoder import UCIDecoder
from nnunet_ext.architectures.uci_encoder import UCIEncoder
from nnunet_ext.architectures.uci_topology import Topology

ABLATIONS = ("none", "ct_only", "separate_encoders", "no_kc", "no_kc_no_ki", "no_warmup")
WITHOUT_KNOWLEDGE = ("ct_only", "no_kc_no_ki")


class UCINet(nn.Module):
    """Segments CT volumes and classifies chest X-rays with one network.

    Arguments are those of `UCISettings`, and:

    input_channels, num_classes: channels of the CT and of its segmentation (background included).
    patch_size: (D, H, W) of every CT input, in voxels; position embeddings and spatial reductions are built for it.
    topology: strides and kernels of the CT branch, `Topology.paper()` or `Topology.from_plan(...)`.
    num_xray_classes: outputs of the X-ray head; ``ablation="ct_only"`` has none, whatever this is.

    Ablations (Fig. 2): "ct_only" has no X-ray branch, no KC and no KI; "separate_encoders" has Transformer blocks (KI
    included) of its own for each modality; "no_kc" lets each modality attend to K tokens of the other's latest batch;
    "no_kc_no_ki" shares the encoder and nothing else; "no_warmup" takes the prototypes as they are.

    Raises:
        ValueError: an argument that cannot be used; the message names it.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        num_classes: int,
        patch_size: Sequence[int],
        topology: Topology,
        xray_patch_size: Sequence[int] = (224, 224),
        num_xray_classes: int | None,
        xray_channels: int = 3,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        blocks_per_stage: Sequence[int] = (1, 2, 4, 2),
        heads_per_stage: Sequence[int] = (1, 2, 4, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: float = 4.0,
        position_embedding: str = "full",
        full_resolution_conv: bool = False,
        checkpoint_activations: bool = False,
        num_prototypes: int = 256,
        prototype_momentum: float = 0.99,
        shared_bank: bool = False,
        prototype_init: str = "random",
        kc_include_cls: bool = False,
        sigma_ratio: int = 1,
        reseed_after: int = 0,
        project_prototypes: bool = False,
        ablation: str = "none",
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation={ablation!r} is not one of {', '.join(ABLATIONS)}")
        if ablation == "ct_only":
            num_xray_classes = None
        elif num_xray_classes is None:
            raise ValueError("num_xray_classes=None: give the number of X-ray classes, or ablation='ct_only'")
        topologies, patch_sizes = {"ct": topology}, {"ct": patch_size}
        if ablation != "ct_only":
            topologies["xray"], patch_sizes["xray"] = Topology.xray(xray_patch_size), xray_patch_size
        self.topology, self.xray_channels = topology, xray_channels
        self.sizes = {modality: topologies[modality].sizes(size) for modality, size in patch_sizes.items()}

        common: dict[str, Any] = {
            "features_per_stage": features_per_stage,
            "heads_per_stage": heads_per_stage,
            "mlp_ratio": mlp_ratio,
            "position_embedding": position_embedding,
            "checkpoint_activations": checkpoint_activations,
        }
        knowledge = {
            "warm_up": ablation != "no_warmup",
            "project_prototypes": project_prototypes,
            "include_class_token": kc_include_cls,
        }
        self.encoder = UCIEncoder(
            input_channels={"ct": input_channels, "xray": xray_channels},
            topologies=topologies,
            sizes=self.sizes,
            blocks_per_stage=blocks_per_stage,
            sr_ratios=(*sr_ratios[:-1], sr_ratios[-1] * sigma_ratio),
            separate=ablation == "separate_encoders",
            knowledge=None if ablation in WITHOUT_KNOWLEDGE else knowledge,
            **common,
        )
        self.decoder = UCIDecoder(
            num_classes=num_classes,
            topology=topology,
            sizes=self.sizes["ct"],
            sr_ratios=sr_ratios,
            full_resolution_conv=full_resolution_conv,
            deep_supervision=deep_supervision,
            **common,
        )
        self.classifier = None if num_xray_classes is None else nn.Linear(features_per_stage[-1], num_xray_classes)
        bank = partial(
            PrototypeBank,
            num_prototypes,
            features_per_stage[-1],
            momentum=prototype_momentum,
            init=prototype_init,
            reseed_after=reseed_after,
            condense=ablation != "no_kc",
        )
        num_banks = 0 if ablation in WITHOUT_KNOWLEDGE else 1 if shared_bank else blocks_per_stage[-1]
        self.banks: Any = nn.ModuleList(nn.ModuleDict({m: bank() for m in self.sizes}) for _ in range(num_banks))
        self.apply(initialise)

    def forward(self, ct: Tensor | None = None, *, xray: Tensor | None = None) -> Any:
        """Segment `ct`, classify `xray`, or both: X-rays first, so that the CT meets their fresh prototypes.

        ct (B, input_channels, D, H, W) -> list of five logits (B, num_classes, d, h, w), finest first, with deep
        supervision; the finest alone without. xray (B, 1 or xray_channels, H, W) -> raw logits (B, num_xray_classes).
        Both -> the pair (segmentation, classification).

        In training with gradients enabled, each also updates the prototypes of its modality.

        Raises:
            ValueError: no input, one of another size than the network is built for, or X-rays to a CT-only network.
        """
        if ct is None and xray is None:
            raise ValueError("UCINet needs ct, xray or both")
        classification = None if xray is None else self.classify(xray)
        if ct is None:
            return classification
        segmentation = self.decoder(self.encoder(ct, "ct", self.banks))
        return segmentation if xray is None else (segmentation, classification)

    def classify(self, xray: Tensor) -> Tensor:
        """The X-ray path of `forward`."""
        if self.classifier is None:
            raise ValueError("X-rays were given to a network without an X-ray branch (ablation='ct_only')")
        if xray.shape[1] == 1:
            xray = xray.expand(-1, self.xray_channels, -1, -1)
        class_token = self.encoder(xray, "xray", self.banks)[-1][:, 0]  # B, C
        return self.classifier(class_token)  # type: ignore[no-any-return]

    @property
    def deep_supervision_scales(self) -> list[list[float]]:
        """Per output, finest first, and per axis: its size over that of the input."""
        patch_size, *_ = sizes = self.sizes["ct"]
        return [[n / full for n, full in zip(size, patch_size, strict=True)] for size in sizes[:-1]]

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Number of values in the feature maps of one CT forward, by which nnU-Net estimates GPU memory.

        Counts the outputs of all convolutions and linear layers for a CT of `input_size` (D, H, W), as
        dynamic_network_architectures does for its networks.
        """
        sizes = self.topology.sizes(input_size)
        return self.encoder.compute_feature_map_size(sizes) + self.decoder.compute_feature_map_size(sizes)

    def tokens_per_prototype(self) -> dict[tuple[str, int], Tensor]:
        """(modality, last-stage block) -> tokens (K,) that each prototype received since `prototype_usage` was last
        called. Empty without KC."""
        return {
            (modality, i): bank.usage.clone()
            for i, banks in enumerate(self.banks)
            for modality, bank in banks.items()
            if bank.condense
        }

    def prototype_usage(self) -> dict[str, Tensor]:
        """Use of each bank since the last call, 0-dimensional tensors: no synchronisation until one is read.

        ``ct_0_used`` is how many prototypes of the CT bank of last-stage block 0 received a token, ``ct_0_perplexity``
        exp(entropy) of the tokens' distribution over them (1 to num_prototypes). Empty without KC.
        """
        usage = {}
        for i, banks in enumerate(self.banks):
            for modality, bank in banks.items():
                if not bank.condense:
                    continue
                usage[f"{modality}_{i}_used"], usage[f"{modality}_{i}_perplexity"] = bank.read_usage()
        return usage


def initialise(module: nn.Module) -> None:
    """Linear: truncated normal (0.02), bias 0; convolution: Kaiming normal, fan-out; the rest as PyTorch has it."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
