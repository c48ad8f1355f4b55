"""`rlvr train` with weights sharded among processes of a CPU: torchrun starts this with the arguments of `rlvr train`.

accelerate takes FSDP and DeepSpeed only where it finds an accelerator; both shard on CPUs as well, over gloo. What is
patched is that choice alone: plugin, sharding, gathering and checkpoints are those of a GPU.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def shard_on_cpus() -> None:
    """Makes accelerate take the FSDP or DeepSpeed plugin of the environment in processes of a CPU."""
    inner = AcceleratorState.__init__

    def initialised(
        self: Any, *arguments: Any, fsdp_plugin: Any = None, deepspeed_plugin: Any = None, **options: Any
    ) -> None:
        inner(self, *arguments, fsdp_plugin=fsdp_plugin, deepspeed_plugin=deepspeed_plugin, **options)
        if self.distributed_type != DistributedType.MULTI_CPU or not (fsdp_plugin or deepspeed_plugin):
            return
        if fsdp_plugin:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
        else:
            self.distributed_type = DistributedType.DEEPSPEED
            plugins = deepspeed_plugin if isinstance(deepspeed_plugin, dict) else {"default": deepspeed_plugin}
            for plugin in plugins.values():
                plugin.set_mixed_precision(self._mixed_precision)
            next(iter(plugins.values())).select(_from_accelerator_state=True)
            self.deepspeed_plugins = deepspeed_plugin
        PartialState._shared_state["distributed_type"] = self.distributed_type

    AcceleratorState.__init__ = initialised


if __name__ == "__main__":
    from sick_process import fall_ill

    from rlvr.cli import main

    shard_on_cpus()
    if os.environ.get("RANK") == "1" and (sickness := os.environ.get("RLVR_TEST_SICKNESS")):
        fall_ill(sickness)
    sys.argv[1:1] = ["train"]
    main()
