#include "cuda/sim/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

struct CudaSimGraph {
  std::shared_ptr<std::vector<std::function<void()>>> work;
};
struct CudaSimStream {
  std::shared_ptr<std::vector<std::function<void()>>> recording;
};
struct CudaSimEvent {};

namespace nd::cuda::sim {
namespace {

struct Memory {
  std::mutex lock;
  std::map<const char*, size_t> blocks;
  size_t used = 0, limit = size_t{16} << 30;
};
Memory& memory() {
  static Memory only;
  return only;
}

}  // namespace

Range findAllocation(const void* at) {
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  const char* address = static_cast<const char*>(at);
  auto next = m.blocks.upper_bound(address);
  if (next == m.blocks.begin()) return {};
  --next;
  if (address > next->first + next->second) return {};
  return {next->first, next->first + next->second};
}

bool addMemory(void* at, size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  if (m.used + bytes > m.limit) return false;
  m.used += bytes;
  const char* first = static_cast<const char*>(at);
  auto next = m.blocks.lower_bound(first);
  if (next != m.blocks.begin())
    if (const auto before = std::prev(next); before->first + before->second == first) {
      before->second += bytes;
      return true;
    }
  m.blocks[first] = bytes;
  return true;
}
void removeMemory(void* at, size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  m.used -= bytes;
  m.blocks.erase(static_cast<const char*>(at));  // of a joined range: with its first part
}

void setMemoryLimit(size_t bytes) {
  const std::lock_guard lock(memory().lock);
  memory().limit = bytes;
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (stream && stream->recording)
    stream->recording->push_back(std::move(work));
  else
    work();
}

}  // namespace nd::cuda::sim

using namespace nd::cuda::sim;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    default:
      return "cudaError";
  }
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidValue; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::snprintf(p->name, sizeof p->name, "simulated GPU");
  p->totalGlobalMem = memory().limit;
  p->major = 8, p->minor = 0, p->multiProcessorCount = 4;  // few, so that small tests fill several waves
  p->sharedMemPerBlockOptin = 227 << 10, p->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  return *total = m.limit, *free = m.limit > m.used ? m.limit - m.used : 0, cudaSuccess;
}

cudaError_t cudaMalloc(void** data, size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  *data = nullptr;
  if (m.used + bytes > m.limit) return cudaErrorMemoryAllocation;
  // Exactly as many bytes as were asked for, so that AddressSanitizer sees the first one too many.
  if (posix_memalign(data, 256, bytes ? bytes : 1) != 0) return cudaErrorMemoryAllocation;
  std::memset(*data, 0xff, bytes);
  m.blocks[static_cast<char*>(*data)] = bytes;
  m.used += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  if (!data) return cudaSuccess;
  Memory& m = memory();
  const std::lock_guard lock(m.lock);
  const auto found = m.blocks.find(static_cast<char*>(data));
  if (found == m.blocks.end()) return cudaErrorInvalidValue;
  m.used -= found->second;
  m.blocks.erase(found);
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  *data = std::malloc(bytes ? bytes : 1);
  return *data ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void* data) { return std::free(data), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  enqueue(stream, [=] { std::memmove(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t toPitch, const void* from, size_t fromPitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  enqueue(stream, [=] {
    for (size_t i = 0; i < height; i++)
      std::memmove(static_cast<char*>(to) + i * toPitch, static_cast<const char*>(from) + i * fromPitch,
                   width);
  });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return *stream = new CudaSimStream, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream && stream->recording ? cudaErrorInvalidValue
                                     : cudaSuccess;  // as the driver refuses it in a capture
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = new CudaSimEvent, cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  return *milliseconds = 0, cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->recording) return cudaErrorInvalidValue;
  stream->recording = std::make_shared<std::vector<std::function<void()>>>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream || !stream->recording) return cudaErrorInvalidValue;
  *graph = new CudaSimGraph{std::move(stream->recording)};
  stream->recording = nullptr;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return *exec = new CudaSimGraph(*graph), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  enqueue(stream, [work = exec->work] {
    for (const auto& step : *work) step();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  info->result = 0;
  if (exec->work->size() != graph->work->size()) return cudaErrorGraphExecUpdateFailure;
  exec->work = graph->work;
  return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void*, size_t* count) {
  return *count = graph->work->size(), cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
