// The safetensors reader: good files of every dtype, every kind of broken file, and mutated headers.
#include "engine/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "test/native/check.h"

namespace {

using nd::ErrorCode;
using nd::SafetensorsFile;

std::string lengthBytes(uint64_t length) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; i++) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

std::string write(const std::string& bytes) {
  const std::string path = ndtest::temporaryFile("file.safetensors");
  std::filesystem::remove(path);  // a new inode: earlier mappings of the name stay intact
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

std::string file(const std::string& header, const std::string& data) {
  return write(lengthBytes(header.size()) + header + data);
}

std::string file(const std::string& header, size_t dataBytes) {
  return file(header, std::string(dataBytes, 'x'));
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, uint64_t begin,
                  uint64_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

#define CHECK_BROKEN(path, text) CHECK_ERROR(SafetensorsFile::open(path), ErrorCode::ModelFormat, text)

}  // namespace

ND_TEST("safetensors: every dtype of the format") {
  const std::pair<const char*, int> dtypes[] = {{"BOOL", 8},    {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
                                                {"U8", 8},      {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8},
                                                {"F8_E8M0", 8}, {"I16", 16}, {"U16", 16},    {"F16", 16},
                                                {"BF16", 16},   {"I32", 32}, {"U32", 32},    {"F32", 32},
                                                {"C64", 64},    {"F64", 64}, {"I64", 64},    {"U64", 64}};
  std::string header, data;
  for (const auto& [name, bits] : dtypes) {
    const size_t begin = data.size(), bytes = 4 * static_cast<size_t>(bits) / 8;
    for (size_t i = 0; i < bytes; i++) data += static_cast<char>(begin + i);
    header += (header.empty() ? "{\"__metadata__\":{\"format\":\"pt\"}," : ",") +
              entry(name, name, "[2,2]", begin, data.size());
  }
  const auto opened = SafetensorsFile::open(file(header + "}  ", data));
  CHECK(opened->entries().size() == std::size(dtypes));
  CHECK(opened->metadata().at("format") == "pt");
  size_t begin = 0;
  for (const auto& [name, bits] : dtypes) {
    const nd::HostTensor tensor = opened->tensor(name);
    CHECK(std::string(nd::dtypeName(tensor.dtype)) == name && nd::dtypeBits(tensor.dtype) == bits);
    CHECK(tensor.shape == nd::Shape({2, 2}) && tensor.name == name);
    const size_t bytes = 4 * static_cast<size_t>(bits) / 8;
    CHECK(std::memcmp(tensor.data, data.data() + begin, bytes) == 0);
    if (bits >= 8)
      CHECK(reinterpret_cast<uintptr_t>(tensor.data) % (tensor.dtype == nd::DType::C64 ? 4 : bits / 8) == 0);
    begin += bytes;
  }
}

ND_TEST("safetensors: scalars, empty tensors, order, escapes, no tensors") {
  const std::string header = "{" + entry("b", "F32", "[]", 4, 8) + "," +
                             entry("empty", "F32", "[3,0,2]", 8, 8) + "," +
                             entry("na\\u00efve \\\"x\\\"", "F32", "[1]", 0, 4) + "}";
  const auto opened = SafetensorsFile::open(file(header, std::string("\0\0\x80\x3f\0\0\0\x40", 8)));
  CHECK(opened->entries().front().name == "na\xc3\xafve \"x\"");
  CHECK(*static_cast<const float*>(opened->tensor("b").data) == 2 && opened->tensor("b").shape.count() == 1);
  CHECK(*static_cast<const float*>(opened->tensor("na\xc3\xafve \"x\"").data) == 1);
  CHECK(opened->tensor("empty").shape.count() == 0);
  CHECK(SafetensorsFile::open(file("{}", ""))->entries().empty());
  CHECK(SafetensorsFile::open(file("{\"__metadata__\":null}", ""))->metadata().empty());
}

ND_TEST("safetensors: data outlive every other user of the file, and may be read from several opens") {
  const std::string path = file("{" + entry("a", "U8", "[3]", 0, 3) + "}", "abc");
  const auto first = SafetensorsFile::open(path), second = SafetensorsFile::open(path);
  std::filesystem::remove(path);
  CHECK(std::memcmp(first->tensor("a").data, "abc", 3) == 0 &&
        std::memcmp(second->tensor("a").data, "abc", 3) == 0);
}

ND_TEST("safetensors: misaligned tensors are given aligned, zero copy otherwise") {
  std::string header = "{" + entry("byte", "U8", "[1]", 0, 1) + "," + entry("f", "F32", "[2]", 1, 9) + "}";
  while (header.size() % 8) header += ' ';
  const auto opened = SafetensorsFile::open(file(header, std::string("\x07\0\0\x80\x3f\0\0\0\x40", 9)));
  const nd::HostTensor tensor = opened->tensor("f");
  CHECK(reinterpret_cast<uintptr_t>(tensor.data) % 4 == 0);
  const float* values = static_cast<const float*>(tensor.data);
  CHECK(values[0] == 1 && values[1] == 2);
  CHECK(opened->tensor("f").data == tensor.data);  // copied once
}

ND_TEST("safetensors: what is only refused when it is asked for") {
  const std::string header = "{" + entry("deep", "U8", "[1,1,1,1,1,1,1]", 0, 1) + "," +
                             entry("odd", "F3_X", "[1]", 1, 2) + "," + entry("fine", "U8", "[1]", 2, 3) + "}";
  const auto opened = SafetensorsFile::open(file(header, 3));
  CHECK(opened->tensor("fine").shape.count() == 1);
  CHECK_ERROR(opened->tensor("deep"), ErrorCode::ModelFormat, "at most 6 dimensions");
  CHECK_ERROR(opened->tensor("odd"), ErrorCode::Unsupported, "F3_X");
  CHECK_ERROR(opened->tensor("missing"), ErrorCode::ModelFormat, "\"missing\"");
}

ND_TEST("safetensors: files that are not there or not safetensors") {
  CHECK_ERROR(SafetensorsFile::open(ndtest::temporaryFile("none")), ErrorCode::ModelNotFound, "none");
  CHECK_ERROR(SafetensorsFile::open(std::filesystem::temp_directory_path().string()),
              ErrorCode::ModelNotFound, "folder");
  CHECK_BROKEN(write(""), "at least 8 bytes but it has 0");
  CHECK_BROKEN(write("1234567"), "at least 8 bytes");
  CHECK_BROKEN(write("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"), "git lfs pull");
  CHECK_BROKEN(write("PK\x03\x04 archive/data.pkl"), "zip archive");
  CHECK_BROKEN(write("\x80\x02}q\x01."), "pickle");
  CHECK_BROKEN(write("GGUF\x03\0\0\0"), "GGUF");
  CHECK_BROKEN(write("<!DOCTYPE html><html>"), "HTML");
}

ND_TEST("safetensors: broken headers") {
  CHECK_BROKEN(write(lengthBytes(0) + "{}"), "length is 0");
  CHECK_BROKEN(write(lengthBytes(3) + "{}"), "only 2 bytes");
  CHECK_BROKEN(write(lengthBytes(~0ull) + "{}"), "at most 100000000");
  CHECK_BROKEN(write(lengthBytes(100'000'001) + "{}"), "at most 100000000");
  CHECK_BROKEN(write(lengthBytes(100'000'000) + "{}"), "only 2 bytes");
  CHECK_BROKEN(file(" {}", 0), "begin with '{'");
  CHECK_BROKEN(file("[]", 0), "begin with '{'");
  for (const char* json : {"{",
                           "{}x",
                           "{} {}",
                           "{,}",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "{'a':1}",
                           "{\"a\":01}",
                           "{\"a\":1.}",
                           "{\"a\":+1}",
                           "{\"a\":tru}",
                           "{\"a\":NaN}",
                           "{\"a\":\"\\x\"}",
                           "{\"a\":\"\\u12\"}",
                           "{\"a\":\"\\ud800\"}",
                           "{\"a\":\"\\udc00\"}",
                           "{\"a\":\"\n\"}",
                           "{\"a\":\"",
                           "{\"a\":\"\xff\"}",
                           "{\"a\":\"\xc0\x80\"}",
                           "{\"a\":\"\xed\xa0\x80\"}",
                           "{\"a\":\"\xf4\x90\x80\x80\"}",
                           "{\"a\":\"\xe2\x82\"}",
                           "{\"a\":[1 2]}",
                           "{\"a\":[1,]}",
                           "{/**/}"})
    CHECK_BROKEN(file(json, 0), "JSON header");
  CHECK_BROKEN(file(std::string("{\"a\":\"\0\"}", 9), 0), "JSON header");
  CHECK_BROKEN(file("{\"a\":" + std::string(100000, '['), 0), "too deeply");
  CHECK_BROKEN(file("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("a", "U8", "[1]", 1, 2) + "}", 2),
               "twice");
  CHECK_BROKEN(file("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("\\u0061", "U8", "[1]", 1, 2) + "}", 2),
               "twice");
  CHECK_BROKEN(file("{\"__metadata__\":{\"a\":1}}", 0), "__metadata__");
  CHECK_BROKEN(file("{\"__metadata__\":[]}", 0), "__metadata__");
}

ND_TEST("safetensors: broken entries") {
  const auto one = [](const std::string& text, size_t bytes = 4) {
    return file("{\"a\":" + text + "}", bytes);
  };
  CHECK_BROKEN(one("3"), "an object");
  CHECK_BROKEN(one("{}"), "a field dtype");
  CHECK_BROKEN(one(R"({"dtype":"F32","data_offsets":[0,4]})"), "a field shape");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[1]})"), "a field data_offsets");
  CHECK_BROKEN(one(R"({"dtype":4,"shape":[1],"data_offsets":[0,4]})"), "a string for dtype");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":1,"data_offsets":[0,4]})"), "an array for shape");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4,8]})"), "two data_offsets");
  for (const char* d :
       {"-1", "1.0", "1e0", "1.5", "\"1\"", "null", "true", "[1]", "9223372036854775808", "1e400"})
    CHECK_BROKEN(one(std::string(R"({"dtype":"F32","shape":[)") + d + R"(],"data_offsets":[0,4]})"),
                 "non-negative integers in shape");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[1],"data_offsets":[-4,0]})"),
               "non-negative integers in data_offsets");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), "begin before they end");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), "expected 8 bytes");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[0],"data_offsets":[0,4]})"), "expected 0 bytes");
  CHECK_BROKEN(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "end within");
  CHECK_BROKEN(one(R"({"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]})"),
               "overflows");
  for (const char* shape :
       {"[4294967296,4294967296]", "[9223372036854775807,9223372036854775807]", "[4611686018427387904]",
        "[3037000500,3037000500,2]", "[4294967296,4294967296,0]"})
    CHECK_BROKEN(one(std::string(R"({"dtype":"F64","shape":)") + shape + R"(,"data_offsets":[0,4]})"),
                 "overflows");
  // 2^61 elements of 64 bits are 0 bytes modulo 2^64.
  CHECK_BROKEN(one(R"({"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]})", 0), "overflows");
  CHECK_BROKEN(one(R"({"dtype":"F4","shape":[3],"data_offsets":[0,2]})", 2), "whole number of bytes");
  CHECK_BROKEN(one(R"({"dtype":"F6_E2M3","shape":[3],"data_offsets":[0,3]})", 3), "whole number of bytes");
  CHECK_BROKEN(one(R"({"dtype":"F6_E3M2","shape":[2],"data_offsets":[0,2]})", 2), "whole number of bytes");
}

