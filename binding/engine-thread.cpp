#include "binding/engine-thread.h"

#include "binding/js-error.h"

namespace nd::binding {

namespace {
void stopHook(void* thread) { static_cast<EngineThread*>(thread)->endWithEnvironment(); }
}  // namespace

EngineThread::EngineThread(Napi::Env env, EngineState state, std::function<void(bool busy)> onBusy)
    : state_(std::move(state)), env_(env), onBusy_(std::move(onBusy)) {
  const auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  toJs_ = Napi::ThreadSafeFunction::New(env, nothing, "node-diffusion", 0, 1);
  toJs_.Unref(env);  // an idle session does not keep the process alive
  // Hooks run last in, first out: this one joins the thread before the function above is torn down, so that a
  // worker that ends in the middle of a job leaves nobody behind who calls into it.
  napi_add_env_cleanup_hook(env, stopHook, this);
  thread_ = std::thread([this] { loop(); });
}

EngineThread::~EngineThread() {
  if (environmentEnded_) return;
  napi_remove_env_cleanup_hook(env_, stopHook, this);
  stop();
  toJs_.Release();
}

void EngineThread::endWithEnvironment() {
  stop();
  environmentEnded_ = true;
}

void EngineThread::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (running_) running_->abort = true;
    for (const auto& job : queue_) job->abort = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void EngineThread::submit(std::shared_ptr<Job> job) {
  if (pending_++ == 0) {
    toJs_.Ref(env_);
    onBusy_(true);
  }
  job->post = [this](std::function<void(Napi::Env)> body) { post(std::move(body)); };
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
  }
  wake_.notify_all();
}

void EngineThread::post(std::function<void(Napi::Env)> body) {
  auto* boxed = new std::function<void(Napi::Env)>(std::move(body));
  const napi_status status =
      toJs_.NonBlockingCall(boxed, [](Napi::Env env, Napi::Function, std::function<void(Napi::Env)>* call) {
        const std::unique_ptr<std::function<void(Napi::Env)>> owned(call);
        if (env != nullptr) (*call)(env);
      });
  if (status != napi_ok) delete boxed;  // JavaScript is going away; nobody waits for the answer
}

void EngineThread::settle(Napi::Env env, Job& job) {
  Napi::HandleScope scope(env);
  job.onStep.Reset();
  try {
    if (job.error) {
      job.deferred.Reject(jsError(env, job.error->code, job.error->what()).Value());
    } else {
      job.deferred.Resolve(job.result(env));
    }
  } catch (const Napi::Error& e) {
    job.deferred.Reject(e.Value());
  } catch (...) {
    job.deferred.Reject(jsError(env, ErrorCode::Internal, asError(std::current_exception()).what()).Value());
  }
  if (--pending_ == 0) {
    toJs_.Unref(env);
    onBusy_(false);
  }
}

void EngineThread::loop() {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopping, and every job has been answered
      job = queue_.front();
      queue_.pop_front();
      running_ = job;
    }
    try {
      if (job->abort) throw Error(ErrorCode::Aborted, "aborted before it began");
      Context context{*state_.backend, *state_.arena, &job->abort,
                      state_.profiling ? &state_.profile : nullptr};
      if (job->adapters) state_.parts.use(context, state_.models, *job->adapters);
      job->run(context, state_);
    } catch (...) {
      job->error.emplace(asError(std::current_exception()));
    }
    {
      std::lock_guard lock(mutex_);
      running_.reset();
    }
    Job* raw = job.get();
    post([this, job = std::move(job), raw](Napi::Env env) { settle(env, *raw); });
  }
}

}  // namespace nd::binding
