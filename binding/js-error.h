// nd::Error and other C++ exceptions → JavaScript Errors with a `code`. lib/binding.ts gives them their
// class.
#pragma once

#include <napi.h>

#include <exception>
#include <new>
#include <utility>

#include "engine/error.h"

namespace nd::binding {

inline Napi::Error jsError(Napi::Env env, ErrorCode code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, errorCodeName(code)));
  return error;
}

/// A caught exception as an nd::Error, so that it can cross threads by value.
inline Error asError(const std::exception_ptr& caught) {
  try {
    std::rethrow_exception(caught);
  } catch (const Error& e) {
    return e;
  } catch (const std::bad_alloc&) {
    return {ErrorCode::OutOfMemory, "out of memory"};
  } catch (const std::exception& e) {
    return {ErrorCode::Internal, e.what()};
  } catch (...) {
    return {ErrorCode::Internal, "unknown native exception"};
  }
}

/// Runs a synchronous export; C++ exceptions become JavaScript ones.
template <class Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    const Error e = asError(std::current_exception());
    throw jsError(env, e.code, e.what());
  }
}

}  // namespace nd::binding
