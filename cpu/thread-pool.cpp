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
constexpr uint32_t kClosed = 0xffffffff;

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

ThreadPool::ThreadPool(int threads) : next_(kClosed) {
  if (threads <= 0) threads = physicalCores();
  try {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::system_error&) {
    const int started = this->threads();
    end();
    throw Error(
        ErrorCode::OutOfMemory,
        format("Expected to start %d threads but the system refused after %d. Pass a smaller `threads`.",
               threads, started));
  }
}

ThreadPool::~ThreadPool() { end(); }

void ThreadPool::end() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

/// Claims tasks of the current job and runs them, until there are none left.
void ThreadPool::drain(int thread) {
  uint64_t at = next_.load(std::memory_order_acquire);
  for (;;) {
    const auto task = static_cast<uint32_t>(at);
    const uint32_t tasks = tasks_.load(std::memory_order_relaxed);
    if (task >= tasks) return;  // kClosed is more than any number of tasks
    if (!next_.compare_exchange_weak(at, at + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        call_(body_, task, thread);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
    }
    // Either this sees that the caller sleeps, or the caller sees that the last task is done.
    if (done_.fetch_add(1) + 1 == tasks && waiting_.load()) {
      { const std::lock_guard lock(mutex_); }
      finished_.notify_one();
    }
    at = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::run(int64_t tasks, Call call, void* body) {
  if (tasks <= 0) return;
  if (workers_.empty() || tasks == 1) {
    for (int64_t task = 0; task < tasks; task++) call(body, task, 0);
    return;
  }
  expect(tasks < static_cast<int64_t>(kClosed), "fewer than 2^32 − 1 tasks");
  const auto count = static_cast<uint32_t>(tasks);
  call_ = call, body_ = body;
  tasks_.store(count, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  const uint64_t job = (next_.load(std::memory_order_relaxed) >> 32) + 1;
  // Either this sees that a worker sleeps, or the worker sees the job before it does.
  next_.store(job << 32);
  if (sleeping_.load() > 0) {
    { const std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  drain(0);
  for (int spin = 0; spin < kSpins && done_.load(std::memory_order_acquire) != count; spin++) relax();
  if (done_.load(std::memory_order_acquire) != count) {
    std::unique_lock lock(mutex_);
    waiting_ = true;
    finished_.wait(lock, [&] { return done_.load() == count; });
    waiting_ = false;
  }
  next_.store(job << 32 | kClosed, std::memory_order_release);
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;  // number of the last job
  const auto news = [&] { return next_.load() >> 32 != seen || stop_.load(); };
  for (;;) {
    for (int spin = 0; spin < kSpins && !news(); spin++) relax();
    if (!news()) {
      std::unique_lock lock(mutex_);
      sleeping_++;
      wake_.wait(lock, news);
      sleeping_--;
    }
    if (stop_) return;
    seen = next_.load() >> 32;
    drain(thread);
  }
}

}  // namespace nd
