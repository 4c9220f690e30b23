// Fuzzing (libFuzzer) of the header of safetensors files: any bytes are a file that opens or one that is
// refused with nd::Error, and of a file that opens every tensor's bytes can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "engine/error.h"
#include "engine/safetensors.h"

namespace {

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

/// The input as a file that needs no disk.
struct MemoryFile {
  int file = memfd_create("input", 0);
  MemoryFile(const uint8_t* data, size_t size) {
    if (file < 0 || (size && write(file, data, size) != static_cast<ssize_t>(size))) broken("memfd");
  }
  ~MemoryFile() { close(file); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file); }
};

void readAll(const nd::SafetensorsFile& file, const nd::SafetensorsFile::Entry& entry) {
  if (!file.has(entry.name)) broken("a listed tensor is not found");
  try {
    const nd::HostTensor tensor = file.tensor(entry.name);
    const auto bytes =
        static_cast<size_t>(tensor.shape.count()) * static_cast<size_t>(nd::dtypeBits(tensor.dtype)) / 8;
    if (bytes != entry.end - entry.begin) broken("the shape has other bytes than the entry");
    const auto* data = static_cast<const uint8_t*>(tensor.data);
    unsigned sum = 0;
    for (size_t i = 0; i < bytes; i++) sum += data[i];  // AddressSanitizer and the mapping's end look on
    if (sum == 1) file.discard(tensor);
  } catch (const nd::Error& error) {
    if (error.code != nd::ErrorCode::ModelFormat && error.code != nd::ErrorCode::Unsupported)
      broken(error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  try {
    const auto file = nd::SafetensorsFile::open(memory.path());
    for (const auto& entry : file->entries()) readAll(*file, entry);
  } catch (const nd::Error& error) {
    if (error.code != nd::ErrorCode::ModelFormat) broken(error.what());
  }
  return 0;
}
