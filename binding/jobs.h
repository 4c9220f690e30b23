// The jobs of a session: each reads its arguments on JavaScript's thread and runs without JavaScript.
#pragma once

#include <memory>

#include "binding/engine-thread.h"

namespace nd::binding {

// load-jobs.cpp
std::shared_ptr<Job> loadJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> addAdapterJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> removeAdapterJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> applyAdaptersJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> setAddedTokensJob(const Napi::CallbackInfo&);
// jobs.cpp
std::shared_ptr<Job> encodeTextJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> unloadIpAdaptersJob(const Napi::CallbackInfo&);  // clip-jobs.cpp
std::shared_ptr<Job> encodeImagesJob(const Napi::CallbackInfo&);      // clip-jobs.cpp
std::shared_ptr<Job> predictJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> vaeJob(const Napi::CallbackInfo&, bool encode);
/// Puts the loaded network where it belongs.
using ModelBuilder = std::function<void(Models&, const WeightLoader&)>;
/// Autoencoders and UNet2DModel, for load(). around-jobs.cpp
ModelBuilder aroundBuilder(const std::string& component, const Napi::Object& config);
/// CLIP's image tower and IP-Adapters, for load(). clip-jobs.cpp
ModelBuilder imagePromptBuilder(const std::string& component, const Napi::Object& config);
/// Calls the job's listener with a step. around-jobs.cpp
void emitStep(Napi::Env, Job&, const GenerateEvent&, const Shape& latents);
std::shared_ptr<Job> unconditionalJobOf(const Napi::CallbackInfo&);       // around-jobs.cpp
std::shared_ptr<Job> predictUnconditionalJob(const Napi::CallbackInfo&);  // around-jobs.cpp
// picture-jobs.cpp
std::shared_ptr<Job> encodePicturesJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> decodePicturesJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> generateJobOf(const Napi::CallbackInfo&);
std::shared_ptr<Job> unloadJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> profileJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> memoryJob(const Napi::CallbackInfo&);

}  // namespace nd::binding
