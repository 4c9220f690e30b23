#include "engine/repeated.h"

namespace nd {

void Repeated::operator()(Context& context, const std::function<void()>& body) {
  Backend& backend = context.backend;
  if (recording_) {
    context.checkAbort();
    backend.replay(*recording_);
    return;
  }
  if (!ran_ || context.profile || !backend.beginRecording()) {
    body();
    ran_ = true;
    return;
  }
  try {
    body();
    recording_ = backend.endRecording();
  } catch (...) {
    backend.cancelRecording();
    throw;
  }
  backend.replay(*recording_);
}

}  // namespace nd
