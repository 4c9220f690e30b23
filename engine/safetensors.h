// The safetensors format: u64 little-endian header length, a JSON header, then the tensors' bytes. Nothing in
// a file is trusted: whatever is broken gives an Error that says where, never a read outside of the mapping.
// Format and limits: https://github.com/huggingface/safetensors.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/mapped-file.h"
#include "engine/tensor.h"

namespace nd {

/// The DType of a name in a header ("BF16"), or nothing.
std::optional<DType> dtypeFromName(std::string_view name);

class SafetensorsFile {
 public:
  struct Entry {
    std::string name;
    std::string dtypeText;       // as written in the header
    std::optional<DType> dtype;  // nothing where the dtype is unknown here: such a tensor cannot be asked for
    std::vector<int64_t> shape;  // any rank
    size_t begin = 0, end = 0;   // bytes from the start of the data section
  };

  /// Maps the file and checks all of its header: JSON, dtypes, shapes, and that the tensors cover the data
  /// section without overlaps, holes or trailing bytes. Tensors of a dtype that is unknown here are listed
  /// but only their byte ranges can be checked (real files carry extras that no model asks for). Throws
  /// Error(ModelNotFound | ModelFormat), naming the file.
  static std::shared_ptr<const SafetensorsFile> open(const std::string& path);

  /// In the order of their bytes.
  const std::vector<Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return file_->path(); }
  /// MappedFile::identity().
  const std::string& identity() const { return file_->identity(); }
  bool has(const std::string& name) const { return index_.count(name) > 0; }

  /// The tensor's bytes, valid as long as this object. They lie in the mapping, aligned to the element (a
  /// byte for sub-byte types); where the file keeps them misaligned, they are copied once into memory of this
  /// object. Throws Error(ModelFormat) where there is none of that name, where the rank is above kMaxRank,
  /// and where the file has been truncated since it was opened (a truncation between this call and the
  /// reading is not caught: do not overwrite a model in place while it is in use). Throws Error(Unsupported)
  /// where the dtype is unknown. Thread-safe.
  HostTensor tensor(const std::string& name) const;
  /// Says that a tensor of this file has been read and is not needed soon: its pages need not stay in memory.
  void discard(const HostTensor& tensor) const;

 private:
  explicit SafetensorsFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}

  std::shared_ptr<const MappedFile> file_;
  size_t dataStart_ = 0;
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
  mutable std::mutex mutex_;                                           // guards aligned_
  mutable std::unordered_map<size_t, std::vector<uint64_t>> aligned_;  // entry → its bytes, copied
};

}  // namespace nd
