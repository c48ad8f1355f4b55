"""Accelerators in numbers, as their makers publish them."""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One accelerator: memory in bytes, memory bandwidth and link bandwidth in bytes/s, dense bf16 FLOP/s.

    `link` is what one device can send to its neighbours inside a machine, one direction; 0 = no fast link.
    """

    name: str
    memory: int
    bandwidth: float
    flops: float
    link: float
    capability: int  # 90 = Hopper, 100 = Blackwell, 0 = not CUDA
    fp8: bool = False


DEVICES: dict[str, Device] = {
    device.name.lower(): device
    for device in (
        Device("A100-40G", 40 * GIB, 1.555e12, 312e12, 300e9, 80),
        Device("A100", 80 * GIB, 2.039e12, 312e12, 300e9, 80),
        Device("A10G", 24 * GIB, 0.6e12, 70e12, 0, 86),
        Device("L4", 24 * GIB, 0.3e12, 121e12, 0, 89, True),
        Device("L40S", 48 * GIB, 0.864e12, 362e12, 0, 89, True),
        Device("RTX4090", 24 * GIB, 1.008e12, 165e12, 0, 89, True),
        Device("H100", 80 * GIB, 3.35e12, 989e12, 450e9, 90, True),
        Device("H200", 141 * 10**9, 4.8e12, 989e12, 450e9, 90, True),
        Device("B200", 180 * 10**9, 8.0e12, 2250e12, 900e9, 100, True),
        Device("MI300X", 192 * GIB, 5.3e12, 1307e12, 448e9, 0, True),
        Device("CPU", 16 * GIB, 40e9, 0.5e12, 0, 0),
    )
}


@dataclass(frozen=True)
class Hardware:
    """`count` equal devices in machines of `per_node`."""

    device: Device
    count: int
    per_node: int = 8

    @property
    def nodes(self) -> int:
        return -(-self.count // self.per_node)

    def __str__(self) -> str:
        return f"{self.count}x{self.device.name}"


def parse_hardware(text: str) -> Hardware:
    """Returns the hardware that "8xH100", "16xH200" or "H100" names; "CPU:24" is a CPU with 24 GiB for the engine.

    Raises ValueError naming what is known.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[x*]\s*)?([A-Za-z0-9-]+)(?::(\d+))?", text.strip())
    device = DEVICES.get(match[2].lower()) if match else None
    if match is None or device is None:
        known = ", ".join(d.name for d in DEVICES.values())
        raise ValueError(f"hardware {text!r}: expected a number and a device such as 8xH100; known devices: {known}")
    count = int(match[1] or 1)
    if count < 1:
        raise ValueError(f"hardware {text!r}: at least one device")
    if match[3] and int(match[3]) < 1:
        raise ValueError(f"hardware {text!r}: at least 1 GiB of memory")
    if match[3]:
        device = Device(
            device.name, int(match[3]) * GIB, device.bandwidth, device.flops, device.link, device.capability, device.fp8
        )
    return Hardware(device, count, per_node=min(8, count))
