// The engine's own threads: threads − 1 workers and the caller, which takes part; with one thread nothing
// else is started. Tasks are handed out by an atomic counter, so uneven tasks balance themselves. Threads are
// not tied to processors: pipelines that run at the same time, each with threads of its own, would be tied to
// the same ones.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace nd {

/// Physical cores that this process may run on, at least 1: two threads of one core count once, the affinity
/// mask and a container's share of processor time (cgroup v2, rounded up) bound them.
int physicalCores();

/// Cores that a line of cpu.max grants, "150000 100000" → 2; 0 where it grants all ("max 100000") or is none.
int grantedCores(const std::string& cpuMax);

class ThreadPool {
 public:
  /// `threads` 0: physicalCores(). Throws Error(OutOfMemory) where the system refuses a thread.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Runs body(task, thread) for every task in 0..tasks−1; thread is in 0..threads()−1 and names the scratch
  /// that the call may use. Returns when all are done; a worker that the system has not woken by then is not
  /// waited for. The first exception is rethrown here (tasks not yet begun are dropped). One caller at a
  /// time; bodies must not call it again. With one thread or one task nothing leaves the caller's thread.
  template <class Body>
  void parallelFor(int64_t tasks, Body&& body) {
    run(
        tasks,
        [](void* b, int64_t task, int thread) {
          (*static_cast<std::remove_reference_t<Body>*>(b))(task, thread);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void* body, int64_t task, int thread);
  void run(int64_t tasks, Call call, void* body);
  void work(int thread);
  void drain(int thread);
  void end();

  std::vector<std::thread> workers_;
  // The current job, written by run() while next_ is closed, read by whoever has claimed one of its tasks:
  // run() does not return before that task is done.
  Call call_ = nullptr;
  void* body_ = nullptr;
  std::atomic<uint32_t> tasks_{0};
  // The job's number in the high half, the next task in the low one (kClosed: none): a claim that comes late
  // finds another number and fails.
  alignas(64) std::atomic<uint64_t> next_;
  alignas(64) std::atomic<uint32_t> done_{0};  // tasks of this job
  alignas(64) std::atomic<int> sleeping_{0};   // workers that need a wake-up
  std::atomic<bool> waiting_{false};           // the caller does
  std::atomic<bool> stop_{false}, failed_{false};
  std::exception_ptr error_;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
};

}  // namespace nd
