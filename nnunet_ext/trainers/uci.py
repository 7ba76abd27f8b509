"""Unpaired Cross-modal Interaction learning (Guan et al., MICCAI 2023): chest X-rays help CT segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ext.architectures.uci import UCINet
from nnunet_ext.architectures.uci_topology import Topology
from nnunet_ext.architectures.unimiss import load_unimiss_plus
from nnunet_ext.data.xray_cache import linked_xray_caches
from nnunet_ext.data.xray_stream import XrayStream, pooled_mean_and_std
from nnunet_ext.losses.classification import classification_loss
from nnunet_ext.settings.uci import UCISettings
from nnunet_ext.trainers.base import ExtensionTrainer, Stream
from nnunet_ext.trainers.inspection import NetworkReport, inspect_network
from nnunet_ext.trainers.uci_pictures import draw_prototype_usage
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import Picture

PAPER_PATCH_SIZE = (32, 256, 256)
NETWORK_SETTINGS = (
    "xray_patch_size",
    "features_per_stage",
    "blocks_per_stage",
    "heads_per_stage",
    "sr_ratios",
    "mlp_ratio",
    "position_embedding",
    "full_resolution_conv",
    "checkpoint_activations",
    "num_prototypes",
    "prototype_momentum",
    "shared_bank",
    "prototype_init",
    "kc_include_cls",
    "sigma_ratio",
    "reseed_after",
    "project_prototypes",
    "ablation",
)


class UCITrainer(ExtensionTrainer[UCISettings]):
    """Each iteration: one batch of X-rays through the shared encoder to their image-level labels, then one batch of
    CT patches through encoder and decoder to their masks. Both modalities condense what they see into prototypes
    (KC) and attend to the other's (KI)."""

    settings_class = UCISettings
    fixed_settings = (*NETWORK_SETTINGS, "xray_classes", "xray_task")

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """X-ray term first, so that the CT sees fresh X-ray prototypes; the two are summed one to one by default."""
        if self.settings.uses_xrays:
            images, labels = next(self.streams["xray"])
            logits = self.network(xray=self.to_device(images))
            loss = classification_loss(logits, self.to_device(labels), str(self.settings.xray_task))
            del logits
            yield "xray", self.settings.xray_loss_weight * loss
            del loss
        output, target = self.network(self.to_device(batch["data"])), self.to_device(batch["target"])
        if len(output) != len(target):  # the host's deep supervision would drop the surplus in silence
            raise RuntimeError(f"{len(output)} outputs but {len(target)} targets of deep supervision")
        yield "ct", self.loss(output, target)

    @classmethod
    def resolve_settings(cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> UCISettings:
        """Complete the settings by what the linked X-rays are, so that prediction needs no X-ray data."""
        settings = UCISettings.from_plans(plans)
        require_3d(plans, configuration)
        if settings.pretrained_unimiss is not None and not Path(settings.pretrained_unimiss).is_file():
            raise UsageError(f"UCITrainer setting pretrained_unimiss={settings.pretrained_unimiss!r} is not a file")
        if not settings.uses_xrays:
            return settings
        caches = linked_xray_caches(dataset_json, plans["dataset_name"], max(settings.xray_patch_size))
        cache, (mean, std) = caches[0], pooled_mean_and_std(caches)
        planned, linked = settings.num_xray_classes, len(cache.classes)
        if planned is not None and planned != linked:
            raise UsageError(
                f"UCITrainer setting num_xray_classes={planned}, but the linked X-rays have {linked} classes"
                f" ({', '.join(cache.classes)}); drop the setting, or link the X-rays that it was made for"
            )
        return settings.replace(
            num_xray_classes=linked,
            xray_classes=tuple(cache.classes),
            xray_task=cache.task,
            xray_mean=mean,
            xray_std=std,
        )

    def build_streams(self, num_workers: int) -> dict[str, Stream]:
        """The X-ray stream; none for the CT-only ablation."""
        settings = self.settings
        if not settings.uses_xrays:
            return {}
        caches = linked_xray_caches(self.dataset_json, self.plans_manager.dataset_name, max(settings.xray_patch_size))
        return {
            "xray": XrayStream(
                caches,
                settings.xray_batch_size,
                settings.xray_patch_size,
                seed=self.common_seed(),
                rank=self.local_rank,
                world_size=torch.distributed.get_world_size() if self.is_ddp else 1,
                num_workers=num_workers,
                min_scale=settings.xray_min_scale,
                flip=settings.xray_flip,
                rotation=settings.xray_rotation,
                pin_memory=self.device.type == "cuda",
            )
        }

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network that the plans and the settings in them describe; the same at training and at prediction."""
        settings = UCISettings.from_plans(plans_manager.plans)
        return build_uci_network(
            settings,
            patch_size=configuration_manager.patch_size,
            strides=configuration_manager.pool_op_kernel_sizes,
            kernel_sizes=configuration_manager.conv_kernel_sizes
            if "conv_kernel_sizes" in configuration_manager.configuration
            else configuration_manager.network_arch_init_kwargs["kernel_sizes"],
            input_channels=num_input_channels,
            num_classes=num_output_channels,
            deep_supervision=enable_deep_supervision,
        )

    @classmethod
    def inspection_inputs(
        cls, settings: UCISettings, patch_size: Sequence[int], channels: int
    ) -> dict[str, dict[str, Tensor]]:
        """One CT patch, and one X-ray where the network takes X-rays."""
        inputs = {"ct": {"ct": torch.empty(1, channels, *patch_size)}}
        if settings.uses_xrays:
            inputs["xray"] = {"xray": torch.empty(1, 3, *settings.xray_patch_size)}
        return inputs

    @classmethod
    def settings_for_inspection(
        cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str, num_image_classes: int | None
    ) -> UCISettings:
        """As for training; `num_image_classes` stands in for X-rays that are not linked yet."""
        if num_image_classes is None:
            return cls.resolve_settings(plans, dataset_json, configuration)
        require_3d(plans, configuration)
        return UCISettings.from_plans(plans).replace(num_xray_classes=num_image_classes)

    @classmethod
    def inspect_paper(cls, num_image_classes: int | None = None) -> NetworkReport:
        """The authors' network at 32 x 256 x 256 voxels and 224 x 224 pixels, 14 classes unless told."""
        settings = UCISettings.paper(14 if num_image_classes is None else num_image_classes)
        network = build_uci_network(
            settings,
            patch_size=PAPER_PATCH_SIZE,
            strides=[],
            kernel_sizes=[],
            input_channels=1,
            num_classes=2,
            deep_supervision=True,
        )
        return inspect_network(cls.__name__, network, cls.inspection_inputs(settings, PAPER_PATCH_SIZE, 1))

    @property
    def uci_network(self) -> UCINet:
        """The network without wrappers."""
        return cast(UCINet, self.bare_network)

    def on_train_start(self) -> None:
        """As the host; a new run then starts from UniMiSS+ weights where the settings name them."""
        resumed = self._resume is not None
        super().on_train_start()
        path = self.settings.pretrained_unimiss
        if path is None or resumed:
            return
        try:
            report = load_unimiss_plus(self.uci_network, path)
        except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
            raise UsageError(f"UCITrainer setting pretrained_unimiss={path!r} cannot be used: {error}") from None
        self.print_to_log_file(
            f"UniMiSS+: {report.share:.0%} of the values; parameters: {len(report.matched)} matched,"
            f" {len(report.resized)} resized, {len(report.skipped)} left as they were"
        )

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """The scales of the five outputs, which are the built network's and not the plan's."""
        return self.uci_network.deep_supervision_scales if self.enable_deep_supervision else None

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """AdamW with poly decay; norms, biases, position embeddings and the class token are not decayed."""
        decayed: list[nn.Parameter] = []
        kept: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            vector = parameter.ndim <= 1 or "position_embeddings" in name or "class_token" in name
            (kept if vector and not self.settings.decay_norm_and_bias else decayed).append(parameter)
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.initial_lr)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def epoch_values(self) -> dict[str, float]:
        """How many prototypes of each bank were used in this epoch."""
        self._tokens_per_prototype = self.uci_network.tokens_per_prototype()
        return {f"prototypes/{name}": float(value) for name, value in self.uci_network.prototype_usage().items()}

    def draw_pictures(self, folder: Path) -> list[Picture]:
        """How evenly the prototypes were used in the last epoch; nothing without knowledge condensation."""
        usage = {bank: counts.cpu().double().numpy() for bank, counts in self._tokens_per_prototype.items()}
        return [draw_prototype_usage(usage, folder)] if usage else []


