// The engine's threads: every task once, exceptions, reuse.
#include "cpu/thread-pool.h"

#include <stdexcept>

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

}  // namespace nd
