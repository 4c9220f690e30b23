// The one error type of native code. It reaches JavaScript as an Error with `code`.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>

namespace nd {

/// Stable codes; lib/errors.ts lists the same names for users.
enum class ErrorCode {
  InvalidArgument,  // ERR_ND_INVALID_ARGUMENT: a caller's value is out of range or of the wrong kind
  ModelNotFound,    // ERR_ND_MODEL_NOT_FOUND: a file or folder is missing or unreadable
  ModelFormat,      // ERR_ND_MODEL_FORMAT: a file is broken, or a tensor is missing or misshapen
  Unsupported,      // ERR_ND_UNSUPPORTED: well formed, but nothing here implements it
  OutOfMemory,      // ERR_ND_OUT_OF_MEMORY
  Disposed,         // ERR_ND_DISPOSED: used after dispose()
  Aborted,          // ERR_ND_ABORTED: JavaScript replaces it by signal.reason
  CudaUnavailable,  // ERR_ND_CUDA_UNAVAILABLE
  Internal,         // ERR_ND_INTERNAL: a bug here
};

const char* errorCodeName(ErrorCode code);

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code(code) {}
  const ErrorCode code;
};

/// printf-style std::string, for messages.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// Throws Error(Internal) unless `condition`: shape contracts between our own layers, never user input.
inline void expect(bool condition, const char* what) {
  if (!condition) throw Error(ErrorCode::Internal, std::string("internal shape contract broken: ") + what);
}

}  // namespace nd
