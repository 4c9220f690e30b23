#include "cuda/sim/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ND_ASAN 1
#endif

extern "C" void nd_sim_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl nd_sim_switch
.hidden nd_sim_switch
.type nd_sim_switch,@function
nd_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size nd_sim_switch,.-nd_sim_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl nd_sim_switch
.hidden nd_sim_switch
.type nd_sim_switch,%function
nd_sim_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size nd_sim_switch,.-nd_sim_switch
)");
#else
#error "the CUDA simulator needs a context switch for this architecture"
#endif

namespace nd::cuda::sim {
namespace {

#ifdef ND_ASAN
constexpr size_t kStackBytes = 512 << 10;  // its frames are larger
#else
constexpr size_t kStackBytes = 128 << 10;  // touched pages only take memory
#endif

Fiber* starting = nullptr;  // handed to fiberEntry()

}  // namespace

void fiberEntry() {
  Fiber* self = starting;
#ifdef ND_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &self->callerStack_, &self->callerSize_);
#endif
  self->body_(self->argument_);
  self->yield();  // finished: never resumed
  __builtin_unreachable();
}

Fiber::Fiber() {
  memory_ =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
}
Fiber::~Fiber() { munmap(memory_, kStackBytes); }

void Fiber::prepare(void (*body)(void*), void* argument) {
  body_ = body, argument_ = argument;
  auto* top = static_cast<char*>(memory_) + kStackBytes;
#ifdef ND_ASAN
  __asan_unpoison_memory_region(memory_, kStackBytes);
  fakeStack_ = nullptr;
#endif
#if defined(__x86_64__)
  // Six registers and the return address; a function starts with the stack 8 bytes off a multiple of 16.
  auto** frame = reinterpret_cast<void**>(top - 64);
  std::memset(frame, 0, 64);
  frame[6] = reinterpret_cast<void*>(&fiberEntry);
#else
  auto** frame = reinterpret_cast<void**>(top - 160);
  std::memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(&fiberEntry);  // x30
#endif
  stackPointer_ = frame;
}

void Fiber::resume() {
  starting = this;
#ifdef ND_ASAN
  void* fake;
  __sanitizer_start_switch_fiber(&fake, memory_, kStackBytes);
#endif
  nd_sim_switch(&callerPointer_, stackPointer_);
#ifdef ND_ASAN
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Fiber::yield() {
#ifdef ND_ASAN
  __sanitizer_start_switch_fiber(&fakeStack_, callerStack_, callerSize_);
#endif
  nd_sim_switch(&stackPointer_, callerPointer_);
#ifdef ND_ASAN
  __sanitizer_finish_switch_fiber(fakeStack_, &callerStack_, &callerSize_);
#endif
}

}  // namespace nd::cuda::sim