ND_TEST("safetensors: overlaps, holes, trailing bytes") {
  const auto two = [](uint64_t b0, uint64_t b1, const char* dtype = "U8") {
    return "{" + entry("a", "U8", "[4]", b0, b0 + 4) + "," + entry("b", dtype, "[4]", b1, b1 + 4) + "}";
  };
  CHECK(SafetensorsFile::open(file(two(4, 0), 8))->entries()[0].name == "b");
  CHECK_BROKEN(file(two(0, 2), 6), "overlapping");
  CHECK_BROKEN(file(two(0, 0), 4), "overlapping");
  CHECK_BROKEN(file(two(0, 5), 9), "leaving a hole");
  CHECK_BROKEN(file(two(1, 5), 9), "leaving a hole");
  CHECK_BROKEN(file(two(0, 4), 9), "has 9");
  CHECK_BROKEN(file(two(0, 4), 7), "end within");
  CHECK_BROKEN(file(two(0, 5, "UNKNOWN"), 9), "leaving a hole");
  CHECK_BROKEN(file("{}", 1), "has 1");
}

#ifndef _WIN32
ND_TEST("safetensors: a file truncated after it was opened is noticed") {
  const std::string path = file("{" + entry("a", "U8", "[65536]", 0, 65536) + "}", 65536);
  const auto opened = SafetensorsFile::open(path);
  std::filesystem::resize_file(path, 100);
  CHECK_ERROR(opened->tensor("a"), ErrorCode::ModelFormat, "changed while in use");
}
#endif

