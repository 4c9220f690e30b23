#include "cpu/thread-pool.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "engine/error.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace nd {

namespace {

// Operations follow each other within microseconds, a futex wake-up costs tens of them: look around for about
// 50 µs before sleeping. Longer spinning would steal the core from JavaScript between steps.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
int readNumber(const std::string& path, int fallback) {
  int value = fallback;
  if (FILE* f = std::fopen(path.c_str(), "r")) {
    if (std::fscanf(f, "%d", &value) != 1) value = fallback;
    std::fclose(f);
  }
  return value;
}
#endif

#if defined(__linux__)
std::string firstLine(const char* path) {
  char line[64] = {};
  if (FILE* f = std::fopen(path, "r")) {
    if (!std::fgets(line, sizeof line, f)) line[0] = 0;
    std::fclose(f);
  }
  return line;
}
#endif

}  // namespace

int grantedCores(const std::string& cpuMax) {
  long long quota = 0, period = 0;
  if (std::sscanf(cpuMax.c_str(), "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
  return static_cast<int>((quota + period - 1) / period);
}

int physicalCores() {
#if defined(__linux__)
  const int granted = grantedCores(firstLine("/sys/fs/cgroup/cpu.max"));
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    std::set<std::pair<int, int>> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
      if (!CPU_ISSET(cpu, &mask)) continue;
      const std::string folder = format("/sys/devices/system/cpu/cpu%d/topology/", cpu);
      cores.insert({readNumber(folder + "physical_package_id", 0), readNumber(folder + "core_id", cpu)});
    }
    const int count = static_cast<int>(cores.size());
    if (count) return granted ? std::min(granted, count) : count;
  }
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? static_cast<int>(n) : 1;
}

ThreadPool::ThreadPool(int threads) {
  if (threads <= 0) threads = physicalCores();
  try {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    const int started = this->threads();
    stop_ = true;
    generation_.fetch_add(1);
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    throw Error(
        ErrorCode::OutOfMemory,
        format("Expected to start %d threads but the system refused after %d. Pass a smaller `threads`.",
               threads, started));
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  {
    std::lock_guard lock(mutex_);
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::drain(int thread) {
  try {
    for (;;) {
      const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks_) return;
      call_(body_, task, thread);
    }
  } catch (...) {
    std::lock_guard lock(mutex_);
    if (!failed_.exchange(true)) error_ = std::current_exception();
    next_.store(tasks_, std::memory_order_relaxed);
  }
}

void ThreadPool::run(int64_t tasks, Call call, void* body) {
  if (tasks <= 0) return;
  if (workers_.empty() || tasks == 1) {
    for (int64_t task = 0; task < tasks; task++) call(body, task, 0);
    return;
  }
  call_ = call, body_ = body, tasks_ = tasks;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);  // a worker between its check and its sleep must not miss this
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  drain(0);
  for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; spin++) {
    if (spin < kSpins) {
      relax();
    } else {
      std::unique_lock lock(mutex_);
      done_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
    }
  }
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; spin++) relax();
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
    }
    if (stop_) return;
    seen++;  // every worker takes part in every job, so generations are seen one by one
    drain(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      { std::lock_guard lock(mutex_); }
      done_.notify_one();
    }
  }
}

}  // namespace nd
