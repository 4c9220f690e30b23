// Transfers, rows, embeddings and the latents' way in and out, against the reference: bit for bit, as they
// only move values or round once.
#include <cmath>

#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

/// Runs `body` on the reference and on every subject and expects the same floats.
template <class Body>
void sameEverywhere(Body&& body) {
  const std::vector<float> expected = body(reference());
  for (const Subject& s : subjects()) checkClose(body(*s.backend), expected, 0, s.isa);
}

}  // namespace

ND_TEST("transfer: images in and out") {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 9, 11, 4}, Shape{3, 70, 65, 3}}) {
    const std::vector<float> host = randomFloats(shape.count(), 1);
    sameEverywhere([&](Backend& b) {
      const OnBackend image(b, shape, shape.last() + 3);
      b.uploadImage(host.data(), image);
      image.checkGaps("uploadImage");
      std::vector<float> back(host.size()), rows = image.download();
      b.downloadImage(image, back.data());
      CHECK(back == host);
      return rows;
    });
  }
}

ND_TEST("transfer: pixels round as in diffusers, whatever the value") {
  std::vector<float> values = {-2, -1, -0.5f, 0, 0.5f, 1, 2, NAN, INFINITY, -INFINITY};
  for (int i = 0; i <= 510; i++) values.push_back(static_cast<float>(i) / 255 - 1);  // also the ties
  for (float v : randomFloats(4096, 5)) values.push_back(v * 1.2f);
  while (values.size() % 3) values.push_back(0);
  sameEverywhere([&](Backend& b) {
    const OnBackend image(b, {1, 1, static_cast<int64_t>(values.size()) / 3, 3}, values);
    std::vector<uint8_t> pixels(values.size());
    b.downloadPixels(image, pixels.data());
    return std::vector<float>(pixels.begin(), pixels.end());
  });
}

ND_TEST("transfer: model input and output") {
  const std::vector<float> latents = randomFloats(2 * 4 * 9 * 11, 2);
  sameEverywhere([&](Backend& b) {
    const OnBackend x(b, {2, 4, 9, 11}, latents), y(b, {6, 9, 11, 4}), z(b, {6, 4, 9, 11});
    b.modelInput(x, 0.18215, 3, y);
    b.modelOutput(y, z);
    std::vector<float> both = y.download(), back = z.download();
    both.insert(both.end(), back.begin(), back.end());
    return both;
  });
}

ND_TEST("transfer: add, gatherRows, copyColumns with strided rows") {
  const std::vector<float> p = randomFloats(700 * 90, 3), q = randomFloats(700 * 90, 4);
  sameEverywhere([&](Backend& b) {
    const OnBackend x(b, {700, 90}, p, 95), y(b, {700, 90}, q), sum(b, {700, 90}, 100),
        wide(b, {700, 200}, std::vector<float>(140000));
    b.add(x, y, 0.5f, sum);
    b.add(sum, y, 1, sum);  // in place
    sum.checkGaps("add");
    b.copyColumns(sum, wide, 37);
    const int32_t rows[] = {699, 0, 3, 3};
    const OnBackend some(b, {4, 200}, 203);
    b.gatherRows(wide, rows, some);
    some.checkGaps("gatherRows");
    std::vector<float> all = wide.download(), gathered = some.download();
    all.insert(all.end(), gathered.begin(), gathered.end());
    return all;
  });
}

ND_TEST("transfer: embeddings of every dtype, with and without positions") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F8_E4M3, DType::F8_E5M2})
    sameEverywhere([&](Backend& b) {
      const WeightPtr table =
          makeWeight(b, WeightKind::Table, HostWeight({10, 21}, randomFloats(210, 1), dtype));
      const WeightPtr positions =
          makeWeight(b, WeightKind::Table, HostWeight({4, 21}, randomFloats(84, 2), dtype));
      const int32_t ids[] = {9, 0, 3, 3, 1, 2, 9, 8};
      const OnBackend y(b, {2, 4, 21}), z(b, {2, 4, 21});
      b.embed({table.get(), positions.get(), ids, 4, y});
      b.embed({table.get(), nullptr, ids, 4, z});
      const int32_t outside[] = {10};
      const OnBackend one(b, {1, 21});
      CHECK_ERROR(b.embed({table.get(), nullptr, outside, 1, one}), ErrorCode::Internal,
                  "ids within the table");
      std::vector<float> both = y.download(), plain = z.download();
      both.insert(both.end(), plain.begin(), plain.end());
      return both;
    });
}

}  // namespace nd::test
