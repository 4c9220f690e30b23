#include "engine/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace nd {

Json::Json() = default;
Json::~Json() = default;
Json::Json(Json&&) noexcept = default;
Json& Json::operator=(Json&&) noexcept = default;

namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    skipSpace();
    Json value = parseValue(0);
    skipSpace();
    if (at_ != text_.size()) fail("expected the end of the text");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw JsonError(message, at_); }
  bool ended() const { return at_ == text_.size(); }
  /// The next byte, or 0 at the end: no JSON token has a NUL, so both fail alike.
  char peek() const { return ended() ? '\0' : text_[at_]; }

  void skipSpace() {
    while (!ended() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      at_++;
  }

  void expectChar(char c, const char* where) {
    if (peek() != c) fail(std::string("expected '") + c + "' " + where);
    at_++;
  }

  void word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail("expected a value");
    at_ += word.size();
  }

  Json parseValue(int depth) {
    if (depth > Json::kMaxDepth) fail("nested too deeply");
    if (++values_ > Json::kMaxValues) fail("too many values");
    Json value;
    switch (peek()) {
      case '{':
        parseObject(value, depth);
        break;
      case '[':
        parseArray(value, depth);
        break;
      case '"':
        value.kind = Json::Kind::String;
        value.string = parseString();
        break;
      case 't':
        word("true");
        value.kind = Json::Kind::Boolean;
        value.boolean = true;
        break;
      case 'f':
        word("false");
        value.kind = Json::Kind::Boolean;
        break;
      case 'n':
        word("null");
        break;
      default:
        parseNumber(value);
    }
    return value;
  }

  void parseObject(Json& value, int depth) {
    value.kind = Json::Kind::Object;
    at_++;
    skipSpace();
    if (peek() == '}') {
      at_++;
      return;
    }
    for (;;) {
      skipSpace();
      if (peek() != '"') fail("expected a quoted name");
      std::string name = parseString();
      skipSpace();
      expectChar(':', "after a name");
      skipSpace();
      value.object.emplace_back(std::move(name), parseValue(depth + 1));
      skipSpace();
      if (peek() == '}') break;
      expectChar(',', "or '}' between members");
    }
    at_++;
    refuseDuplicates(value.object);
  }

  void parseArray(Json& value, int depth) {
    value.kind = Json::Kind::Array;
    at_++;
    skipSpace();
    if (peek() == ']') {
      at_++;
      return;
    }
    for (;;) {
      skipSpace();
      value.array.push_back(parseValue(depth + 1));
      skipSpace();
      if (peek() == ']') break;
      expectChar(',', "or ']' between elements");
    }
    at_++;
  }

  void refuseDuplicates(const std::vector<Json::Member>& members) const {
    std::vector<std::string_view> names;
    names.reserve(members.size());
    for (const Json::Member& member : members) names.push_back(member.first);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail("the name \"" + std::string(*twice) + "\" appears twice in an object");
  }

  bool digit() const { return peek() >= '0' && peek() <= '9'; }

  void digits() {
    if (!digit()) fail("expected a digit");
    while (digit()) at_++;
  }

  void parseNumber(Json& value) {
    const size_t start = at_;
    const bool negative = peek() == '-';
    if (negative) at_++;
    if (!digit()) fail(negative ? "expected a digit" : "expected a value");
    if (peek() == '0')
      at_++;  // a leading zero stands alone
    else
      digits();
    bool plain = !negative;
    if (peek() == '.') {
      plain = false;
      at_++;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      plain = false;
      at_++;
      if (peek() == '+' || peek() == '-') at_++;
      digits();
    }
    const char *first = text_.data() + start, *last = text_.data() + at_;
    value.kind = Json::Kind::Number;
    if (std::from_chars(first, last, value.number).ec == std::errc::result_out_of_range)
      value.number = negative ? -HUGE_VAL : HUGE_VAL;
    int64_t integer;
    if (plain && std::from_chars(first, last, integer).ec == std::errc()) value.integer = integer;
  }

  std::string parseString() {
    at_++;
    std::string out;
    for (;;) {
      if (ended()) fail("a string without its closing quote");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') break;
      if (c < 0x20) fail("a control character in a string");
      if (c == '\\')
        escape(out);
      else if (c < 0x80)
        out += text_[at_++];
      else
        utf8(out);
    }
    at_++;
    return out;
  }

  void escape(std::string& out) {
    at_++;
    const char c = peek();
    static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
      at_++;
      codePoint(out, unicodeEscape());
      return;
    }
    const size_t index = c ? kNames.find(c) : std::string_view::npos;
    if (index == std::string_view::npos) fail("an unknown escape in a string");
    out += kValues[index];
    at_++;
  }

  uint32_t hex4() {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
      const char c = peek();
      const int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (d < 0) fail("expected four hexadecimal digits after \\u");
      value = value << 4 | static_cast<uint32_t>(d);
      at_++;
    }
    return value;
  }

  uint32_t unicodeEscape() {
    const uint32_t first = hex4();
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || text_.substr(at_, 2) != "\\u") fail("half of a surrogate pair");
    at_ += 2;
    const uint32_t second = hex4();
    if (second < 0xdc00 || second > 0xdfff) fail("half of a surrogate pair");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  static void codePoint(std::string& out, uint32_t c) {
    const auto put = [&out](uint32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xc0 | c >> 6), put(0x80 | (c & 63));
    } else if (c < 0x10000) {
      put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
    } else {
      put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
    }
  }

  /// Copies one multi-byte character; refuses overlong forms, surrogates and what is above U+10FFFF.
  void utf8(std::string& out) {
    const auto byte = [this](size_t i) -> uint32_t {
      return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0;
    };
    const uint32_t lead = byte(0);
    const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    uint32_t c = lead & (0x7f >> length);
    bool valid = lead >= 0xc2 && lead <= 0xf4;
    for (size_t i = 1; i < length; i++) {
      valid = valid && (byte(i) & 0xc0) == 0x80;
      c = c << 6 | (byte(i) & 63);
    }
    static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!valid || c < kSmallest[length] || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
      fail("bytes that are not UTF-8 in a string");
    out.append(text_, at_, length);
    at_ += length;
  }

  std::string_view text_;
  size_t at_ = 0;
  int values_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) { return Parser(text).document(); }

const Json* Json::find(std::string_view name) const {
  for (const Member& member : object)
    if (member.first == name) return &member.second;
  return nullptr;
}

std::string Json::describe() const {
  switch (kind) {
    case Kind::Null:
      return "null";
    case Kind::Boolean:
      return boolean ? "true" : "false";
    case Kind::Number: {
      char text[40];
      const auto end = std::to_chars(text, text + sizeof text, number).ptr;
      return "the number " + (integer ? std::to_string(*integer) : std::string(text, end));
    }
    case Kind::String:
      return "a string";
    case Kind::Array:
      return "an array of " + std::to_string(array.size());
    case Kind::Object:
      return "an object";
  }
  return "a value";
}

}  // namespace nd
