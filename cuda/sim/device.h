// What kernels use, on the host: cuda/tile/device.h with every access checked.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <source_location>

#include "cuda/sim/block.h"
#include "cuda/sim/half.h"
#include "cuda/sim/runtime.h"

#define ND_DEVICE inline
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __grid_constant__
#define __launch_bounds__(...)
#define threadIdx (::nd::cuda::sim::threadIndex)
#define blockIdx (::nd::cuda::sim::blockIndex)
#define blockDim (::nd::cuda::sim::blockSize)
#define gridDim (::nd::cuda::sim::gridSize)
/// The call site, as the last parameter of every wrapper that synchronises.
#define ND_AT const std::source_location& at = std::source_location::current()

inline float rsqrtf(float x) { return 1 / std::sqrt(x); }

namespace nd::cuda {

using std::max;
using std::min;

struct alignas(16) Vec16 {
  uint32_t w[4];
};
inline float bitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t floatToBits(float value) { return std::bit_cast<uint32_t>(value); }
inline double bitsToDouble(uint64_t bits) { return std::bit_cast<double>(bits); }
inline uint64_t doubleToBits(double value) { return std::bit_cast<uint64_t>(value); }

/// A pointer into an allocation of the simulated device.
template <class T>
class Global {
 public:
  Global() = default;
  Global(std::nullptr_t) {}
  Global(T* raw) : p_(raw), range_(raw ? sim::findAllocation(raw) : sim::Range()) {}
  explicit Global(const void* raw) : Global(static_cast<T*>(const_cast<void*>(raw))) {}
  template <class U>
  requires std::is_same_v<const U, T> Global(const Global<U>& o) : p_(o.raw()), range_(o.range()) {}

  T& operator[](int64_t i) const { return *(*this + i).checked(sizeof(T)); }
  T& operator*() const { return *checked(sizeof(T)); }
  Global operator+(int64_t i) const {
    Global g = *this;
    g.p_ += i;
    return g;
  }
  Global& operator+=(int64_t i) { return *this = *this + i; }
  explicit operator bool() const { return p_ != nullptr; }
  T* raw() const { return p_; }
  const sim::Range& range() const { return range_; }
  /// The pointer, if that many bytes may be accessed at once.
  T* checked(size_t bytes) const {
    const char* first = reinterpret_cast<const char*>(p_);
    if (!range_.first || first < range_.first || first + bytes > range_.end)
      sim::report("global access of " + std::to_string(bytes) + " bytes at offset " +
                  std::to_string(first - range_.first) + " of an allocation of " +
                  std::to_string(range_.end - range_.first));
    if (reinterpret_cast<uintptr_t>(first) % bytes != 0)
      sim::report("global access of " + std::to_string(bytes) + " bytes that is not aligned");
    return p_;
  }

 private:
  T* p_ = nullptr;
  sim::Range range_;
};

/// A pointer into the block's shared memory.
template <class T>
class Shared {
 public:
  class Element {
   public:
    explicit Element(T* p) : p_(p) {}
    operator std::remove_const_t<T>() const {
      sim::accessShared(p_, sizeof(T), sim::Access::Read);
      return *p_;
    }
    Element& operator=(const T& value) {
      sim::accessShared(p_, sizeof(T), sim::Access::Write);
      *p_ = value;
      return *this;
    }
    Element& operator=(const Element& o) { return *this = static_cast<T>(o); }
    Element& operator+=(const T& value) { return *this = static_cast<T>(*this) + value; }

   private:
    T* p_;
  };

  Shared() = default;
  Shared(T* p, const char* first, const char* end) : p_(p), first_(first), end_(end) {}
  template <class U>
  requires std::is_same_v<const U, T> Shared(const Shared<U>& o)
      : p_(o.raw()), first_(o.first()), end_(o.end()) {}
  Element operator[](int64_t i) const { return Element((*this + i).checked(sizeof(T))); }
  Element operator*() const { return (*this)[0]; }
  Shared operator+(int64_t i) const { return {p_ + i, first_, end_}; }
  Shared& operator+=(int64_t i) { return *this = *this + i; }
  T* raw() const { return p_; }
  const char* first() const { return first_; }
  const char* end() const { return end_; }
  T* checked(size_t bytes) const {
    const char* at = reinterpret_cast<const char*>(p_);
    if (at < first_ || at + bytes > end_)
      sim::report("shared access of " + std::to_string(bytes) + " bytes at offset " +
                  std::to_string(at - first_) + " of an array of " + std::to_string(end_ - first_));
    return p_;
  }

