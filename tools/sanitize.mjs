// npm run sanitize [-- address|thread] [-- NAME…]: the engine's native tests under AddressSanitizer and UBSan (address), or under
// ThreadSanitizer (thread); without the CUDA simulator, whose stacks switched by hand the sanitizers take for broken ones. Arguments after
// the sanitizer are parts of tests' names. The last line is nd_test's, `N passed, N failed, N skipped`.
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { root, run, runOrExit } from './process.mjs'

const [kind = 'address', ...names] = process.argv.slice(2)
if (kind !== 'address' && kind !== 'thread') {
  console.error(`Expected address or thread but received ${kind}`)
  process.exit(2)
}
const folder = join(root, 'build', kind)
const options = [`-DND_SANITIZE=${kind}`, '-DND_TESTS=ON', '-DND_CUDA=OFF', '-DCMAKE_BUILD_TYPE=Release']
await runOrExit('cmake', ['-S', root, '-B', folder, ...options], { capture: true })
await runOrExit('cmake', [
  ...['--build', folder, '--target', 'nd_test'],
  ...['-j', process.env.ND_JOBS ?? String(availableParallelism())]
])
const { code } = await run(join(folder, 'nd_test'), names, {
  env: {
    ASAN_OPTIONS: 'detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1'
  }
})
process.exitCode = code ?? 1
