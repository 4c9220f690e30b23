#!/usr/bin/env bash
# bash tools/emulate-x86.sh [NAME…] [-NAME…]: the native tests (nd_test's arguments; all but CUDA's without any) on a
# Xeon with AVX-512, AVX512_BF16 and AMX that Bochs emulates, instruction by instruction, for machines that lack them.
# Needs build/Release/nd_test (node tools/build.mjs native test), Debian's packages below, a network for Debian's kernel
# and Bochs (or BOCHS_SOURCE, a tree of that commit). Built once, in build/emulate-x86. Ends with nd_test's own counts
# and status.
#
# tools/emulate-x86/bochs.patch: vcvtne2ps2bf16 read beyond its first operand; IA32_XFD, without which Linux offers no
# AMX; and less in CPUID (performance counters, fast short rep movsb), with which Debian's kernel did not boot.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=783b58fd6d9bae598a07c59719122322fa0edce6
limit=${EMULATE_SECONDS:-3600}
tools=$PWD/tools/emulate-x86 test=$PWD/build/Release/nd_test work=$PWD/build/emulate-x86
[ -x "$test" ] || { echo "expected $test: node tools/build.mjs native test" >&2; exit 2; }
[ $# -gt 0 ] || set -- -cuda
for file in /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 /usr/bin/xorriso /usr/bin/cpio; do
  [ -e "$file" ] || { echo "expected $file: apt-get install isolinux syslinux-common xorriso cpio" >&2; exit 2; }
done
mkdir -p "$work"
cd "$work"

if [ ! -x bochs/bochs/bochs ]; then
  rm -rf bochs
  if [ -n "${BOCHS_SOURCE:-}" ]; then
    cp -r "$BOCHS_SOURCE" bochs
  else
    git init -q bochs
    git -C bochs fetch -q --depth 1 https://github.com/bochs-emu/Bochs "$commit"
    git -C bochs -c advice.detachedHead=false checkout -q FETCH_HEAD
  fi
  patch -s -p1 -d bochs <"$tools/bochs.patch"
  (cd bochs/bochs && ./configure --enable-cpu-level=6 --enable-x86-64 --enable-avx --enable-evex --enable-amx \
    --enable-all-optimizations --with-nogui --disable-plugins --disable-docbook CXXFLAGS='-O3' CFLAGS='-O3' && make -j"$(nproc)") >bochs.log 2>&1 ||
    { tail -n 5 bochs.log >&2; exit 1; }
fi

if [ ! -e vmlinuz ]; then
  rm -rf packages && mkdir packages && cd packages
  kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  apt-get download -q "$kernel" busybox-static >/dev/null
  for package in *.deb; do dpkg -x "$package" .; done
  cp bin/busybox .. && cp boot/vmlinuz-* ../vmlinuz
  cd ..
fi

# A system of one program: the test, the libraries that it needs, and the references that it reads.
rm -rf root iso && mkdir -p root/{bin,dev,proc,tmp,reference} iso/isolinux
cp busybox root/bin/ && ln -s busybox root/bin/sh
cp "$test" root/
ldd "$test" | grep -oE '/[^ ]+' | while read -r library; do mkdir -p "root$(dirname "$library")" && cp -L "$library" "root$library"; done
find ../../test/reference -maxdepth 1 -type f -size -2048k -exec cp {} root/reference/ \;
printf '%q ' "$@" >root/arguments
cat >root/init <<'END'
#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox grep -m1 'model name' /proc/cpuinfo
export ND_REFERENCE=/reference
eval "/nd_test $(/bin/busybox cat /arguments)"
echo "emulated: status $?"
while true; do /bin/busybox sleep 1000; done
END
chmod +x root/init
(cd root && find . | cpio -o -H newc --quiet) | gzip -1 >iso/initrd
cp vmlinuz iso/
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 iso/isolinux/
cat >iso/isolinux/isolinux.cfg <<'END'
default linux
prompt 0
label linux
 kernel /vmlinuz
 append initrd=/initrd console=ttyS0 earlyprintk=serial,ttyS0 nokaslr quiet mitigations=off nopti tsc=reliable lpj=500000
END
xorriso -as mkisofs -quiet -o boot.iso -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot \
  -boot-load-size 4 -boot-info-table iso 2>/dev/null
cat >bochsrc <<END
cpu: model=sapphire_rapids, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=2048, host=2048
romimage: file=$work/bochs/bochs/bios/BIOS-bochs-latest, options=fastboot
vgaromimage: file=$work/bochs/bochs/bios/VGABIOS-lgpl/VGABIOS-lgpl-latest.bin
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/serial.txt
display_library: nogui
log: $work/bochs-run.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none
speaker: enabled=0
END

: >serial.txt
bochs/bochs/bochs -q -f bochsrc >bochs-run.txt 2>&1 &
bochs=$!
trap 'kill -9 $bochs 2>/dev/null || true' EXIT
shown=0
for ((second = 0; second < limit; second++)); do
  sleep 1
  lines=$(wc -l <serial.txt)
  tail -n "+$((shown + 1))" serial.txt | head -n "$((lines - shown))" | tr -d '\r' | grep -E '^(ok  |FAIL|skip|      |model name|[0-9]+ passed)' || true
  shown=$lines
  if status=$(tr -d '\r' <serial.txt | sed -n 's/^emulated: status //p') && [ -n "$status" ]; then exit "$status"; fi
  grep -q 'Kernel panic' serial.txt && { tail -n 20 serial.txt >&2; exit 1; }
  kill -0 $bochs 2>/dev/null || { tail -n 5 bochs-run.txt >&2; exit 1; }
done
echo "no end after $limit s; EMULATE_SECONDS allows more" >&2
exit 1
