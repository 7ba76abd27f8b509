"""Sphinx configuration: the pages are Markdown (MyST)."""

project = "nnunet_ext"
author = "The nnunet_ext developers"
copyright = "2026, The nnunet_ext developers"
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
