#include "cuda/memory.h"

#include <algorithm>
#include <cstring>

#include "cuda/virtual-memory.h"

namespace nd::cuda {

namespace {
constexpr size_t kGrowth = size_t{32} << 20;  // few calls of the driver, little memory too many
constexpr size_t kSlotAlignment = 256;
size_t roundedUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
}  // namespace

void outOfMemory(size_t bytes, const std::string& purpose) {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
  throw Error(ErrorCode::OutOfMemory,
              format("Expected %zu MB of GPU memory for %s but only %zu MB of %zu MB are free: use a smaller "
                     "picture, fewer "
                     "images at once, or device 'cpu'",
                     (bytes + (1 << 20) - 1) >> 20, purpose.c_str(), free >> 20, total >> 20));
}

void* allocateDevice(size_t bytes, const std::string& purpose) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, std::max<size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // or the next call would report it
    outOfMemory(bytes, purpose);
  }
  check(error, "cudaMalloc");
  return data;
}

std::unique_ptr<AddressRange> AddressRange::reserve(int device, size_t bytes) {
  const size_t granularity = virtualMemoryGranularity(device);
  if (granularity == 0) return nullptr;
  bytes = bytes / granularity * granularity;
  void* data = reserveAddresses(bytes);
  if (!data) return nullptr;
  return std::unique_ptr<AddressRange>(new AddressRange(device, data, bytes, granularity));
}

AddressRange::~AddressRange() {
  cudaDeviceSynchronize();  // nothing that runs may lose its memory
  for (const Part& part : parts_)
    releaseMemory(static_cast<char*>(data_) + part.offset, part.bytes, part.handle);
  releaseAddresses(data_, bytes_);
}

bool AddressRange::add(size_t bytes) {
  uint64_t handle = 0;
  if (!backAddresses(device_, static_cast<char*>(data_) + committed_, bytes, handle)) return false;
  parts_.push_back({committed_, bytes, handle});
  committed_ += bytes;
  return true;
}

void AddressRange::commit(size_t bytes) {
  if (bytes <= committed_) return;
  const size_t needed = roundedUp(bytes, granularity_) - committed_;
  const size_t wanted = std::min(roundedUp(std::max(needed, kGrowth), granularity_), bytes_ - committed_);
  if (bytes > bytes_ || (!add(wanted) && (wanted == needed || !add(needed))))
    outOfMemory(bytes, "activations");
}

HostBlock::HostBlock(size_t bytes) {
  if (const cudaError_t error = cudaMallocHost(&data_, bytes); error != cudaSuccess) {
    cudaGetLastError();
    throw Error(ErrorCode::OutOfMemory, format("cannot lock %zu MB of host memory for transfers: %s",
                                               bytes >> 20, cudaGetErrorString(error)));
  }
}

StagingRing::StagingRing(cudaStream_t stream)
    : stream_(stream), host_(kSegments * kSegmentBytes), device_(kSegments * kSegmentBytes, "transfers") {}

void StagingRing::advance() {
  used_[segment_].record(stream_);
  segment_ = (segment_ + 1) % kSegments;
  offset_ = 0;
  used_[segment_].wait();
}

StagingRing::Slot StagingRing::take(size_t bytes) {
  expect(bytes <= kSegmentBytes, "cuda: staging of at most one segment");
  if (offset_ + bytes > kSegmentBytes) advance();
  const size_t at = static_cast<size_t>(segment_) * kSegmentBytes + offset_;
  offset_ += roundedUp(std::max<size_t>(bytes, 1), kSlotAlignment);
  return {host_.data() + at, device_.data() + at};
}

const void* StagingRing::stage(const void* host, size_t bytes) {
  const Slot slot = take(bytes);
  if (bytes == 0) return slot.device;
  std::memcpy(slot.host, host, bytes);
  check(cudaMemcpyAsync(slot.device, slot.host, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  return slot.device;
}

void StagingRing::upload(const void* host, void* device, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const size_t part = std::min(bytes - done, kSegmentBytes);
    const Slot slot = take(part);
    std::memcpy(slot.host, static_cast<const char*>(host) + done, part);
    check(
        cudaMemcpyAsync(static_cast<char*>(device) + done, slot.host, part, cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync");
    done += part;
  }
}

void StagingRing::download(const void* device, void* host, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const size_t part = std::min(bytes - done, kSegmentBytes);
    const Slot slot = take(part);
    check(cudaMemcpyAsync(slot.host, static_cast<const char*>(device) + done, part, cudaMemcpyDeviceToHost,
                          stream_),
          "cudaMemcpyAsync");
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    std::memcpy(static_cast<char*>(host) + done, slot.host, part);
    done += part;
  }
}

}  // namespace nd::cuda
