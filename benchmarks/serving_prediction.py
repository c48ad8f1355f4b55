"""The serving planner's step times beside those of a vLLM engine on this machine, in one run.

Measures what the machine gives (bytes/s of reading, FLOP/s of a matrix product in the engine's precision), then decode
steps at several batch sizes and the prefill of one prompt. Beside each measured time stands what the roofline says

- with the hardware's numbers as the planner ships them, at the assumed shares of them;
- with the measured peaks, at the assumed shares;
- fitted to the smallest and the largest batch, so that the sizes between are predictions.

    python benchmarks/serving_prediction.py MODEL [--hardware CPU:4] [--batches 1,4,16,64] [--threads 2]

Needs vLLM (on a machine without a GPU its CPU build). Other work on the machine changes both sides, though not alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from collections.abc import Callable

from rlvr.moe.facts import inspect_model
from rlvr.serving.hardware import Hardware, parse_hardware
from rlvr.serving.roofline import StepModel, fitted

SHORT, LONG = 8, 40  # tokens of the two generations whose difference is decode steps alone
REPEATS = 3


def best(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of `repeats` runs: what disturbs a run only makes it longer."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measured_peaks(device: str, dtype: str) -> tuple[float, float]:
    """(bytes/s of reading memory, FLOP/s of a matrix product) on `device`, both by torch."""
    import torch

    kind = getattr(torch, dtype)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    large = torch.ones(2**28 if device == "cuda" else 2**26, dtype=torch.float32, device=device)
    side = 8192 if device == "cuda" else 1024
    matrix = torch.ones((side, side), dtype=kind, device=device)

    def read() -> None:
        large.sum()
        finish()

    def multiply() -> None:
        matrix @ matrix
        finish()

    reading, product = best(read, 5), best(multiply, 5)
    return large.numel() * large.element_size() / reading, 2 * side**3 / product


def with_peaks(hardware: Hardware, bandwidth: float, flops: float) -> Hardware:
    return dataclasses.replace(hardware, device=dataclasses.replace(hardware.device, bandwidth=bandwidth, flops=flops))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a checkpoint")
    parser.add_argument("--hardware", default="CPU:4")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument(
        "--prompt", type=int, default=64, help="tokens; the prefill that is measured has eight times as many"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    batches = sorted({int(text) for text in options.batches.split(",")})
    if len(batches) < 2:
        parser.error("--batches: two sizes at least, the smallest and the largest are fitted")
    hardware = parse_hardware(options.hardware)
    on_cpu = hardware.device.name == "CPU"
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if on_cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, hardware.device.memory // 2**30 // 2)))
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    facts = inspect_model(options.model)
    size = {"float32": 4}.get(options.dtype, 2)
    peaks = measured_peaks("cpu" if on_cpu else "cuda", options.dtype)
    print(f"measured: {peaks[0] / 1e9:.1f} GB/s, {peaks[1] / 1e12:.3f} TFLOP/s; {hardware} as shipped:"
          f" {hardware.device.bandwidth / 1e9:.0f} GB/s, {hardware.device.flops / 1e12:.2f} TFLOP/s")  # fmt: skip

    from vllm import LLM, SamplingParams

    length = 8 * options.prompt + LONG
    engine = LLM(
        options.model, dtype=options.dtype, max_model_len=length, max_num_seqs=batches[-1], enforce_eager=on_cpu,
        enable_prefix_caching=False, disable_log_stats=True,
    )  # fmt: skip
    serial = iter(range(10**9))

    def generate(batch: int, prompt: int, tokens: int) -> None:
        ids = [[1 + next(serial) % 997, *(5 + (7 * i) % 991 for i in range(prompt - 1))] for _ in range(batch)]
        sampling = SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=1.0)
        engine.generate([{"prompt_token_ids": one} for one in ids], sampling, use_tqdm=False)

    generate(1, options.prompt, SHORT)
    context = options.prompt + (SHORT + LONG) // 2
    steps: list[tuple[int, int, float]] = []
    for batch in batches:
        few = best(functools.partial(generate, batch, options.prompt, SHORT))
        many = best(functools.partial(generate, batch, options.prompt, LONG))
        steps.append((batch, context, (many - few) / (LONG - SHORT)))
    prefill = best(lambda: generate(1, 8 * options.prompt, 1))

    shipped = StepModel(facts, hardware, weight_bytes=size, kv_bytes=size)
    known = StepModel(facts, with_peaks(hardware, *peaks), weight_bytes=size, kv_bytes=size)
    fit = dataclasses.replace(known, efficiency=fitted(known, [steps[0], steps[-1]]))
    print(f"{'':18}{'measured':>10}  {'as shipped':>17}  {'measured peaks':>17}  {'fitted':>17}")
    print(f"{'':18}{'ms':>10}" + f"  {'ms':>8} {'error':>8}" * 3)
    models = (shipped, known, fit)
    rows = [(f"decode, batch {b}", s, [model.decode_step(b, context) for model in models]) for b, _, s in steps]
    rows.append((f"prefill of {8 * options.prompt}", prefill, [m.prefill(8 * options.prompt) for m in models]))
    for name, seconds, cells in rows:
        print(
            f"{name:18}{seconds * 1e3:>10.1f}" + "".join(f"  {c * 1e3:>8.1f} {c / seconds - 1:>+8.0%}" for c in cells)
        )
    for batch, _, seconds in steps:
        print(f"batch {batch}: {batch / seconds:.0f} tokens/s measured")
    share = fit.efficiency
    print(f"fitted: {share.bandwidth:.2f} of the bandwidth, {share.flops:.2f} of the FLOP/s,", end=" ")
    print(f"{share.overhead * 1e3:.1f} ms a step")


if __name__ == "__main__":
    main()
