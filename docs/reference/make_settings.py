"""Print the settings of a trainer as a Markdown table: python docs/reference/make_settings.py UCITrainer."""

import dataclasses
import json
import sys

from nnunet_ext.settings.registry import settings_class

print("| setting | default | allowed | meaning |\n|---|---|---|---|")
for field in dataclasses.fields(settings_class(sys.argv[1])):
    low, high = field.metadata.get("low"), field.metadata.get("high")
    allowed = ", ".join(field.metadata.get("options", ())) or ("" if low is None else f"{low:g} to {high:g}")
    print(f"| `{field.name}` | `{json.dumps(field.default)}` | {allowed} | {field.metadata['help']} |")
