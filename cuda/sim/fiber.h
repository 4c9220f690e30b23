// Cooperative fibers: the threads of a simulated block. A switch saves the callee-saved registers of the C
// calling convention and exchanges the stack pointer; x86-64 and AArch64.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace nd::cuda::sim {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes the next resume() start body(argument). `body` must end with finish(), and must not throw.
  void prepare(void (*body)(void*), void* argument);
  /// Runs the fiber until it yields or finishes. From outside of any fiber.
  void resume();
  /// Back to resume(). From inside.
  void yield();

 private:
  friend void fiberEntry();
  void* stackPointer_ = nullptr;   // of the suspended fiber
  void* callerPointer_ = nullptr;  // of whoever resumed it
  void* memory_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  void* fakeStack_ = nullptr;          // AddressSanitizer's
  const void* callerStack_ = nullptr;  // AddressSanitizer's
  size_t callerSize_ = 0;
};

}  // namespace nd::cuda::sim
