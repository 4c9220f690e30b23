// The engine's threads: every task once, exceptions, reuse.
#include "cpu/thread-pool.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <stdexcept>
#include <thread>

#include "test/native/check.h"

namespace nd {

ND_TEST("threads: every task runs once, on a thread of the pool") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(tasks);
      std::atomic<bool> known{true};
      pool.parallelFor(tasks, [&](int64_t task, int thread) {
        runs[task]++;
        if (thread < 0 || thread >= threads) known = false;
      });
      CHECK(known);
      for (const auto& r : runs) CHECK(r == 1);
    }
  }
}

ND_TEST("threads: many short jobs one after the other") {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int job = 0; job < 5000; job++) pool.parallelFor(4, [&](int64_t task, int) { sum += task; });
  CHECK(sum == 5000 * 6);
}

ND_TEST("threads: an exception reaches the caller, and the pool lives on") {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; round++) {
      bool caught = false;
      try {
        pool.parallelFor(20, [&](int64_t task, int) {
          if (task == round % 20) throw Error(ErrorCode::Internal, "thrown in a task");
        });
      } catch (const Error& error) {
        caught = std::string(error.what()) == "thrown in a task";
      }
      CHECK(caught);
    }
    std::atomic<int> runs{0};
    pool.parallelFor(10, [&](int64_t, int) { runs++; });
    CHECK(runs == 10);
  }
}

ND_TEST("threads: 0 means the physical cores") {
  CHECK(physicalCores() >= 1);
  CHECK(ThreadPool(0).threads() == physicalCores());
}

ND_TEST("threads: what a container is granted, in whole cores") {
  CHECK(grantedCores("max 100000\n") == 0);
  CHECK(grantedCores("100000 100000\n") == 1);
  CHECK(grantedCores("150000 100000\n") == 2);
  CHECK(grantedCores("20000 100000\n") == 1);
  CHECK(grantedCores("") == 0);
  CHECK(grantedCores("-1 100000") == 0);
  CHECK(grantedCores("100000 0") == 0);
}

#if defined(__linux__)
ND_TEST("threads: one thread starts no other and runs everything in order on the caller's") {
  const auto running = [] {
    int64_t count = 0;
    for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) count++;
    return count;
  };
  const int64_t before = running();
  ThreadPool pool(1);
  CHECK(running() == before);
  const std::thread::id caller = std::this_thread::get_id();
  std::vector<int64_t> order;
  pool.parallelFor(100, [&](int64_t task, int thread) {
    CHECK(std::this_thread::get_id() == caller);
    CHECK(thread == 0);
    order.push_back(task);
  });
  CHECK(order.size() == 100);
  CHECK(std::is_sorted(order.begin(), order.end()));
  CHECK(running() == before);
  const ThreadPool three(3);
  CHECK(running() == before + 2);
}

ND_TEST("threads: a pool that has nothing to do sleeps") {
  ThreadPool pool(2);
  pool.parallelFor(4, [](int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // longer than it looks around
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(std::clock() - before < CLOCKS_PER_SEC / 20);  // spinning would take twice that
}
#endif

}  // namespace nd