def build_uci_network(
    settings: UCISettings,
    *,
    patch_size: Sequence[int],
    strides: Sequence[Sequence[int]],
    kernel_sizes: Sequence[Sequence[int]],
    input_channels: int,
    num_classes: int,
    deep_supervision: bool,
) -> UCINet:
    """`UCINet` for a plan, or for the paper's own strides (setting ``topology``)."""
    topology = (
        Topology.paper() if settings.topology == "paper" else Topology.from_plan(strides, kernel_sizes, patch_size)
    )
    return UCINet(
        input_channels=input_channels,
        num_classes=num_classes,
        patch_size=patch_size,
        topology=topology,
        num_xray_classes=settings.num_xray_classes if settings.uses_xrays else None,
        deep_supervision=deep_supervision,
        **{name: getattr(settings, name) for name in NETWORK_SETTINGS},
    )


def require_3d(plans: dict[str, Any], configuration: str) -> None:
    """Raises UsageError unless the configuration is a 3D one: CT volumes are what X-rays help here."""
    if configuration not in plans["configurations"]:
        raise UsageError(f"-c {configuration} is not in the plans; they have {', '.join(plans['configurations'])}")
    if len(PlansManager(plans).get_configuration(configuration).patch_size) != 3:
        raise UsageError(
            f"UCITrainer cannot train configuration {configuration}: it learns CT volumes; use -c 3d_fullres"
        )
