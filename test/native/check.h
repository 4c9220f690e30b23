// A minimal test registry: ND_TEST(name) { CHECK(...); } in any file of this folder. Arguments of nd_test are
// substrings of the names to run; the environment variable ND_REFERENCE says where the reference outputs are
// (default: test/reference under the working directory).
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "engine/error.h"

namespace ndtest {

struct Registration {
  Registration(const char* name, std::function<void()> body);
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

/// Throws Failure; call it where a test cannot run on this machine, and it is printed as skipped.
struct Skip : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file of the reference outputs: reference("rng.safetensors").
std::string reference(const std::string& name);

/// A fresh path for a temporary file, in a folder that goes away with the process.
std::string temporaryFile(const std::string& name);

/// A line under the test's own: measured errors and speeds.
void note(const std::string& text);

}  // namespace ndtest

#define ND_TEST_JOIN2(a, b) a##b
#define ND_TEST_JOIN(a, b) ND_TEST_JOIN2(a, b)
#define ND_TEST(name)                                                                                    \
  static void ND_TEST_JOIN(testBody, __LINE__)();                                                        \
  static const ndtest::Registration ND_TEST_JOIN(testEntry, __LINE__)(name,                              \
                                                                      ND_TEST_JOIN(testBody, __LINE__)); \
  static void ND_TEST_JOIN(testBody, __LINE__)()

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) ndtest::fail(__FILE__, __LINE__, "CHECK(" #condition ")"); \
  } while (0)

/// The expression must throw nd::Error with that code, and the message must contain the text.
#define CHECK_ERROR(expression, errorCode, text)                                                  \
  do {                                                                                            \
    std::string caught;                                                                           \
    try {                                                                                         \
      (void)(expression);                                                                         \
    } catch (const nd::Error& error) {                                                            \
      caught = error.what();                                                                      \
      if (error.code != (errorCode))                                                              \
        ndtest::fail(__FILE__, __LINE__,                                                          \
                     std::string("code ") + nd::errorCodeName(error.code) + ": " + caught);       \
    }                                                                                             \
    if (caught.empty()) ndtest::fail(__FILE__, __LINE__, "no error from " #expression);           \
    if (caught.find(text) == std::string::npos)                                                   \
      ndtest::fail(__FILE__, __LINE__, std::string("expected \"") + (text) + "\" in: " + caught); \
  } while (0)
