"""What PyPI's SGLang needs beside a torch without CUDA; Python imports this file as it starts. For tests only.

Both changes are made when the module that needs them is about to be imported.
"""

import functools
import sys
from importlib.abc import MetaPathFinder

_KEPT = []  # a library that is collected takes its operators with it


def _torchvision():
    """Two operators that its compiled part would have declared."""
    import torch

    if not torch.cuda._is_compiled():
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


def _unpinned():
    """SGLang's LoRA asks for pinned memory, which only an accelerator's driver gives."""
    import torch

    if torch.cuda.is_available():
        return

    def without(make):
        @functools.wraps(make)
        def made(*arguments, **named):
            named.pop("pin_memory", None)
            return make(*arguments, **named)

        return made

    for name in ("tensor", "empty", "zeros", "ones", "full", "arange"):
        setattr(torch, name, without(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self, *arguments, **named: self


class _Before(MetaPathFinder):
    todo = {"torchvision": _torchvision, "sglang.srt.lora": _unpinned}

    def find_spec(self, name, path, target=None):
        if change := self.todo.pop(name, None):
            change()
        return None


sys.meta_path.insert(0, _Before())
