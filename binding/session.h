// Session: one pipeline's native half as a JavaScript object. Every method queues a job and returns a
// promise, or { promise, abort } where it may be ended early.
#pragma once

#include <napi.h>

#include <memory>

#include "binding/engine-thread.h"

namespace nd::binding {

class Session : public Napi::ObjectWrap<Session> {
 public:
  static Napi::Function define(Napi::Env env);
  /// new Session({ device: 'cpu' | 'cuda:0', threads: 0, dtype: 'auto' })
  explicit Session(const Napi::CallbackInfo& info);

 private:
  Napi::Value load(const Napi::CallbackInfo&);        // (component, config, files, tensors) → Promise<void>
  Napi::Value encodeText(const Napi::CallbackInfo&);  // (encoder, ids, length) → Promise<{ … }>
  Napi::Value encodeImages(const Napi::CallbackInfo&);      // (request) → Promise<{ … }>
  Napi::Value unloadIpAdapters(const Napi::CallbackInfo&);  // () → Promise<void>
  Napi::Value predict(const Napi::CallbackInfo&);           // (request) → Promise<{ sample, blocks? }>
  Napi::Value vaeEncode(const Napi::CallbackInfo&);         // (tensor) → Promise<{ mean, logvar }>
  Napi::Value vaeDecode(const Napi::CallbackInfo&);         // (tensor) → Promise<tensor>
  Napi::Value loadControl(const Napi::CallbackInfo&);  // (kind, id, config, files, tensors) → Promise<void>
  Napi::Value unloadControl(const Napi::CallbackInfo&);   // (kind, id) → Promise<void>
  Napi::Value predictControl(const Napi::CallbackInfo&);  // (id, request) → Promise<residuals>
  Napi::Value adapterMaps(const Napi::CallbackInfo&);     // (id, picture, height, width) → Promise<maps>
  Napi::Value encodePictures(
      const Napi::CallbackInfo&);  // (pictures, latentHeight, latentWidth) → Promise<moments>
  Napi::Value decodePictures(const Napi::CallbackInfo&);  // (latents) → Promise<{ pixels, width, height }>
  Napi::Value generate(const Napi::CallbackInfo&);        // (job, onStep?) → { promise, abort }
  Napi::Value addAdapter(const Napi::CallbackInfo&);      // (id, path, changes) → Promise<void>
  Napi::Value removeAdapter(const Napi::CallbackInfo&);   // (id) → Promise<void>
  Napi::Value useAdapters(const Napi::CallbackInfo&);  // ({ id, unet, textEncoder }[]): for calls from now on
  Napi::Value applyAdapters(const Napi::CallbackInfo&);   // () → Promise<void>: now, not with the next call
  Napi::Value setAddedTokens(const Napi::CallbackInfo&);  // (encoder, Float32Array) → Promise<void>
  Napi::Value unconditional(const Napi::CallbackInfo&);   // (job, onStep?) → { promise, abort }
  Napi::Value predictUnconditional(const Napi::CallbackInfo&);  // (sample, timesteps) → Promise<tensor>
  Napi::Value unload(const Napi::CallbackInfo&);   // () → Promise<void>: frees weights and memory
  Napi::Value profile(const Napi::CallbackInfo&);  // (on) → Promise<entries since the last call>
  Napi::Value memory(const Napi::CallbackInfo&);   // () → Promise<{ weights, activations }>
  Napi::Value description(const Napi::CallbackInfo&);

  Napi::Value submit(std::shared_ptr<Job>);
  Napi::Value submitAbortable(Napi::Env, const std::shared_ptr<Job>&);
  /// Of a job that runs the UNet or a text encoder, or puts adapters into place.
  std::shared_ptr<Job> adapted(std::shared_ptr<Job>);
  std::unique_ptr<EngineThread> engine_;
  std::vector<AdapterUse> adapters_;  // those of the calls to come
  std::string name_, description_;
};

}  // namespace nd::binding
