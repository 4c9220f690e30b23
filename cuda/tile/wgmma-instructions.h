// The forms of wgmma that kernels use, one per width and type: included by hopper.h alone, inside its
// namespace. Operands %0 … are d; then A (a descriptor or four words) and B's descriptor. The predicate says
// that d is added to.

template <class T, int N>
ND_DEVICE void wgmma(float (&d)[N / 8][4], uint64_t a, uint64_t b);
template <class T, int N>
ND_DEVICE void wgmmaTransposed(float (&d)[N / 8][4], const uint32_t (&a)[4], uint64_t b);

#define ND_R4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define ND_R8(i) ND_R4(i), ND_R4(i + 1)
#define ND_D20                             \
  "%0, %1, %2, %3, %4, %5, %6, %7, "       \
  "%8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19"
#define ND_D32                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define ND_D40                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39"
#define ND_D64                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63"
#define ND_D80                               \
  "%0, %1, %2, %3, %4, %5, %6, %7, "         \
  "%8, %9, %10, %11, %12, %13, %14, %15, "   \
  "%16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, " \
  "%40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, " \
  "%56, %57, %58, %59, %60, %61, %62, %63, " \
  "%64, %65, %66, %67, %68, %69, %70, %71, " \
  "%72, %73, %74, %75, %76, %77, %78, %79"
#define ND_D128                                      \
  "%0, %1, %2, %3, %4, %5, %6, %7, "                 \
  "%8, %9, %10, %11, %12, %13, %14, %15, "           \
  "%16, %17, %18, %19, %20, %21, %22, %23, "         \
  "%24, %25, %26, %27, %28, %29, %30, %31, "         \
  "%32, %33, %34, %35, %36, %37, %38, %39, "         \
  "%40, %41, %42, %43, %44, %45, %46, %47, "         \
  "%48, %49, %50, %51, %52, %53, %54, %55, "         \
  "%56, %57, %58, %59, %60, %61, %62, %63, "         \
  "%64, %65, %66, %67, %68, %69, %70, %71, "         \
  "%72, %73, %74, %75, %76, %77, %78, %79, "         \
  "%80, %81, %82, %83, %84, %85, %86, %87, "         \
  "%88, %89, %90, %91, %92, %93, %94, %95, "         \
  "%96, %97, %98, %99, %100, %101, %102, %103, "     \
  "%104, %105, %106, %107, %108, %109, %110, %111, " \
  "%112, %113, %114, %115, %116, %117, %118, %119, " \
  "%120, %121, %122, %123, %124, %125, %126, %127"

template <>
ND_DEVICE void wgmma<Half, 64>(float (&d)[8][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" ND_D32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 64>(float (&d)[8][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ND_D32 "}, %32, %33, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Half, 128>(float (&d)[16][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" ND_D64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 128>(float (&d)[16][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ND_D64 "}, %64, %65, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Half, 160>(float (&d)[20][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n160k16.f32.f16.f16 {" ND_D80 "}, %80, %81, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 160>(float (&d)[20][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {" ND_D80 "}, %80, %81, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Half, 256>(float (&d)[32][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" ND_D128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18), ND_R8(20), ND_R8(22), ND_R8(24), ND_R8(26), ND_R8(28), ND_R8(30)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmma<Bfloat, 256>(float (&d)[32][4], uint64_t a, uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" ND_D128 "}, %128, %129, p, 1, 1, 0, 0;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18), ND_R8(20), ND_R8(22), ND_R8(24), ND_R8(26), ND_R8(28), ND_R8(30)
      : "l"(a), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Half, 40>(float (&d)[5][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n40k16.f32.f16.f16 {" ND_D20
      "}, {%20, %21, %22, %23}, %24, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R4(4)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Bfloat, 40>(float (&d)[5][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n40k16.f32.bf16.bf16 {" ND_D20
      "}, {%20, %21, %22, %23}, %24, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R4(4)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Half, 64>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" ND_D32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Bfloat, 64>(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" ND_D32
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Half, 80>(float (&d)[10][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n80k16.f32.f16.f16 {" ND_D40
      "}, {%40, %41, %42, %43}, %44, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Bfloat, 80>(float (&d)[10][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n80k16.f32.bf16.bf16 {" ND_D40
      "}, {%40, %41, %42, %43}, %44, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Half, 128>(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" ND_D64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Bfloat, 128>(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" ND_D64
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Half, 160>(float (&d)[20][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n160k16.f32.f16.f16 {" ND_D80
      "}, {%80, %81, %82, %83}, %84, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
template <>
ND_DEVICE void wgmmaTransposed<Bfloat, 160>(float (&d)[20][4], const uint32_t (&a)[4], uint64_t b) {
  ND_HOPPER_ASM(
      "{\n .reg .pred p;\n setp.eq.u32 p, 0, 0;\n"
      " wgmma.mma_async.sync.aligned.m64n160k16.f32.bf16.bf16 {" ND_D80
      "}, {%80, %81, %82, %83}, %84, p, 1, 1, 1;\n}"
      : ND_R8(0), ND_R8(2), ND_R8(4), ND_R8(6), ND_R8(8), ND_R8(10), ND_R8(12), ND_R8(14), ND_R8(16),
        ND_R8(18)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef ND_R8
#undef ND_R4
#undef ND_D20
#undef ND_D32
#undef ND_D40
#undef ND_D64
#undef ND_D80
#undef ND_D128
