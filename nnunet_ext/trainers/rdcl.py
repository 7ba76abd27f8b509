"""Relation-driven collaborative learning (Zhang et al., IEEE JBHI 25(11), 2021): learning from other lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ext.architectures.cpu_layout import weights_channels_last
from nnunet_ext.architectures.rdcl import RDCLNet, RelationFeatures
from nnunet_ext.data.patch_stream import PatchStream, related_sources
from nnunet_ext.losses.ramp import ramp_up
from nnunet_ext.losses.relation import general_relation_loss, relation_matrix, target_relation_loss
from nnunet_ext.settings.rdcl import RDCLSettings
from nnunet_ext.trainers.base import ExtensionTrainer, Stream
from nnunet_ext.trainers.general_weights import load_encoder
from nnunet_ext.trainers.host_unet import paper_unet, require_images_only
from nnunet_ext.trainers.inspection import NetworkReport, inspect_network
from nnunet_ext.trainers.rdcl_pictures import draw_relation_course, draw_relations
from nnunet_ext.trainers.relation_history import forget_relations, keep_relations
from nnunet_ext.trainers.relation_monitor import RelationMonitor, has_just_collapsed
from nnunet_ext.utilities.datasets import relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import Picture
from nnunet_ext.utilities.relation_record import GENERAL, NON_TARGET, RANK_SERIES, TARGET, WEIGHT_SERIES

MOMENTUM = 0.99  # nnU-Net's, and the paper's

# Tables I and II.
PAPER_3D = {
    "patch_size": (56, 160, 192),
    "features": (32, 64, 128, 256, 320, 320),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    "kernel_sizes": ((1, 3, 3), *((3, 3, 3),) * 5),
}
PAPER_2D = {
    "patch_size": (448, 384),
    "features": (32, 64, 128, 256, 480, 480, 480),
    "strides": ((1, 1), *((2, 2),) * 6),
    "kernel_sizes": ((3, 3),) * 7,
}


class RDCLTrainer(ExtensionTrainer[RDCLSettings]):
    """Each iteration: target images through both encoders and the decoder, non-target images through the general
    encoder alone. The general encoder learns to relate its channels alike for both (L_G), the target encoder to
    segment and to relate its channels unlike the general one (L_T), the decoder to segment (Algorithm 1)."""

    settings_class = RDCLSettings
    fixed_settings = ("ablation",)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host's own default)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self._iteration = 0
        self._monitor = RelationMonitor()

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Segmentation of the labelled target images; L_G and L_T of Eq. 4 and 5 on all, ramped up."""
        settings = self.settings
        data, labels = self.to_device(batch["data"]), self.to_device(batch["target"])
        if not settings.uses_relations:
            yield "segmentation", self.loss(self.network(data), labels)
            return
        non_target = self.to_device(next(self.streams["non_target"])) if settings.trains_general else None
        images = data
        if "unlabeled" in self.streams:
            images = torch.cat([data, self.to_device(next(self.streams["unlabeled"]))])
        logits, features = self.network(images, non_target=non_target, relations=True, num_labeled=len(data))
        terms = self.relation_terms(features)
        segmentation = self.loss(logits, labels)
        self._iteration += 1
        del logits, features, images, non_target

        # A compiled network is one node of the graph, gone after one backward pass: the first carries all gradients.
        yield "segmentation", segmentation + sum(term - term.detach() for term in terms.values())
        for name, term in terms.items():
            yield name, term.detach().requires_grad_()

    def relation_terms(self, features: RelationFeatures) -> dict[str, Tensor]:
        """Weighted L_G (``general``) and L_T (``target``), those of the two that the setting `ablation` leaves."""
        settings, weight = self.settings, self.relation_weight()
        matrix = {GENERAL: features.general_target, TARGET: features.target, NON_TARGET: features.general_non_target}
        matrices = {name: relation_matrix(f, settings.batch_relation) for name, f in matrix.items() if f is not None}
        self._monitor.update(matrices, features.general_target)
        terms = {}
        if settings.trains_general:
            loss = general_relation_loss(matrices[NON_TARGET], matrices[GENERAL], settings.reduction)
            terms["general"] = weight * loss
        if settings.pushes_target:
            general = matrices[GENERAL] if settings.joint_general else matrices[GENERAL].detach()
            terms["target"] = weight * target_relation_loss(general, matrices[TARGET], settings.reduction)
        return terms

    def relation_weight(self) -> float:
        """lambda_G = lambda_T at this iteration: ramped up over the whole training, so that it survives ``--c``."""
        done = self.current_epoch + self._iteration / self.num_iterations_per_epoch
        return self.settings.relation_weight * ramp_up(min(done / self.num_epochs, 1.0), self.settings.ramp)

    @classmethod
    def resolve_settings(cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> RDCLSettings:
        """The settings in the plans, once the linked data sets that they need are known to be prepared."""
        settings = RDCLSettings.from_plans(plans)
        require_images_only(cls.__name__, plans, configuration)
        if settings.general_weights is not None and not Path(settings.general_weights).is_file():
            raise UsageError(f"RDCLTrainer setting general_weights={settings.general_weights!r} is not a file")
        manager = PlansManager(plans)
        if settings.trains_general:
            related_sources(dataset_json, "non_target", manager, configuration)
        if uses_unlabeled(settings, dataset_json):
            related_sources(dataset_json, "unlabeled", manager, configuration)
        return settings

    def build_streams(self, num_workers: int) -> dict[str, Stream]:
        """Non-target images for L_G, unlabelled target images if linked; none where no relation loss wants them."""
        settings, seed = self.settings, self.common_seed()
        sizes = {}
        if settings.trains_general:
            sizes["non_target"] = settings.non_target_batch_size or self.batch_size
        if uses_unlabeled(settings, self.dataset_json):
            sizes["unlabeled"] = settings.unlabeled_batch_size or self.batch_size
        streams: dict[str, Stream] = {}
        for number, (kind, batch_size) in enumerate(sizes.items()):
            workers = (num_workers + len(sizes) - 1 - number) // len(sizes)
            streams[kind] = self._patch_stream(kind, batch_size, seed + number, workers)
        return streams

    def _patch_stream(self, kind: Any, batch_size: int, seed: int, num_workers: int) -> PatchStream:
        """Patches of a linked kind, augmented as the target's."""
        patch_size = self.configuration_manager.patch_size
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        transforms = self.get_training_transforms(
            patch_size,
            rotation,
            None,
            mirror_axes,
            dummy_2d,
            use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
        )
        return PatchStream(
            related_sources(self.dataset_json, kind, self.plans_manager, self.configuration_name),
            batch_size,
            patch_size,
            transforms=transforms,
            initial_patch_size=initial_patch_size,
            oversample_foreground=self.oversample_foreground_percent if kind == "non_target" else 0.0,
            seed=seed,
            rank=self.local_rank,
            world_size=torch.distributed.get_world_size() if self.is_ddp else 1,
            num_workers=num_workers,
            pin_memory=self.device.type == "cuda",
        )

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plan's U-Net with a second encoder; the same at training and at prediction."""
        unet = get_network_from_plans(
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
            num_input_channels,
            num_output_channels,
            allow_init=False,
            deep_supervision=enable_deep_supervision,
        )
        return build_rdcl_network(RDCLSettings.from_plans(plans_manager.plans), unet)

    @classmethod
    def inspection_inputs(
        cls, settings: RDCLSettings, patch_size: Sequence[int], channels: int
    ) -> dict[str, dict[str, Tensor]]:
        """A target patch as at prediction, and with a non-target patch as in training."""
        inputs = {"target": {"x": torch.empty(1, channels, *patch_size)}}
        if settings.trains_general:
            inputs["training"] = {name: torch.empty(1, channels, *patch_size) for name in ("x", "non_target")}
        return inputs

    @classmethod
    def settings_for_inspection(
        cls,
        plans: dict[str, Any],
        dataset_json: dict[str, Any],  # noqa: ARG003
        configuration: str,
        num_image_classes: int | None,  # noqa: ARG003
    ) -> RDCLSettings:
        """Those of the plans; the network depends on no linked data."""
        require_images_only(cls.__name__, plans, configuration)
        return RDCLSettings.from_plans(plans)

    @classmethod
    def inspect_paper(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """The network of Table I: 56 x 160 x 192 voxels, one channel, two classes."""
        return cls._inspect_table(PAPER_3D)

    @classmethod
    def inspect_paper_2d(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """The network of Table II: 448 x 384 pixels, one channel, two classes."""
        return cls._inspect_table(PAPER_2D)

    @classmethod
    def _inspect_table(cls, table: dict[str, Any]) -> NetworkReport:
        settings, patch_size = RDCLSettings.paper(), table["patch_size"]
        network = build_rdcl_network(settings, paper_unet(table))
        return inspect_network(cls.__name__, network, cls.inspection_inputs(settings, patch_size, 1))

    @property
    def rdcl_network(self) -> RDCLNet:
        """The network without wrappers."""
        return cast(RDCLNet, self.bare_network)

    def initialize(self) -> None:
        """As the host."""
        super().initialize()
        if self.device.type == "cpu":
            weights_channels_last(self.network)

    def on_train_start(self) -> None:
        """As the host; a new run then starts its general encoder from `general_weights`, or warns."""
        resumed = self._resume is not None
        super().on_train_start()
        if self.local_rank == 0:
            forget_relations(Path(self.output_folder), self.current_epoch)
        path = self.settings.general_weights
        if resumed:
            return
        if path is None:
            self.print_to_log_file(
                "WARNING: general_weights is not set, so the general encoder starts at random and never sees a"
                " segmentation loss; train nnU-Net on the non-target data and give its checkpoint_final.pth"
            )
            return
        self.print_to_log_file(f"general encoder: {load_encoder(self.rdcl_network.general_encoder, path)}")
        if self.settings.init_target_from_general:
            self.print_to_log_file(f"target encoder: {load_encoder(self.rdcl_network.encoder, path)}")

    def on_train_epoch_start(self) -> None:
        """As the host; iterations count from 0."""
        self._iteration = 0
        super().on_train_epoch_start()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """As the host; some epochs keep their relation matrices, before a checkpoint counts the epoch as done."""
        super().on_train_epoch_end(train_outputs)
        if self.local_rank == 0:
            keep_relations(Path(self.output_folder), self.current_epoch, self.num_epochs, self._monitor.matrices())

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """nnU-Net's SGD; the general encoder is a group of its own, without weight decay: while its loss is ramped up
        from nearly nothing, decay with momentum would erode it."""
        general = self.rdcl_network.general_encoder
        groups = [{"params": [p for p in self._others() if p.requires_grad], "weight_decay": self.weight_decay}]
        if self.settings.trains_general:
            groups.append({"params": list(general.parameters()), "weight_decay": self.settings.general_weight_decay})
        optimizer = torch.optim.SGD(groups, self.initial_lr, momentum=MOMENTUM, nesterov=True)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def clip_gradients(self) -> None:
        """Clip the general encoder apart from the rest, so that neither loss scales down the other's gradient."""
        for parameters in (self._others(), list(self.rdcl_network.general_encoder.parameters())):
            nn.utils.clip_grad_norm_(parameters, self.settings.gradient_clip)

    def _others(self) -> list[nn.Parameter]:
        network = self.rdcl_network
        return [*network.encoder.parameters(), *network.decoder.parameters()]

    def epoch_values(self) -> dict[str, float]:
        """Mean distances of the relations, the general encoder's rank and the weight of the relation losses."""
        values = self._monitor.epoch_values()
        if not values:
            return {}
        ranks = self.logger.local_logger.my_fantastic_logging.get(RANK_SERIES, [])
        if has_just_collapsed([*ranks[: self.current_epoch], values[RANK_SERIES]]):
            self.print_to_log_file(
                f"WARNING: the general encoder's features have collapsed (rank {values[RANK_SERIES]:.3f} of the largest"
                f" possible, before {max(ranks):.3f}); lower relation_weight, or start from general_weights"
            )
        return {**values, WEIGHT_SERIES: self.relation_weight()}

    def draw_pictures(self, folder: Path) -> list[Picture]:
        """The relation matrices of the last epoch, and the course of all epochs; nothing without relation losses."""
        matrices = self._monitor.matrices()
        if not matrices:
            return []
        logging = self.logger.local_logger.my_fantastic_logging
        return [draw_relations(matrices, folder), draw_relation_course(logging, folder)]


def build_rdcl_network(settings: RDCLSettings, unet: nn.Module) -> RDCLNet:
    """`RDCLNet` with the sizes of `unet`; its general encoder is frozen where the settings give it nothing to learn."""
    network = RDCLNet(unet, joint_general=settings.joint_general, recompute_general=settings.recompute_general)
    network.general_encoder.requires_grad_(settings.trains_general)
    return network


def uses_unlabeled(settings: RDCLSettings, dataset_json: dict[str, Any]) -> bool:
    """Whether training draws unlabelled target images: if linked and wanted, and if a relation loss can use them."""
    wanted = settings.unlabeled_batch_size
    linked = bool(relations(dataset_json).get("unlabeled"))
    return settings.uses_relations and (linked if wanted is None else wanted > 0)
