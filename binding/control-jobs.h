// The jobs of ControlNets and T2I-Adapters.
#pragma once

#include <memory>

#include "binding/engine-thread.h"

namespace nd::binding {

std::shared_ptr<Job> loadControlJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> unloadControlJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> predictControlJob(const Napi::CallbackInfo&);
std::shared_ptr<Job> adapterMapsJob(const Napi::CallbackInfo&);

}  // namespace nd::binding
