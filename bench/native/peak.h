// What the machine can do, measured beside the kernels: fp32 FMA peak and memory bandwidth.
#pragma once

#include "cpu/thread-pool.h"

namespace nd::bench {

/// Wall-clock seconds; after useProcessorTime() those that this process has spent on a processor, which tells
/// more of one thread on a machine that is busy elsewhere.
double seconds();
void useProcessorTime();

/// GFLOP/s of an endless chain of FMAs (mul + add on "scalar"), on all threads of the pool; the best within
/// about `duration` seconds.
double fmaPeak(const char* isa, ThreadPool& pool, double duration);

/// GB/s of reading an array far larger than the caches.
double readBandwidth(ThreadPool& pool, double duration);

}  // namespace nd::bench
