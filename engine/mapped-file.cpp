#include "engine/mapped-file.h"

#include <cstdint>
#include <limits>

#include "engine/error.h"

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#endif

namespace nd {
namespace {

[[noreturn]] void notFound(const std::string& path, const std::string& why) {
  throw Error(ErrorCode::ModelNotFound, path + ": expected a readable file but " + why + "; check the path");
}

#ifndef _WIN32
std::string systemMessage(int code) { return std::generic_category().message(code); }
#endif

}  // namespace

#ifdef _WIN32

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const auto failed = [&path]() {
    notFound(path, "Windows error " + std::to_string(GetLastError()) + " came");
  };
  const int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.c_str(), -1, nullptr, 0);
  if (length <= 0) notFound(path, "its name is not UTF-8");
  std::wstring wide(static_cast<size_t>(length), L'\0');
  MultiByteToWideChar(CP_UTF8, 0, path.c_str(), -1, wide.data(), length);

  std::shared_ptr<MappedFile> mapped(new MappedFile(path));
  const HANDLE file = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                                  OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) failed();
  mapped->file_ = file;
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) failed();
  BY_HANDLE_FILE_INFORMATION info;
  if (!GetFileInformationByHandle(file, &info)) failed();
  mapped->identity_ = format("%lx %lx %lx %lld %lx %lx", info.dwVolumeSerialNumber, info.nFileIndexHigh,
                             info.nFileIndexLow, static_cast<long long>(size.QuadPart),
                             info.ftLastWriteTime.dwHighDateTime, info.ftLastWriteTime.dwLowDateTime);
  if (size.QuadPart == 0) return mapped;  // an empty file cannot be mapped
  mapped->mapping_ = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
  if (!mapped->mapping_) failed();
  mapped->data_ = static_cast<const uint8_t*>(MapViewOfFile(mapped->mapping_, FILE_MAP_READ, 0, 0, 0));
  if (!mapped->data_) failed();
  mapped->size_ = static_cast<size_t>(size.QuadPart);
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) UnmapViewOfFile(data_);
  if (mapping_) CloseHandle(mapping_);
  if (file_) CloseHandle(file_);
}

uint64_t MappedFile::currentSize() const { return size_; }
void MappedFile::discard(const void*, size_t) const {}

#else

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  std::shared_ptr<MappedFile> mapped(new MappedFile(path));
  mapped->file_ =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: a named pipe must not hang
  if (mapped->file_ < 0) notFound(path, systemMessage(errno));
  struct stat info;
  if (fstat(mapped->file_, &info) != 0) notFound(path, systemMessage(errno));
  if (S_ISDIR(info.st_mode)) notFound(path, "it is a folder");
  if (!S_ISREG(info.st_mode)) notFound(path, "it is not a regular file");
#ifdef __APPLE__
  const timespec changed = info.st_mtimespec;
#else
  const timespec changed = info.st_mtim;
#endif
  mapped->identity_ =
      format("%llx %llx %llx %llx %lx", static_cast<unsigned long long>(info.st_dev),
             static_cast<unsigned long long>(info.st_ino), static_cast<unsigned long long>(info.st_size),
             static_cast<unsigned long long>(changed.tv_sec), static_cast<unsigned long>(changed.tv_nsec));
  if (info.st_size == 0) return mapped;  // an empty file cannot be mapped
  if (static_cast<uint64_t>(info.st_size) > std::numeric_limits<size_t>::max())
    notFound(path, "it is larger than the address space");
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, mapped->file_, 0);
  if (data == MAP_FAILED) notFound(path, "mapping it failed: " + systemMessage(errno));
  mapped->data_ = static_cast<const uint8_t*>(data);
  mapped->size_ = size;
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
  if (file_ >= 0) close(file_);
}

void MappedFile::discard(const void* data, size_t bytes) const {
  const auto file = reinterpret_cast<uintptr_t>(data_), start = reinterpret_cast<uintptr_t>(data);
  if (start < file || start - file > size_ || bytes > size_ - (start - file)) return;
  // The mapping begins at a page.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t first = (start - file + page - 1) / page * page, last = (start - file + bytes) / page * page;
  if (first < last) madvise(const_cast<uint8_t*>(data_) + first, last - first, MADV_DONTNEED);
}

uint64_t MappedFile::currentSize() const {
  struct stat info;
  return fstat(file_, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
}

#endif

}  // namespace nd
