#include "cuda/kernels/tensor-map.h"

namespace nd::cuda {

#ifdef ND_CUDA_SIM

TensorMap tensorMap(bool, const void* data, const std::array<uint64_t, 4>& dim,
                    const std::array<uint64_t, 3>& stride, const std::array<uint32_t, 4>& box) {
  sim::TensorMapFields f{data, {}, {}, {}, 2, 128};
  std::copy(dim.begin(), dim.end(), f.dim);
  std::copy(stride.begin(), stride.end(), f.stride);
  std::copy(box.begin(), box.end(), f.box);
  sim::checkTensorMap(f);
  return {f};
}

#else

/// The driver's function, without linking the driver.
static PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
    check(
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
        "cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess || !found)
      throw Error(ErrorCode::CudaUnavailable,
                  "the NVIDIA driver has no cuTensorMapEncodeTiled: expected version 525 or later");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }();
  return function;
}

TensorMap tensorMap(bool half, const void* data, const std::array<uint64_t, 4>& dim,
                    const std::array<uint64_t, 3>& stride, const std::array<uint32_t, 4>& box) {
  TensorMap map;
  const cuuint64_t dims[4] = {dim[0], dim[1], dim[2], dim[3]}, strides[3] = {stride[0], stride[1], stride[2]};
  const cuuint32_t boxes[4] = {box[0], box[1], box[2], box[3]}, steps[4] = {1, 1, 1, 1};
  const CUresult result = encoder()(
      &map, half ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4,
      const_cast<void*>(data), dims, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error(ErrorCode::Internal,
                format("cuTensorMapEncodeTiled: error %d for dimensions %llu, %llu, %llu, %llu", result,
                       static_cast<unsigned long long>(dim[0]), static_cast<unsigned long long>(dim[1]),
                       static_cast<unsigned long long>(dim[2]), static_cast<unsigned long long>(dim[3])));
  return map;
}

#endif

}  // namespace nd::cuda
