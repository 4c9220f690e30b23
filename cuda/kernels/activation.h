// Activations in float32, as cpu/reference/activate.cpp defines them.
#pragma once

#include "cuda/tile/platform.h"
#include "engine/backend.h"

namespace nd::cuda {

ND_DEVICE float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::Silu:
      return fastDivide(x, 1 + fastExp(-x));
    case Activation::Gelu:
      return 0.5f * x * (1 + erff(x * 0.70710678f));
    case Activation::QuickGelu:
      return fastDivide(x, 1 + fastExp(-1.702f * x));
    case Activation::Relu:
      return x < 0 ? 0.0f : x;  // NaN stays
    case Activation::GeluTanh:
      return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default:
      return x;
  }
}

}  // namespace nd::cuda
