#include <algorithm>
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

// nd_test [NAME…] [-NAME…]: the tests with one of these in their names, or all, without those with one of
// those.
int main(int argc, char** argv) {
  std::vector<std::string> names, others;
  for (int i = 1; i < argc; i++) {
    const std::string argument = argv[i];
    if (argument.starts_with('-'))
      others.push_back(argument.substr(1));
    else
      names.push_back(argument);
  }
  int failed = 0, run = 0, skipped = 0;
  for (const ndtest::Test& test : ndtest::tests()) {
    const auto named = [&](const std::string& name) { return test.name.find(name) != std::string::npos; };
    if (!names.empty() && std::none_of(names.begin(), names.end(), named)) continue;
    if (std::any_of(others.begin(), others.end(), named)) continue;
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
