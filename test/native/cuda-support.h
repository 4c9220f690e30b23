// For tests of CUDA kernels: tensors of 16-bit floats in device memory, whose values the host knows exactly.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "engine/half.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {

inline float rounded(float value, DType type) {
  return type == DType::F16 ? halfToFloat(floatToHalf(value)) : bfloatToFloat(floatToBfloat(value));
}
/// Uniform in −1..1, values of the type.
inline std::vector<float> randomOf(DType type, int64_t count, uint32_t seed) {
  std::vector<float> values = randomFloats(count, seed);
  for (float& v : values) v = rounded(v, type);
  return values;
}

/// Device memory with exactly the elements of a tensor; NaN between the rows.
class DeviceTensor {
 public:
  DeviceTensor(DType type, const Shape& shape, int64_t stride = 0) : type_(type) {
    stride = stride ? stride : shape.last();
    count_ = shape.rows() ? (shape.rows() - 1) * stride + shape.last() : 0;
    cuda::check(cudaMalloc(&tensor_.data, count_ * 2), "test tensor");
    tensor_.shape = shape, tensor_.stride = stride;
    cuda::check(cudaMemset(tensor_.data, 0xff, count_ * 2), "test tensor");
  }
  DeviceTensor(DType type, const Shape& shape, const std::vector<float>& values, int64_t stride = 0)
      : DeviceTensor(type, shape, stride) {
    std::vector<uint16_t> bits(count_, 0xffff);
    for (int64_t r = 0; r < shape.rows(); r++)
      for (int64_t c = 0; c < shape.last(); c++) {
        const float v = values[r * shape.last() + c];
        bits[r * tensor_.stride + c] = type == DType::F16 ? floatToHalf(v) : floatToBfloat(v);
      }
    cuda::check(cudaMemcpy(tensor_.data, bits.data(), count_ * 2, cudaMemcpyHostToDevice), "test tensor");
  }
  ~DeviceTensor() { cudaFree(tensor_.data); }
  DeviceTensor(const DeviceTensor&) = delete;
  DeviceTensor& operator=(const DeviceTensor&) = delete;

  const Tensor& tensor() const { return tensor_; }
  void* data() const { return tensor_.data; }
  std::vector<float> download() const {
    std::vector<uint16_t> bits(count_);
    cuda::check(cudaDeviceSynchronize(), "test");
    cuda::check(cudaMemcpy(bits.data(), tensor_.data, count_ * 2, cudaMemcpyDeviceToHost), "test tensor");
    std::vector<float> values;
    for (int64_t r = 0; r < tensor_.shape.rows(); r++)
      for (int64_t c = 0; c < tensor_.shape.last(); c++) {
        const uint16_t b = bits[r * tensor_.stride + c];
        values.push_back(type_ == DType::F16 ? halfToFloat(b) : bfloatToFloat(b));
      }
    return values;
  }

 private:
  DType type_;
  Tensor tensor_;
  int64_t count_ = 0;
};

class DeviceFloats {
 public:
  explicit DeviceFloats(const std::vector<float>& values) {
    cuda::check(cudaMalloc(&data_, values.size() * 4), "test floats");
    cuda::check(cudaMemcpy(data_, values.data(), values.size() * 4, cudaMemcpyHostToDevice), "test floats");
  }
  ~DeviceFloats() { cudaFree(data_); }
  DeviceFloats(const DeviceFloats&) = delete;
  DeviceFloats& operator=(const DeviceFloats&) = delete;
  const float* data() const { return static_cast<const float*>(data_); }

 private:
  void* data_ = nullptr;
};

/// Whether Hopper's kernels run here: in the simulator, and on a GPU of capability 9.0.
inline bool haveHopper() {
#ifdef ND_CUDA_SIM
  return true;
#else
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, 0), "test");
  return properties.major == 9 && properties.minor == 0;
#endif
}

/// A launch on a GPU of so many multiprocessors, with a workspace.

inline cuda::Launch testLaunch(int multiprocessors) {
  static void* workspace = [] {
    void* data;
    cuda::check(cudaMalloc(&data, 4 << 20), "test workspace");
    return data;
  }();
  cuda::Launch launch;
  launch.multiprocessors = multiprocessors;
  launch.workspace = workspace, launch.workspaceBytes = 4 << 20;
  return launch;
}

/// Fails unless every result is within the rounding of its type (½ ulp of the expected value, taken twice:
/// the sum's own error may carry it over to the next value) and `tolerance`.
inline double checkRounded(const std::vector<float>& actual, const std::vector<float>& expected, DType type,
                           double tolerance, const std::string& what) {
  const double ulp = type == DType::F16 ? 0x1p-11 : 0x1p-8;
  double worst = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double allowed =
        ulp * std::abs(expected[i]) * 1.01 + tolerance + (type == DType::F16 ? 0x1p-24 : 0);
    const double error = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(error <= allowed))
      fail(format("%s: element %zu of %zu is %.9g, expected %.9g (error %.3g, allowed %.3g)", what.c_str(), i,
                  expected.size(), actual[i], expected[i], error, allowed));
    worst = std::max(worst, error / allowed);
  }
  return worst;
}

}  // namespace nd::test
