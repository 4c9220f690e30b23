#include "binding/session.h"

#include "binding/control-jobs.h"
#include "binding/convert.h"
#include "binding/jobs.h"
#include "binding/js-error.h"

namespace nd::binding {

Napi::Function Session::define(Napi::Env env) {
  return DefineClass(env, "Session",
                     {
                         InstanceMethod<&Session::load>("load"),
                         InstanceMethod<&Session::encodeText>("encodeText"),
                         InstanceMethod<&Session::encodeImages>("encodeImages"),
                         InstanceMethod<&Session::unloadIpAdapters>("unloadIpAdapters"),
                         InstanceMethod<&Session::predict>("predict"),
                         InstanceMethod<&Session::vaeEncode>("vaeEncode"),
                         InstanceMethod<&Session::vaeDecode>("vaeDecode"),
                         InstanceMethod<&Session::loadControl>("loadControl"),
                         InstanceMethod<&Session::unloadControl>("unloadControl"),
                         InstanceMethod<&Session::predictControl>("predictControl"),
                         InstanceMethod<&Session::adapterMaps>("adapterMaps"),
                         InstanceMethod<&Session::encodePictures>("encodePictures"),
                         InstanceMethod<&Session::decodePictures>("decodePictures"),
                         InstanceMethod<&Session::generate>("generate"),
                         InstanceMethod<&Session::unconditional>("unconditional"),
                         InstanceMethod<&Session::predictUnconditional>("predictUnconditional"),
                         InstanceMethod<&Session::addAdapter>("addAdapter"),
                         InstanceMethod<&Session::removeAdapter>("removeAdapter"),
                         InstanceMethod<&Session::useAdapters>("useAdapters"),
                         InstanceMethod<&Session::applyAdapters>("applyAdapters"),
                         InstanceMethod<&Session::setAddedTokens>("setAddedTokens"),
                         InstanceMethod<&Session::unload>("unload"),
                         InstanceMethod<&Session::profile>("profile"),
                         InstanceMethod<&Session::memory>("memory"),
                         InstanceMethod<&Session::description>("description"),
                     });
}

Session::Session(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Session>(info) {
  guarded(info.Env(), [&] {
    const Napi::Object options = info[0].As<Napi::Object>();
    const std::string device = string(options, "device");
    EngineState state;
    if (device.rfind("cuda:", 0) == 0)
      state.backend = makeCudaBackend(std::stoi(device.substr(5)),
                                      string(options, "dtype") == "bfloat16" ? DType::BF16 : DType::F16);
    else
      state.backend = makeCpuBackend(static_cast<int>(integer(options, "threads")), {},
                                     string(options, "dtype") == "bfloat16" ? DType::BF16 : DType::F32);
    state.arena = std::make_unique<Arena>(*state.backend);
    name_ = state.backend->name();
    description_ = state.backend->description();
    engine_ = std::make_unique<EngineThread>(info.Env(), std::move(state), [this](bool busy) {
      if (busy)
        Ref();  // a session with work to do is not collected
      else
        Unref();
    });
  });
}

Napi::Value Session::submit(std::shared_ptr<Job> job) {
  const Napi::Promise promise = job->deferred.Promise();
  engine_->submit(std::move(job));
  return promise;
}

Napi::Value Session::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(loadJob(info)); });
}
Napi::Value Session::encodeText(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(adapted(encodeTextJob(info))); });
}
Napi::Value Session::encodeImages(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(encodeImagesJob(info)); });
}
Napi::Value Session::unloadIpAdapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(unloadIpAdaptersJob(info)); });
}
Napi::Value Session::predict(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(adapted(predictJob(info))); });
}
Napi::Value Session::vaeEncode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(vaeJob(info, /*encode=*/true)); });
}
Napi::Value Session::vaeDecode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(vaeJob(info, /*encode=*/false)); });
}
Napi::Value Session::loadControl(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(loadControlJob(info)); });
}
Napi::Value Session::unloadControl(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(unloadControlJob(info)); });
}
Napi::Value Session::predictControl(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(predictControlJob(info)); });
}
Napi::Value Session::adapterMaps(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(adapterMapsJob(info)); });
}
Napi::Value Session::encodePictures(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(encodePicturesJob(info)); });
}
Napi::Value Session::decodePictures(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(decodePicturesJob(info)); });
}
std::shared_ptr<Job> Session::adapted(std::shared_ptr<Job> job) {
  job->adapters = adapters_;
  return job;
}

Napi::Value Session::addAdapter(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(addAdapterJob(info)); });
}
Napi::Value Session::removeAdapter(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(removeAdapterJob(info)); });
}
Napi::Value Session::applyAdapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(adapted(applyAdaptersJob(info))); });
}
Napi::Value Session::setAddedTokens(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(setAddedTokensJob(info)); });
}

Napi::Value Session::useAdapters(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    std::vector<AdapterUse> uses;
    const auto list = info[0].As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); i++) {
      const auto o = list.Get(i).As<Napi::Object>();
      uses.push_back({static_cast<uint32_t>(integer(o, "id")), number(o, "unet"), number(o, "textEncoder")});
    }
    adapters_ = std::move(uses);
    return info.Env().Undefined();
  });
}

Napi::Value Session::unload(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(unloadJob(info)); });
}
Napi::Value Session::profile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(profileJob(info)); });
}
Napi::Value Session::memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(memoryJob(info)); });
}

Napi::Value Session::submitAbortable(Napi::Env env, const std::shared_ptr<Job>& job) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("abort", Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->abort = true; }));
  out.Set("promise", submit(job));
  return out;
}
Napi::Value Session::generate(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submitAbortable(info.Env(), adapted(generateJobOf(info))); });
}
Napi::Value Session::unconditional(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submitAbortable(info.Env(), unconditionalJobOf(info)); });
}

Napi::Value Session::predictUnconditional(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return submit(predictUnconditionalJob(info)); });
}

Napi::Value Session::description(const Napi::CallbackInfo& info) {
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("name", name_);
  out.Set("description", description_);
  return out;
}

}  // namespace nd::binding
