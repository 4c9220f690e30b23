#include "engine/error.h"

#include <cstdarg>

namespace nd {

const char* errorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument:
      return "ERR_ND_INVALID_ARGUMENT";
    case ErrorCode::ModelNotFound:
      return "ERR_ND_MODEL_NOT_FOUND";
    case ErrorCode::ModelFormat:
      return "ERR_ND_MODEL_FORMAT";
    case ErrorCode::Unsupported:
      return "ERR_ND_UNSUPPORTED";
    case ErrorCode::OutOfMemory:
      return "ERR_ND_OUT_OF_MEMORY";
    case ErrorCode::Disposed:
      return "ERR_ND_DISPOSED";
    case ErrorCode::Aborted:
      return "ERR_ND_ABORTED";
    case ErrorCode::CudaUnavailable:
      return "ERR_ND_CUDA_UNAVAILABLE";
    case ErrorCode::Internal:
      break;
  }
  return "ERR_ND_INTERNAL";
}

std::string format(const char* pattern, ...) {
  va_list args, again;
  va_start(args, pattern);
  va_copy(again, args);
  const int length = std::vsnprintf(nullptr, 0, pattern, args);
  va_end(args);
  std::string text(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  if (length > 0) std::vsnprintf(text.data(), text.size() + 1, pattern, again);
  va_end(again);
  return text;
}

}  // namespace nd
