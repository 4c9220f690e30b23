// The export list.
#include <napi.h>

#include "binding/functions.h"
#include "binding/session.h"

namespace {

Napi::Object init(Napi::Env env, Napi::Object exports) {
  using namespace nd::binding;
  exports.Set("Session", Session::define(env));
  exports.Set("readHeader", Napi::Function::New<readHeader>(env, "readHeader"));
  exports.Set("readTensors", Napi::Function::New<readTensors>(env, "readTensors"));
  exports.Set("runPlan", Napi::Function::New<runPlan>(env, "runPlan"));
  exports.Set("Noise", defineNoise(env));
  exports.Set("inspect", Napi::Function::New<inspect>(env, "inspect"));
  return exports;
}

}  // namespace

NODE_API_MODULE(node_diffusion, init)
