"""Modality-aware mutual learning (Zhang et al., MICCAI 2021): one network per modality, which learn together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn

from nnunet_ext.architectures.cpu_layout import weights_channels_last
from nnunet_ext.architectures.maml import MAMLNet
from nnunet_ext.losses.maml import MAMLLoss
from nnunet_ext.settings.maml import MAMLSettings, absence_probabilities, modality_channels
from nnunet_ext.trainers.base import ExtensionTrainer
from nnunet_ext.trainers.host_unet import paper_unet, require_images_only
from nnunet_ext.trainers.inspection import NetworkReport, inspect_network
from nnunet_ext.trainers.maml_modalities import GateMonitor, Subset, draw_subsets

# Section 2.1 and "Implementation Details": nnU-Net's network for this patch.
PAPER: dict[str, Any] = {
    "patch_size": (128, 128, 128),
    "features": (32, 64, 128, 256, 320, 320),
    "strides": ((1, 1, 1), *((2, 2, 2),) * 5),
    "kernel_sizes": ((3, 3, 3),) * 6,
}


class MAMLTrainer(ExtensionTrainer[MAMLSettings]):
    """Each iteration: every modality through its own stream, which learns to segment by itself (L_intra), and all of
    them through the attention to the joint prediction (L_joint), whose gradient reaches every stream (Eq. 3)."""

    settings_class = MAMLSettings
    fixed_settings = ("modalities", "region_targets", "ablation", "ma_second_kernel")
    loss: MAMLLoss

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host's own default)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.modality_names = tuple(modality_channels(self.settings, dataset_json))
        self._subsets: Iterator[Subset] = iter(())
        self._gates = GateMonitor(self.modality_names)

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """L_joint and one L_intra per modality, weighted as in Eq. 3; of the modalities that this iteration sees."""
        present = next(self._subsets, tuple(range(len(self.modality_names))))
        data, targets = self.to_device(batch["data"]), self.to_device(batch["target"])
        outputs, attention = self.network(data, present=present, return_attention=True)
        if self.maml_network.attends(present):
            self._gates.update(attention, present)
        joint, intra = self.loss.terms(outputs, targets, len(present))
        terms = {} if joint is None else {"joint": joint}
        terms |= {f"intra_{self.modality_names[i]}": term for i, term in zip(present, intra, strict=bool(intra))}
        del outputs, attention, joint, intra

        # The streams' graphs are shared by all terms and gone after one backward pass: the first carries all gradients.
        (name, first), *others = terms.items()
        yield name, first + sum(term - term.detach() for _, term in others)
        for name, term in others:
            yield name, term.detach().requires_grad_()

    def _build_loss(self) -> MAMLLoss:
        """The host's loss and weights of deep supervision, put together by Eq. 3."""
        host: Any = super()._build_loss()
        return MAMLLoss(
            host.loss,
            host.weight_factors,
            len(self.modality_names),
            intra_weight=self.settings.intra_weight,
            joint_weight=self.settings.joint_weight,
        )

    @classmethod
    def resolve_settings(cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> MAMLSettings:
        """The settings in the plans, completed by the modalities and the kind of targets of the data set, so that
        prediction builds the same network without it."""
        settings = MAMLSettings.from_plans(plans)
        require_images_only(cls.__name__, plans, configuration)
        channels = modality_channels(settings, dataset_json)
        absence_probabilities(settings, channels)
        labels = PlansManager(plans).get_label_manager(dataset_json)
        return settings.replace(
            modalities={name: list(group) for name, group in channels.items()}, region_targets=bool(labels.has_regions)
        )

    @staticmethod
    def build_network_architecture(
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """One of the plan's U-Nets per modality; the same at training and at prediction."""

        def stream(num_channels: int) -> nn.Module:
            unet: nn.Module = get_network_from_plans(
                configuration_manager.network_arch_class_name,
                configuration_manager.network_arch_init_kwargs,
                configuration_manager.network_arch_init_kwargs_req_import,
                num_channels,
                num_output_channels,
                allow_init=True,
                deep_supervision=enable_deep_supervision,
            )
            return unet

        settings = MAMLSettings.from_plans(plans_manager.plans)
        modalities = settings.modalities or {str(channel): [channel] for channel in range(num_input_channels)}
        return build_maml_network(settings, modalities, stream, enable_deep_supervision)

    @classmethod
    def inspect_paper(cls, num_image_classes: int | None = None) -> NetworkReport:  # noqa: ARG003
        """The network of the liver experiments: two phases, 32 features, 128 x 128 x 128 voxels, two classes, and the
        attention of Fig. 1."""
        settings, phases = MAMLSettings(), {"arterial": [0], "venous": [1]}
        network = build_maml_network(settings, phases, lambda _: paper_unet(PAPER), deep_supervision=True)
        return inspect_network(cls.__name__, network, cls.inspection_inputs(settings, PAPER["patch_size"], 2))

    @property
    def maml_network(self) -> MAMLNet:
        """The network without wrappers."""
        return cast(MAMLNet, self.bare_network)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """As the host, whose network has one decoder."""
        self.maml_network.deep_supervision = enabled

    def initialize(self) -> None:
        """As the host; a compiled network must have room for one version per subset of the modalities."""
        super().initialize()
        if self.device.type == "cpu":
            weights_channels_last(self.network)
        if self._drops_modalities:
            subsets = 2 ** len(self.modality_names)
            config: Any = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, 2 * subsets)

    @property
    def _drops_modalities(self) -> bool:
        return any(absence_probabilities(self.settings, self.modality_names))

    def on_train_start(self) -> None:
        """As the host."""
        super().on_train_start()
        self.tell_what_is_not_prepared()

    def tell_what_is_not_prepared(self) -> None:
        """Log that attention will not learn to do without a modality, if there are pairs to be had."""
        if len(self.modality_names) > 2 and self.settings.ablation != "ensemble" and not self._drops_modalities:
            self.print_to_log_file(
                f"modality_dropout is 0: attention will know only all {len(self.modality_names)} modalities together;"
                " if some may be missing at prediction, set modality_dropout=0.3"
            )

    def on_train_epoch_start(self) -> None:
        """As the host; draws the modalities of every iteration, the same on all ranks: with other outputs on another
        rank, a Dice over the batch of all ranks would wait forever."""
        self._gates.reset()
        if self._drops_modalities:
            absent = absence_probabilities(self.settings, self.modality_names)
            subsets = [draw_subsets(absent, self.num_iterations_per_epoch)]
            if self.is_ddp:
                dist.broadcast_object_list(subsets)
            self._subsets = iter(subsets[0])
        super().on_train_epoch_start()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """The host's SGD, or the paper's Adam with the host's decay of the learning rate."""
        if self.settings.optimizer == "sgd":
            optimizer, scheduler = super().configure_optimizers()
            return optimizer, scheduler
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def epoch_values(self) -> dict[str, float]:
        """Mean gate of each modality."""
        return {f"attention/{name}": value for name, value in self._gates.means().items()}


def build_maml_network(
    settings: MAMLSettings,
    modalities: Mapping[str, Sequence[int]],
    stream: Callable[[int], nn.Module],
    deep_supervision: bool,
) -> MAMLNet:
    """`MAMLNet` as the settings say.

    modalities: name -> channels; stream: number of channels -> an initialised U-Net.
    """
    return MAMLNet(
        [stream(len(channels)) for channels in modalities.values()],
        list(modalities.values()),
        fusion="ensemble" if settings.ablation == "ensemble" else "attention",
        region_targets=bool(settings.region_targets),
        second_kernel=settings.ma_second_kernel,
        recompute=settings.checkpoint_attention,
        stream_heads=settings.intra_weight > 0,
        deep_supervision=deep_supervision,
    )
