// Fuzzing (libFuzzer) of the reader of JSON headers: any text is a value or a JsonError within the text.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "engine/json.h"

namespace {

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void check(const nd::Json& value, int depth) {
  if (depth > nd::Json::kMaxDepth) broken("deeper than the limit");
  if (value.describe().empty()) broken("no description");
  if (value.integer && *value.integer < 0) broken("a negative integer");
  for (const nd::Json& item : value.array) check(item, depth + 1);
  for (const auto& [name, item] : value.object) {
    if (!value.find(name)) broken("a member is not found");
    check(item, depth + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    check(nd::Json::parse(text), 0);
  } catch (const nd::JsonError& error) {
    if (error.offset > size) broken("an error behind the end of the text");
  }
  return 0;
}
