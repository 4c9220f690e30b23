#include "engine/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "engine/json.h"

namespace nd {
namespace {

using Entry = SafetensorsFile::Entry;

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's bound

/// A name from a file, fit for a message: short, and without control characters.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text.substr(0, 100)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return out + (text.size() > 100 ? "...\"" : "\"");
}

[[noreturn]] void broken(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::ModelFormat, path + ": " + what);
}

constexpr const char* kDamaged = "; the file is damaged or was not downloaded completely, fetch it again";

/// What a file that does not look like safetensors is, and what to do about it; empty where it is not known.
std::string recognise(std::string_view bytes) {
  const auto starts = [bytes](std::string_view magic) { return bytes.substr(0, magic.size()) == magic; };
  const char* convert = "; convert it to safetensors, or use the model's .safetensors file";
  if (starts("version https://git-lfs"))
    return "this is a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or download it "
           "again";
  if (starts("PK\x03\x04"))
    return std::string("this is a zip archive, as PyTorch's .ckpt, .pt and .bin are") + convert;
  if (starts("\x80\x02") || starts("\x80\x03") || starts("\x80\x04"))
    return std::string("this is a Python pickle, as old PyTorch .ckpt, .pt and .bin are") + convert;
  if (starts("GGUF")) return std::string("this is a GGUF file") + convert;
  if (starts("\x89HDF")) return std::string("this is an HDF5 file") + convert;
  if (starts("\x1f\x8b")) return "this is a gzip archive; unpack it first";
  if (starts("<!DOCTYPE") || starts("<!doctype") || starts("<html"))
    return "this is an HTML page, so the download gave an error page; download it again";
  return "";
}

/// The header text, after every check that comes before its content.
std::string_view headerText(const MappedFile& file) {
  const std::string& path = file.path();
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  const std::string known = recognise(bytes);
  if (!known.empty()) broken(path, "expected a safetensors file but " + known);
  if (bytes.size() < 8)
    broken(path, "expected a safetensors file of at least 8 bytes but it has " +
                     std::to_string(bytes.size()) + kDamaged);
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | file.data()[i];
  if (length == 0) broken(path, "expected a header but its length is 0; this is not a safetensors file");
  if (length > kMaxHeader)
    broken(path, "expected a header of at most " + std::to_string(kMaxHeader) + " bytes but its length is " +
                     std::to_string(length) + "; this is not a safetensors file");
  if (length > bytes.size() - 8)
    broken(path, "expected a header of " + std::to_string(length) + " bytes but only " +
                     std::to_string(bytes.size() - 8) + " bytes follow its length" + kDamaged);
  const std::string_view header = bytes.substr(8, length);
  if (header[0] != '{') broken(path, "expected the header to begin with '{'; this is not a safetensors file");
  return header;
}

Json parseHeader(const std::string& path, std::string_view text) {
  try {
    return Json::parse(text);
  } catch (const JsonError& error) {
    broken(path, "expected a JSON header but at its byte " + std::to_string(error.offset) + ": " +
                     error.what() + kDamaged);
  }
}

std::map<std::string, std::string> parseMetadata(const std::string& path, const Json& json) {
  std::map<std::string, std::string> metadata;
  if (json.kind == Json::Kind::Null) return metadata;  // the reference implementation takes it for "none"
  if (!json.isObject()) broken(path, "expected an object for __metadata__ but received " + json.describe());
  for (const auto& [key, value] : json.object) {
    if (!value.isString())
      broken(path,
             "expected a string for " + quoted(key) + " in __metadata__ but received " + value.describe());
    metadata.emplace(key, value.string);
  }
  return metadata;
}

/// Bytes of a tensor. Throws where the count or the number of bits overflows, or bits do not fill whole
/// bytes.
uint64_t byteCount(const std::string& path, const std::string& where, const std::vector<int64_t>& shape,
                   DType dtype) {
  uint64_t count = 1;
  const auto times = [&](uint64_t factor) {
    if (factor && count > std::numeric_limits<uint64_t>::max() / factor)
      broken(path, where + ": expected a shape that fits in memory but its size overflows" + kDamaged);
    count *= factor;
  };
  for (const int64_t d : shape) times(static_cast<uint64_t>(d));
  times(static_cast<uint64_t>(dtypeBits(dtype)));
  if (count % 8)
    broken(path, where + ": expected a whole number of bytes but " + std::to_string(count) + " bits of " +
                     dtypeName(dtype) + " are not" + kDamaged);
  return count / 8;
}

