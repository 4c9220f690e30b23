// Device memory with the sizes in its errors, addresses that take memory as they are needed, and page-locked
// host memory for copies that nobody waits for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda/launch.h"

namespace nd::cuda {

/// Memory of the current device, 256-byte aligned. Throws Error(OutOfMemory) that says how much was wanted
/// and how much there is, and leaves the runtime as if nothing had been asked for.
void* allocateDevice(size_t bytes, const std::string& purpose);
[[noreturn]] void outOfMemory(size_t bytes, const std::string& purpose);

class DeviceBlock {
 public:
  DeviceBlock() = default;
  DeviceBlock(size_t bytes, const std::string& purpose)
      : data_(allocateDevice(bytes, purpose)), bytes_(bytes) {}
  ~DeviceBlock() { release(); }
  DeviceBlock(DeviceBlock&& o) noexcept : data_(o.data_), bytes_(o.bytes_) {
    o.data_ = nullptr, o.bytes_ = 0;
  }
  DeviceBlock& operator=(DeviceBlock&& o) noexcept {
    std::swap(data_, o.data_), std::swap(bytes_, o.bytes_);
    return *this;
  }
  char* data() const { return static_cast<char*>(data_); }
  size_t bytes() const { return bytes_; }
  void release() {
    if (data_) cudaFree(data_);
    data_ = nullptr, bytes_ = 0;
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Page-locked host memory: copies from and to it run beside the program.
class HostBlock {
 public:
  HostBlock() = default;
  explicit HostBlock(size_t bytes);
  ~HostBlock() {
    if (data_) cudaFreeHost(data_);
  }
  HostBlock(HostBlock&& o) noexcept : data_(o.data_) { o.data_ = nullptr; }
  HostBlock& operator=(HostBlock&& o) noexcept {
    std::swap(data_, o.data_);
    return *this;
  }
  char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A place in a stream that can be waited for; waiting for one that was never set returns at once.
class Event {
 public:
  Event() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void wait() { check(cudaEventSynchronize(event_), "the GPU failed"); }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Addresses of which the first `committed` bytes are memory. The arena of the models lies in one: it grows
/// in place, so nothing has to be sized beforehand, nothing fragments, and every step finds its tensors at
/// the same addresses.
class AddressRange {
 public:
  /// As many bytes as the device has memory; null where the driver has no virtual memory management.
  static std::unique_ptr<AddressRange> reserve(int device, size_t bytes);
  ~AddressRange();
  AddressRange(const AddressRange&) = delete;
  AddressRange& operator=(const AddressRange&) = delete;
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  size_t committed() const { return committed_; }
  /// Throws Error(OutOfMemory); what is committed stays.
  void commit(size_t bytes);

 private:
  AddressRange(int device, void* data, size_t bytes, size_t granularity)
      : device_(device), data_(data), bytes_(bytes), granularity_(granularity) {}
  struct Part {
    size_t offset, bytes;
    uint64_t handle;
  };
  bool add(size_t bytes);

  int device_;
  void* data_;
  size_t bytes_, granularity_, committed_ = 0;
  std::vector<Part> parts_;
};

/// Small host arrays on their way to the device: a ring of page-locked segments, each with memory on the
/// device behind it. What is staged stays until the ring has come round, which waits for the stream only
/// then.
class StagingRing {
 public:
  static constexpr size_t kSegmentBytes = size_t{1} << 20;
  explicit StagingRing(cudaStream_t stream);
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  struct Slot {
    char *host, *device;
  };
  /// Room for up to kSegmentBytes, 256-byte aligned. The caller fills host and copies it in the stream.
  Slot take(size_t bytes);
  /// Copies `bytes` of host memory into the stream; returns where they are on the device.
  const void* stage(const void* host, size_t bytes);
  /// Host → `device`, any number of bytes; the host's are free when it returns.
  void upload(const void* host, void* device, size_t bytes);
  /// Device → host; waits.
  void download(const void* device, void* host, size_t bytes);
  size_t deviceBytes() const { return device_.bytes(); }

 private:
  static constexpr int kSegments = 4;
  void advance();
  cudaStream_t stream_;
  HostBlock host_;
  DeviceBlock device_;
  Event used_[kSegments];
  int segment_ = 0;
  size_t offset_ = 0;
};

}  // namespace nd::cuda
