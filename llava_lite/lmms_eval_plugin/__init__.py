"""Our models in lmms-eval, as `--model llava_lite`: see docs/lmms-eval.md.

lmms-eval finds `manifests` through an entry point. This file imports nothing of it, so that the classes can also be
imported before lmms-eval has looked for its models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifests() -> list[ModelManifest]:
    """Tell lmms-eval which models there are."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id="llava_lite", chat_class_path="llava_lite.lmms_eval_plugin.model.LlavaLite")]
