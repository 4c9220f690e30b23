// Synchronous exports: small enough for JavaScript's thread.
#pragma once

#include <napi.h>

namespace nd::binding {

/// readHeader(path) → { tensors: { name, dtype, shape }[], metadata }
Napi::Value readHeader(const Napi::CallbackInfo&);

/// readTensors(path, names) → { name: { data: Float32Array, shape } }: whole tensors, for small files
Napi::Value readTensors(const Napi::CallbackInfo&);

/// runPlan(plan, { shape, seeds, rng, initial?, start?, original?, mask?, branches, guidanceRescale },
///         predict(x: Float32Array, timestep, row) → Float32Array, onRow?(x, p)) → Float32Array
/// The native loop around a model in JavaScript: bring-your-own-model, and the tests of every scheduler.
Napi::Value runPlan(const Napi::CallbackInfo&);

/// class Noise { constructor(seed: bigint, rng); randn(n) → Float32Array }
Napi::Function defineNoise(Napi::Env);

/// inspect() → { isas, isa, threads, cuda }
Napi::Value inspect(const Napi::CallbackInfo&);

}  // namespace nd::binding
