// Lets the addon load where glibc is older than the one that it was linked with. A static libstdc++, libgcc
// or CUDA runtime, and the linker, take the newest version of every function of glibc. Here are hidden
// functions of the same names, which the linker finds first, and which jump to the version that glibc has had
// from the beginning. What is not referenced is dropped (--gc-sections).
#include <cstddef>
#include <cstdint>

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
#include <link.h>
#include <sys/stat.h>

// x86-64 counts its versions from 2.2.5, AArch64 from 2.17.
#if defined(__x86_64__)
#define ND_FIRST "GLIBC_2.2.5"
#define ND_FIRST_DLMOPEN "GLIBC_2.3.4"
#define ND_JUMP(name) "jmp " name "@PLT\n"
constexpr int statVersion = 1;
#else
#define ND_FIRST "GLIBC_2.17"
#define ND_FIRST_DLMOPEN "GLIBC_2.17"
#define ND_JUMP(name) "b " name "\n"
constexpr int statVersion = 0;
#endif

#define ND_OLD_VERSION(name, version)                                                                     \
  __asm__(".symver nd_old_" #name "," #name "@" version                                                   \
          "\n"                                                                                            \
          ".pushsection .text.nd_old_" #name                                                              \
          ",\"ax\"\n"                                                                                     \
          ".globl " #name                                                                                 \
          "\n"                                                                                            \
          ".hidden " #name                                                                                \
          "\n"                                                                                            \
          ".type " #name ", %function\n" #name ":\n" ND_JUMP("nd_old_" #name) ".size " #name ", .-" #name \
                                                                              "\n"                        \
                                                                              ".popsection\n")
#define ND_OLD(name) ND_OLD_VERSION(name, ND_FIRST)

// 2.29 brought versions that do not set errno in SVID's way.
ND_OLD(exp);
ND_OLD(log);
ND_OLD(pow);

// 2.34 moved libpthread, libdl and librt into libc.
ND_OLD(dlclose);
ND_OLD(dlerror);
ND_OLD_VERSION(dlmopen, ND_FIRST_DLMOPEN);
ND_OLD(dlopen);
ND_OLD(dlsym);
ND_OLD(dlvsym);
ND_OLD(__pthread_key_create);
ND_OLD(pthread_condattr_setpshared);
ND_OLD(pthread_create);
ND_OLD(pthread_detach);
ND_OLD(pthread_getspecific);
ND_OLD(pthread_join);
ND_OLD(pthread_key_create);
ND_OLD(pthread_key_delete);
ND_OLD(pthread_kill);
ND_OLD(pthread_mutex_trylock);
ND_OLD(pthread_mutexattr_destroy);
ND_OLD(pthread_mutexattr_init);
ND_OLD(pthread_mutexattr_setpshared);
ND_OLD(pthread_mutexattr_settype);
ND_OLD(pthread_once);
ND_OLD(pthread_rwlock_destroy);
ND_OLD(pthread_rwlock_init);
ND_OLD(pthread_rwlock_rdlock);
ND_OLD(pthread_rwlock_timedrdlock);
ND_OLD(pthread_rwlock_timedwrlock);
ND_OLD(pthread_rwlock_tryrdlock);
ND_OLD(pthread_rwlock_trywrlock);
ND_OLD(pthread_rwlock_unlock);
ND_OLD(pthread_rwlock_wrlock);
ND_OLD(pthread_rwlockattr_destroy);
ND_OLD(pthread_rwlockattr_init);
ND_OLD(pthread_rwlockattr_setpshared);
ND_OLD(pthread_setspecific);
ND_OLD(pthread_spin_destroy);
ND_OLD(pthread_spin_init);
ND_OLD(pthread_spin_lock);
ND_OLD(pthread_spin_trylock);
ND_OLD(pthread_spin_unlock);
ND_OLD(sem_destroy);
ND_OLD(sem_init);
ND_OLD(sem_post);
ND_OLD(sem_timedwait);
ND_OLD(sem_trywait);
ND_OLD(sem_wait);
ND_OLD(shm_open);
ND_OLD(shm_unlink);

#define ND_HIDDEN(name) __asm__(name) __attribute__((visibility("hidden")))

// 2.32: whether the process has one thread alone, so that libstdc++ may count references without atomics.
// Never said here.
extern "C" {
extern char ndSingleThreaded ND_HIDDEN("__libc_single_threaded");
char ndSingleThreaded = 0;

// 2.33 gave stat and fstat symbols of their own.
int ndOldFxstat(int version, int file, struct stat* out) __asm__("nd_old___fxstat");
int ndOldXstat(int version, const char* path, struct stat* out) __asm__("nd_old___xstat");
__asm__(".symver nd_old___fxstat,__fxstat@" ND_FIRST);
__asm__(".symver nd_old___xstat,__xstat@" ND_FIRST);
int ndFstat(int file, struct stat* out) ND_HIDDEN("fstat");
int ndFstat(int file, struct stat* out) { return ndOldFxstat(statVersion, file, out); }
int ndStat(const char* path, struct stat* out) ND_HIDDEN("stat");
int ndStat(const char* path, struct stat* out) { return ndOldXstat(statVersion, path, out); }

// 2.35: where the unwinder of libgcc finds the tables of the object that has an address (struct
// dl_find_object).
struct NdFoundObject {
  unsigned long long flags;
  void* mapStart;
  void* mapEnd;
  link_map* linkMap;
  void* exceptionHeader;
  unsigned long long reserved[7];
};
int ndFindObject(void* address, NdFoundObject* found) ND_HIDDEN("_dl_find_object");
int ndFindObject(void* address, NdFoundObject* found) {
  struct Search {
    std::uintptr_t address;
    NdFoundObject* found;
  } search{reinterpret_cast<std::uintptr_t>(address), found};
  const auto look = [](dl_phdr_info* object, std::size_t, void* data) -> int {
    Search& search = *static_cast<Search*>(data);
    std::uintptr_t start = UINTPTR_MAX, end = 0, header = 0;
    bool inside = false;
    for (int i = 0; i < object->dlpi_phnum; i++) {
      const auto& part = object->dlpi_phdr[i];
      const std::uintptr_t from = object->dlpi_addr + part.p_vaddr, to = from + part.p_memsz;
      if (part.p_type == PT_GNU_EH_FRAME) header = from;
      if (part.p_type != PT_LOAD) continue;
      inside = inside || (search.address >= from && search.address < to);
      start = from < start ? from : start;
      end = to > end ? to : end;
    }
    if (!inside || header == 0) return 0;
    *search.found = {};
    search.found->mapStart = reinterpret_cast<void*>(start);
    search.found->mapEnd = reinterpret_cast<void*>(end);
    search.found->exceptionHeader = reinterpret_cast<void*>(header);
    return 1;
  };
  return dl_iterate_phdr(look, &search) == 1 ? 0 : -1;
}
}
#endif
