"""The operations that nd_gpu_bench timed beside PyTorch's (cuBLAS, cuDNN, SDPA) in the same run.

compare.py FOLDER DEVICE: reads FOLDER/operations.jsonl and models.jsonl, writes FOLDER/results.json (raw numbers, with date,
device, driver, commit) and FOLDER/table.md. Without torch or a GPU the columns of the comparison stay empty.
"""

import datetime
import json
import os
import statistics
import subprocess
import sys
import time


def command(*words):
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def load_torch():
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def timed(torch, run):
    """Seconds of one run: the median of replays of a CUDA graph of several runs, as nd_gpu_bench does it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    runs = max(1, min(64, int(2e-3 / (time.perf_counter() - start))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(runs):
            run()
    graph.replay()
    torch.cuda.synchronize()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begin < 0.2 and len(times) < 100):
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / runs)
    return statistics.median(times)


def torch_operation(torch, o):
    """The operation in PyTorch, channels last, with the same fusions only where PyTorch has them."""
    f = torch.nn.functional
    half = dict(device="cuda", dtype=torch.float16)
    if o["kind"] in ("linear", "geglu"):
        rows = o["n"] * (2 if o["kind"] == "geglu" else 1)
        x, w, bias = torch.randn(o["m"], o["k"], **half), torch.randn(rows, o["k"], **half), torch.randn(rows, **half)
        if o["kind"] == "linear":
            return lambda: f.linear(x, w, bias)

        def geglu():
            value, gate = f.linear(x, w, bias).chunk(2, dim=-1)
            return value * f.gelu(gate)

        return geglu
    if o["kind"] == "conv":
        last = torch.channels_last
        channels = o["k"] + o["skip"]
        scale = 2 if o["up"] else 1
        x = torch.randn(o["b"], o["k"], o["h"] // scale, o["w"] // scale, **half).to(memory_format=last)
        skip = torch.randn(o["b"], o["skip"], o["h"] // scale, o["w"] // scale, **half).to(memory_format=last) if o["skip"] else None
        w = torch.randn(o["n"], channels, o["kernel"], o["kernel"], **half).to(memory_format=last)
        bias = torch.randn(o["n"], **half)

        def conv():
            y = torch.cat([x, skip], 1) if skip is not None else x
            if o["up"]:
                y = f.interpolate(y, scale_factor=2.0, mode="nearest")
            return f.conv2d(y, w, bias, stride=o["stride"], padding=o["kernel"] // 2)

        return conv
    if o["kind"] == "attention":
        q = torch.randn(o["b"], o["heads"], o["m"], o["d"], **half)
        k, v = (torch.randn(o["b"], o["heads"], o["l"], o["d"], **half) for _ in range(2))
        return lambda: f.scaled_dot_product_attention(q, k, v)
    if o["kind"] == "groupNorm":
        x = torch.randn(o["b"], o["k"], o["h"], o["w"], **half).to(memory_format=torch.channels_last)
        w = torch.randn(o["k"], **half)
        return lambda: f.silu(f.group_norm(x, 32, w, w))
    x, w = torch.randn(o["m"], o["k"], **half), torch.randn(o["k"], **half)
    return lambda: f.layer_norm(x, (o["k"],), w, w)


def ceilings(torch):
    """What the machine reaches: a large matrix product (FLOP/s), a large copy (bytes read and written, per second)."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    flops = 2 * 8192**3 / timed(torch, lambda: a @ b)
    source = torch.empty(1 << 30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return flops, 2 * source.numel() / timed(torch, lambda: target.copy_(source))


def rows(path):
    with open(path, encoding="utf8") as lines:
        return [json.loads(line) for line in lines if line.startswith("{")]


def main():
    folder, device = sys.argv[1], json.loads(sys.argv[2])
    operations, models = (rows(os.path.join(folder, name)) for name in ("operations.jsonl", "models.jsonl"))
    torch = load_torch()
    peak = copy = None
    if torch:
        torch.backends.cudnn.benchmark = True
        torch.manual_seed(0)
        peak, copy = ceilings(torch)
    for o in operations:
        o["tflops"], o["gbytes"] = o["flops"] / o["us"] * 1e-6, o["bytes"] / o["us"] * 1e-3
        if not torch:
            continue
        o["share"] = max(o["tflops"] * 1e12 / peak, o["gbytes"] * 1e9 / copy)
        try:
            o["torch_us"] = timed(torch, torch_operation(torch, o)) * 1e6
            o["ratio"] = o["torch_us"] / o["us"]
        except RuntimeError as error:  # out of memory, a shape that it has no kernel for
            o["torch_error"] = str(error).splitlines()[0]
        torch.cuda.empty_cache()
    uuid, driver = (command("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader") for field in ("uuid", "driver_version"))
    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": os.environ.get("GPU_CHECK_COMMIT") or command("git", "rev-parse", "HEAD") or "unknown",
        "device": device, "uuid": uuid, "driver": driver,
        "torch": torch.__version__ if torch else None,
        "matmul_flops": peak, "copy_bytes_per_s": copy,
        "models": models, "operations": operations,
    }
    with open(os.path.join(folder, "results.json"), "w", encoding="utf8") as file:
        json.dump(result, file, indent=1)

    def cell(o, key, pattern):
        return format(o[key], pattern) if o.get(key) is not None else ""

    lines = [
        f"{result['date']}, {device['description']}, driver {driver or 'none'}, commit {result['commit'][:12]}, torch {result['torch']}", "",
        "| model | operation | µs | TFLOP/s | GB/s | of the ceiling | torch µs | × torch |", "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for o in operations:
        lines.append(
            f"| {o['model']} | {o['name']} | {o['us']:.1f} | {o['tflops']:.1f} | {o['gbytes']:.0f} | {cell(o, 'share', '.0%')} | "
            f"{cell(o, 'torch_us', '.1f')} | {cell(o, 'ratio', '.2f')} |"
        )
    lines += ["", "| model | steps | loop s | step ms | decode s | weights MB | activations MB |", "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for m in models:
        lines.append(
            f"| {m['model']} {m['side']}² | {m['steps']} | {m['loop_s']:.4f} | {m['step_ms']:.3f} | {m['decode_s']:.4f} | "
            f"{m['unet_weight_bytes'] / 2**20:.0f} | {(m['unet_activation_bytes'] + m['vae_activation_bytes']) / 2**20:.0f} |"
        )
    table = "\n".join(lines) + "\n"
    with open(os.path.join(folder, "table.md"), "w", encoding="utf8") as file:
        file.write(table)
    print(table)


main()
