// What a build without nvcc has instead of cuda-backend.cu: the reason why there is no CUDA.
#include "engine/backend.h"

namespace nd {

CudaInfo cudaInfo() { return {"this build has no CUDA: nvcc was not there when it was made", {}}; }

std::unique_ptr<Backend> makeCudaBackend(int, DType) {
  throw Error(ErrorCode::CudaUnavailable, cudaInfo().reason);
}

}  // namespace nd
