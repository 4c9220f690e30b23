#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <vector>

#include "test/native/check.h"

namespace ndtest {
namespace {

struct Test {
  std::string name;
  std::function<void()> body;
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Folder {
  std::filesystem::path path;
  Folder() {
    path = std::filesystem::temp_directory_path() / ("nd_test-" + std::to_string(std::random_device()()));
    std::filesystem::create_directories(path);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace

Registration::Registration(const char* name, std::function<void()> body) {
  tests().push_back({name, std::move(body)});
}

std::string reference(const std::string& name) {
  const char* folder = std::getenv("ND_REFERENCE");
  return (std::filesystem::path(folder ? folder : "test/reference") / name).string();
}

std::string temporaryFile(const std::string& name) {
  static const Folder folder;
  return (folder.path / name).string();
}

void note(const std::string& text) { std::printf("       %s\n", text.c_str()); }

}  // namespace ndtest

int main(int argc, char** argv) {
  int failed = 0, run = 0, skipped = 0;
  for (const ndtest::Test& test : ndtest::tests()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; i++) wanted = wanted || test.name.find(argv[i]) != std::string::npos;
    if (!wanted) continue;
    run++;
    const auto start = std::chrono::steady_clock::now();
    const char* result = "ok  ";
    std::string message;
    try {
      test.body();
    } catch (const ndtest::Skip& skip) {
      skipped++;
      result = "skip";
      message = skip.what();
    } catch (const std::exception& error) {
      failed++;
      result = "FAIL";
      message = error.what();
    }
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    std::printf("%s   %s (%.0f ms)%s%s\n", result, test.name.c_str(), time.count(),
                message.empty() ? "" : ": ", message.c_str());
    std::fflush(stdout);
  }
  if (run == 0) std::printf("no test has such a name\n");
  std::printf("%d passed, %d failed, %d skipped\n", run - failed - skipped, failed, skipped);
  return failed || run == 0;
}
