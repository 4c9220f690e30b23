// A small strict JSON reader (RFC 8259) for file headers: no comments, no trailing commas, valid UTF-8 only,
// no duplicate keys, a bounded depth. Values keep what the caller must tell apart: integers are exact.
#pragma once

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nd {

/// What is wrong with a text and where; the caller knows the file and makes an nd::Error of it.
struct JsonError : std::runtime_error {
  JsonError(const std::string& message, size_t offset) : std::runtime_error(message), offset(offset) {}
  size_t offset;  // bytes from the start of the text
};

class Json {
 public:
  enum class Kind : uint8_t { Null, Boolean, Number, String, Array, Object };
  using Member = std::pair<std::string, Json>;
  static constexpr int kMaxDepth = 32;
  static constexpr int kMaxValues = 1 << 21;  // a bound on memory, far above any real header

  /// Parses the whole text (white space around the value is allowed). Throws JsonError.
  static Json parse(std::string_view text);

  // Defined where Member is complete: in C++20 clang asks for that before a vector of it is destroyed.
  Json();
  ~Json();
  Json(Json&&) noexcept;
  Json& operator=(Json&&) noexcept;

  Kind kind = Kind::Null;
  bool boolean = false;
  double number = 0;
  std::optional<int64_t> integer;  // set for a number written as digits alone that fits: 0 .. 2^63 − 1
  std::string string;              // UTF-8, escapes resolved
  std::vector<Json> array;
  std::vector<Member> object;  // in the order of the text

  bool isString() const { return kind == Kind::String; }
  bool isArray() const { return kind == Kind::Array; }
  bool isObject() const { return kind == Kind::Object; }
  /// The member of that name, or null.
  const Json* find(std::string_view name) const;
  /// "a string", "the number -1": for messages.
  std::string describe() const;
};

}  // namespace nd
