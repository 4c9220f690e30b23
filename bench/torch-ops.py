"""PyTorch on given operations: reads {"threads": n, "operations": [[name, shape], …]} (bench/operations.mjs) from
standard input, writes one JSON object: the version, and seconds per call of each operation, the best of a few.

Weights and activations are float32. Convolutions are measured in both memory layouts and the faster one counts;
so are attention by PyTorch's own function, where there is one, and by two batched products and a softmax. With one
thread it is the processor's time that counts, which other programs disturb least.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F


def best(run, seconds=0.6):
    """Seconds of the fastest of 2 or more runs, after one to warm up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    run()
    fastest, start, runs = float("inf"), clock(), 0
    while runs < 2 or clock() - start < seconds:
        before = clock()
        run()
        fastest = min(fastest, clock() - before)
        runs += 1
    return fastest


def conv2d(o):
    k = o["kernel"]
    scale = 0.5 if o["up"] else o["stride"]
    x = torch.randn(o["batch"], o["channels"], int(o["height"] * scale), int(o["width"] * scale))
    w, b = torch.randn(o["features"], o["channels"], k, k) * 0.05, torch.randn(o["features"])

    def measured(layout):
        y, v = x.to(memory_format=layout), w.to(memory_format=layout)

        def run():
            grown = F.interpolate(y, scale_factor=2.0, mode="nearest") if o["up"] else y
            return F.conv2d(grown, v, b, stride=o["stride"], padding=k // 2)

        return best(run)

    return min(measured(torch.contiguous_format), measured(torch.channels_last))


def linear(o):
    x, w, b = torch.randn(o["rows"], o["depth"]), torch.randn(o["features"], o["depth"]) * 0.05, torch.randn(o["features"])
    if o["kind"] == "linear":
        return best(lambda: F.linear(x, w, b))

    def geglu():
        value, gate = F.linear(x, w, b).chunk(2, dim=-1)
        return value * F.gelu(gate)

    return best(geglu)


def attention(o):
    q, k, v = (torch.randn(o["batch"] * o["heads"], length, o["width"]) for length in (o["queries"], o["keys"], o["keys"]))
    scale = o["width"] ** -0.5

    def products():
        scores = torch.baddbmm(torch.empty(q.shape[0], q.shape[1], k.shape[1]), q, k.transpose(1, 2), beta=0, alpha=scale)
        return torch.bmm(scores.softmax(dim=-1), v)

    times = [best(products)]
    if hasattr(F, "scaled_dot_product_attention"):
        heads = [t.view(o["batch"], o["heads"], -1, o["width"]) for t in (q, k, v)]
        times.append(best(lambda: F.scaled_dot_product_attention(*heads)))
    return min(times)


def blas():
    """The library that linear layers and batched products run on, as the loader resolved it."""
    with open("/proc/self/maps") as maps:
        names = {line.split("/")[-1].strip() for line in maps if "blas" in line or "mkl" in line}
    return sorted(names)


def main():
    wanted = json.load(sys.stdin)
    torch.set_num_threads(wanted["threads"])
    measure = {"conv2d": conv2d, "linear": linear, "geglu": linear, "attention": attention}
    with torch.no_grad():
        seconds = {name: measure[o["kind"]](o) for name, o in wanted["operations"]}
    print(json.dumps({"version": torch.__version__, "blas": blas() if sys.platform == "linux" else [], "seconds": seconds}))


main()