ND_TEST("safetensors: mutated files either open or give an Error") {
  const std::string good =
      "{\"__metadata__\":{\"format\":\"pt\"}," + entry("w.weight", "F16", "[4,2]", 0, 16) + "," +
      entry("w.bias", "F32", "[4]", 16, 32) + "," + entry("ids", "I64", "[1,2]", 32, 48) + "}";
  const std::string pieces = "{}[]:,\"\\0123456789-.eEutfn F\x01\xff\xc3";
  std::mt19937 random(20261123);  // NOLINT: the same files in every run
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  int opened = 0, refused = 0;
  for (int i = 0; i < 4000; i++) {
    std::string bytes = lengthBytes(good.size()) + good + std::string(48, '\1');
    for (size_t changes = 1 + below(3); changes > 0; changes--) {
      const size_t at =
          below(std::min(bytes.size(), below(8) ? 8 + good.size() : bytes.size()));  // mostly the header
      switch (below(5)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = pieces[below(pieces.size())];
          break;
        case 2:
          bytes.insert(at, 1 + below(3), pieces[below(pieces.size())]);
          break;
        case 3:
          bytes.erase(at, 1 + below(4));
          break;
        default:
          bytes.resize(at + 1);
      }
      if (bytes.empty()) bytes = "{";
    }
    if (below(2) && bytes.size() > 56) {  // keep the length right, so that the change is in the JSON alone
      const std::string right = lengthBytes(bytes.size() - 56);
      bytes.replace(0, 8, right);
    }
    try {
      const auto file = SafetensorsFile::open(write(bytes));
      uint64_t sum = 0;
      for (const auto& entry : file->entries()) {
        if (!entry.dtype || entry.shape.size() > nd::kMaxRank) continue;
        const nd::HostTensor tensor = file->tensor(entry.name);
        for (size_t k = 0; k < entry.end - entry.begin; k++)
          sum += static_cast<const uint8_t*>(tensor.data)[k];
      }
      CHECK(sum < 1u << 20);
      opened++;
    } catch (const nd::Error& error) {
      CHECK(error.code == ErrorCode::ModelFormat);
      refused++;
    }
  }
  ndtest::note(std::to_string(opened) + " opened, " + std::to_string(refused) + " refused");
  CHECK(opened > 50 && refused > 50);
}
