// The engine's own thread: jobs of one session run on it one after another, in the order of their calls,
// while JavaScript's thread stays free.
#pragma once

#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/generate.h"
#include "engine/model-parts.h"

namespace nd::binding {

/// Everything native that a session owns; touched by its engine thread only.
struct EngineState {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Arena> arena;  // after backend: destroyed before it
  Models models;
  ModelParts parts;  // what the models were built from
  Profile profile;
  bool profiling = false;
};

/// One call: plain data in, run() without JavaScript, result() back on JavaScript's thread.
class Job {
 public:
  explicit Job(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}
  /// A job that never settled dies with JavaScript: its handle must not be touched then.
  virtual ~Job() { onStep.SuppressDestruct(); }
  virtual void run(Context&, EngineState&) = 0;
  virtual Napi::Value result(Napi::Env) = 0;

  Napi::Promise::Deferred deferred;  // JavaScript's thread only
  Napi::FunctionReference onStep;    // JavaScript's thread only; empty where nobody listens
  std::atomic<bool> abort{false};
  /// The adapters that the models must have when it runs; nothing where it does not care.
  std::optional<std::vector<AdapterUse>> adapters;
  std::optional<Error> error;
  /// Runs a function on JavaScript's thread; set before run().
  std::function<void(std::function<void(Napi::Env)>)> post;
};

class EngineThread {
 public:
  /// Takes the state over. On JavaScript's thread, which is told when the first job comes and the last one
  /// leaves.
  EngineThread(Napi::Env env, EngineState state, std::function<void(bool busy)> onBusy);
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  /// Queues a job; its promise settles when it has run. The process stays alive until then.
  void submit(std::shared_ptr<Job> job);
  /// Aborts what runs and waits, and joins the thread. Their promises reject with ERR_ND_ABORTED if
  /// JavaScript still runs.
  void stop();
  /// The same when the environment goes away: it tears the thread-safe function down by itself, possibly
  /// before the session that owns this is finalized, so that nothing here may touch it any more.
  void endWithEnvironment();

 private:
  void loop();
  void settle(Napi::Env, Job&);
  void post(std::function<void(Napi::Env)> body);

  EngineState state_;
  Napi::Env env_;
  std::function<void(bool busy)> onBusy_;
  Napi::ThreadSafeFunction toJs_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
  std::shared_ptr<Job> running_;
  bool stopping_ = false;
  bool environmentEnded_ = false;  // JavaScript's thread only
  size_t pending_ = 0;             // JavaScript's thread only
  std::thread thread_;
};

}  // namespace nd::binding