 private:
  T* p_ = nullptr;
  const char *first_ = nullptr, *end_ = nullptr;
};

template <class T>
Shared<T> shared(uint32_t offset, uint32_t count) {
  char* first = sim::sharedBase() + offset;
  if (offset + count * sizeof(T) > sim::sharedBytes())
    sim::report("a shared array beyond the block's shared memory");
  return {reinterpret_cast<T*>(first), first, first + count * sizeof(T)};
}

namespace sim {
template <class V, class T>
V load(Global<T> p) {
  V v;
  std::memcpy(&v, p.checked(sizeof(V)), sizeof(V));
  return v;
}
template <class V, class T>
V load(Shared<T> p) {
  accessShared(p.checked(sizeof(V)), sizeof(V), Access::Read);
  V v;
  std::memcpy(&v, p.raw(), sizeof(V));
  return v;
}
template <class V, class T>
void store(Global<T> p, const V& v) {
  std::memcpy(p.checked(sizeof(V)), &v, sizeof(V));
}
template <class V, class T>
void store(Shared<T> p, const V& v) {
  accessShared(p.checked(sizeof(V)), sizeof(V), Access::Write);
  std::memcpy(p.raw(), &v, sizeof(V));
}
}  // namespace sim

template <class P>
Vec16 load16(P p) {
  return sim::load<Vec16>(p);
}
template <class P>
void store16(P p, const Vec16& v) {
  sim::store(p, v);
}
template <class P>
uint32_t load4(P p) {
  return sim::load<uint32_t>(p);
}
template <class P>
void store4(P p, uint32_t word) {
  sim::store(p, word);
}
template <class P>
void store8(P p, uint32_t first, uint32_t second) {
  sim::store(p, first | static_cast<uint64_t>(second) << 32);
}

inline void syncThreads(ND_AT) { sim::barrier(0, 0, sim::siteOf(at, "syncThreads")); }
inline void syncWarp(ND_AT) { sim::warpBarrier(sim::siteOf(at, "syncWarp")); }
inline void namedBarrier(int id, int count, ND_AT) {
  sim::barrier(id, count, sim::siteOf(at, "namedBarrier"));
}

inline int laneId() { return sim::laneIndex(); }

namespace sim {
struct Exchange {
  uint32_t value, result;
  int source;
};
inline uint32_t exchange(uint32_t value, int source, const Site& site) {
  Exchange mine{value, 0, source};
  warpCollective(site, &mine, [](void** arguments, int count) {
    for (int lane = 0; lane < count; lane++) {
      auto* e = static_cast<Exchange*>(arguments[lane]);
      // A lane beyond the warp gives the own value back, as shfl does.
      e->result =
          static_cast<Exchange*>(arguments[e->source >= 0 && e->source < count ? e->source : lane])->value;
    }
  });
  return mine.result;
}
}  // namespace sim

template <class T>
T shuffle(T value, int lane, ND_AT) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(
      sim::exchange(std::bit_cast<uint32_t>(value), lane & 31, sim::siteOf(at, "shuffle")));
}
template <class T>
T shuffleXor(T value, int mask, ND_AT) {
  return std::bit_cast<T>(
      sim::exchange(std::bit_cast<uint32_t>(value), laneId() ^ mask, sim::siteOf(at, "shuffleXor")));
}
template <class T>
T shuffleDown(T value, int delta, ND_AT) {
  return std::bit_cast<T>(
      sim::exchange(std::bit_cast<uint32_t>(value), laneId() + delta, sim::siteOf(at, "shuffleDown")));
}
inline uint32_t ballot(bool value, ND_AT) {
  struct Vote {
    bool value;
    uint32_t result;
  } mine{value, 0};
  sim::warpCollective(sim::siteOf(at, "ballot"), &mine, [](void** arguments, int count) {
    uint32_t bits = 0;
    for (int lane = 0; lane < count; lane++)
      if (static_cast<Vote*>(arguments[lane])->value) bits |= 1u << lane;
    for (int lane = 0; lane < count; lane++) static_cast<Vote*>(arguments[lane])->result = bits;
  });
  return mine.result;
}

template <class T>
T atomicAdd(Global<T> p, T value) {
  T* at = p.checked(sizeof(T));
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicAdd(Shared<T> p, T value) {
  T* at = p.checked(sizeof(T));
  sim::accessShared(at, sizeof(T), sim::Access::Atomic);
  const T old = *at;
  *at = old + value;
  return old;
}

inline float fastExp(float x) { return std::exp(x); }
inline float fastExp2(float x) { return std::exp2(x); }
inline float fastDivide(float a, float b) { return a / b; }

}  // namespace nd::cuda