Entry parseEntry(const std::string& path, const std::string& name, const Json& json) {
  const std::string where = "tensor " + quoted(name);
  const auto field = [&](const Json& of, const char* key) -> const Json& {
    const Json* value = of.find(key);
    if (!value) broken(path, where + ": expected a field " + key + " but there is none" + kDamaged);
    return *value;
  };
  if (!json.isObject())
    broken(path, where + ": expected an object but received " + json.describe() + kDamaged);

  Entry entry;
  entry.name = name;
  const Json& dtype = field(json, "dtype");
  if (!dtype.isString())
    broken(path, where + ": expected a string for dtype but received " + dtype.describe());
  entry.dtypeText = dtype.string;
  entry.dtype = dtypeFromName(dtype.string);

  const auto integers = [&](const char* key) {
    const Json& list = field(json, key);
    if (!list.isArray())
      broken(path, where + ": expected an array for " + key + " but received " + list.describe());
    std::vector<int64_t> values;
    for (const Json& item : list.array) {
      if (!item.integer)
        broken(path,
               where + ": expected non-negative integers in " + key + " but received " + item.describe());
      values.push_back(*item.integer);
    }
    return values;
  };
  entry.shape = integers("shape");
  const std::vector<int64_t> range = integers("data_offsets");
  if (range.size() != 2)
    broken(path, where + ": expected two data_offsets but received " + std::to_string(range.size()));
  if (range[0] > range[1])
    broken(path, where + ": expected data_offsets that begin before they end but received " +
                     std::to_string(range[0]) + " and " + std::to_string(range[1]) + kDamaged);
  entry.begin = static_cast<size_t>(range[0]);
  entry.end = static_cast<size_t>(range[1]);
  if (entry.dtype) {
    const uint64_t bytes = byteCount(path, where, entry.shape, *entry.dtype);
    if (bytes != entry.end - entry.begin)
      broken(path, where + ": expected " + std::to_string(bytes) + " bytes for its shape and " +
                       entry.dtypeText + " but its data_offsets hold " +
                       std::to_string(entry.end - entry.begin) + kDamaged);
  }
  return entry;
}

/// Tensors must follow each other and fill the data section exactly.
void checkCoverage(const std::string& path, const std::vector<Entry>& entries, uint64_t dataBytes) {
  uint64_t at = 0;
  for (const Entry& entry : entries) {
    const std::string where = "tensor " + quoted(entry.name);
    if (entry.end > dataBytes)
      broken(path, where + ": expected its bytes to end within the file's " + std::to_string(dataBytes) +
                       " bytes of data but they end at " + std::to_string(entry.end) + kDamaged);
    if (entry.begin != at)
      broken(path, where + ": expected its bytes to begin at " + std::to_string(at) + " but they begin at " +
                       std::to_string(entry.begin) +
                       (entry.begin < at ? ", overlapping another tensor" : ", leaving a hole") + kDamaged);
    at = entry.end;
  }
  if (at != dataBytes)
    broken(path, "expected " + std::to_string(at) + " bytes of data, as the tensors take, but the file has " +
                     std::to_string(dataBytes) + kDamaged);
}

size_t alignmentOf(DType dtype) {
  switch (dtype) {
    case DType::C64:
      return 4;  // two floats
    default:
      return std::max<size_t>(1, static_cast<size_t>(dtypeBits(dtype)) / 8);
  }
}

}  // namespace

std::optional<DType> dtypeFromName(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(DType::U64); i++)
    if (name == dtypeName(static_cast<DType>(i))) return static_cast<DType>(i);
  return std::nullopt;
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  std::shared_ptr<SafetensorsFile> result(new SafetensorsFile(MappedFile::open(path)));
  const std::string_view text = headerText(*result->file_);
  const Json header = parseHeader(path, text);
  std::vector<Entry>& entries = result->entries_;
  for (const auto& [name, value] : header.object) {
    if (name == "__metadata__")
      result->metadata_ = parseMetadata(path, value);
    else
      entries.push_back(parseEntry(path, name, value));
  }
  // Tensors without bytes may share an offset with the next one: by end as well, they come first.
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  result->dataStart_ = 8 + text.size();
  checkCoverage(path, entries, result->file_->size() - result->dataStart_);
  for (size_t i = 0; i < entries.size(); i++) result->index_.emplace(entries[i].name, i);
  return result;
}

HostTensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end())
    broken(path(),
           "expected a tensor " + quoted(name) + " but the file has none; is it the file of another model?");
  const Entry& entry = entries_[found->second];
  const std::string where = "tensor " + quoted(name);
  if (!entry.dtype)
    throw Error(ErrorCode::Unsupported, path() + ": " + where + ": dtype " + quoted(entry.dtypeText) +
                                            " is unknown here; convert the weights to F16, BF16 or F32");
  if (entry.shape.size() > kMaxRank)
    broken(path(), where + ": expected at most " + std::to_string(kMaxRank) + " dimensions but it has " +
                       std::to_string(entry.shape.size()));
  if (file_->currentSize() < file_->size())
    broken(path(), "expected " + std::to_string(file_->size()) + " bytes as when it was opened but it has " +
                       std::to_string(file_->currentSize()) +
                       " now; it was changed while in use, load the model again");

  HostTensor tensor;
  tensor.dtype = *entry.dtype;
  for (const int64_t d : entry.shape) tensor.shape.dim[tensor.shape.rank++] = d;
  tensor.name = name;
  const uint8_t* data = file_->data() + dataStart_ + entry.begin;
  tensor.data = data;
  if (reinterpret_cast<uintptr_t>(data) % alignmentOf(*entry.dtype) && entry.end > entry.begin) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<uint64_t>& copy = aligned_[found->second];
    if (copy.empty()) {
      copy.resize((entry.end - entry.begin + 7) / 8);
      std::memcpy(copy.data(), data, entry.end - entry.begin);
    }
    tensor.data = copy.data();
  }
  return tensor;
}

void SafetensorsFile::discard(const HostTensor& tensor) const {
  const auto bits = static_cast<size_t>(tensor.shape.count()) * static_cast<size_t>(dtypeBits(tensor.dtype));
  file_->discard(tensor.data, bits / 8);
}

}  // namespace nd
