// A file mapped read-only into memory: weights are used where they lie, and the system pages them in and out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace nd {

class MappedFile {
 public:
  /// Throws Error(ModelNotFound) where the file is missing, unreadable, or not a regular file. An empty file
  /// maps to size() 0 and data() null. `path` is UTF-8.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

  /// Lets go of the whole pages among [data, data + bytes) where they belong to this file: they no longer
  /// count as resident and are read again if they are asked for. Nothing on Windows.
  void discard(const void* data, size_t bytes) const;

  /// Tells files and their versions apart: device, file number, size and time of the last change when it was
  /// opened, however it was named.
  const std::string& identity() const { return identity_; }

  /// The file's length now: less than size() once somebody has truncated it, and reading the lost pages would
  /// then end the process (SIGBUS). Windows refuses to truncate a mapped file, so it is always size() there.
  uint64_t currentSize() const;

 private:
  explicit MappedFile(std::string path) : path_(std::move(path)) {}
  std::string path_, identity_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
#ifdef _WIN32
  void* file_ = nullptr;
  void* mapping_ = nullptr;
#else
  int file_ = -1;
#endif
};

}  // namespace nd
