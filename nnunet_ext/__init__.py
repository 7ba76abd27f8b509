"""nnunet_ext: five ways of learning from more than the target images and labels, as ordinary nnU-Net v2 trainers."""

__version__ = "0.1.0"
