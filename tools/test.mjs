// npm test [-- NAME…] [-- --no-build]: builds everything, runs the native tests and every build/test/*.test.js in a process
// of its own, and closes with the line `N passed, N failed`. Skipped tests are printed with their reason.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { root, run, runOrExit } from './process.mjs'

const flags = process.argv.slice(2).filter((arg) => arg.startsWith('--'))
const names = process.argv.slice(2).filter((arg) => !arg.startsWith('--'))
const unknown = flags.find((flag) => flag !== '--no-build')
if (unknown) {
  console.error(`Unknown option ${unknown}; expected names of tests or --no-build`)
  process.exit(2)
}
const timeoutSeconds = Number(process.env.ND_TEST_TIMEOUT ?? 900)
const total = { passed: 0, failed: 0, skipped: 0 }

const plainText = (text) => text.replace(/\x1b\[[0-9;]*m/g, '')

const report = (name, counts, seconds, { output, code, timedOut }) => {
  if (timedOut) output += `\nended after ${timeoutSeconds} s (ND_TEST_TIMEOUT)\n`
  // A crash, a time-out or a file without tests is a failure even where every test that ran has passed.
  if ((code !== 0 || !counts) && !counts?.failed) counts = { passed: 0, skipped: 0, ...counts, failed: 1 }
  for (const key of Object.keys(total)) total[key] += counts[key]
  const skips = counts.skipped ? `, ${counts.skipped} skipped` : ''
  console.log(
    `${counts.failed ? 'FAIL' : 'ok  '} ${name}: ${counts.passed} passed, ${counts.failed} failed${skips} (${seconds.toFixed(1)} s)`
  )
  if (counts.failed) console.log(output.replace(/^/gm, '     '))
  else for (const line of output.split('\n')) if (/^\s*skip\b/.test(line)) console.log(`     ${line.trim()}`)
}

const timed = async (command, args) => {
  const start = performance.now()
  const result = await run(command, args, { capture: true, timeoutSeconds })
  return { ...result, output: plainText(result.output), seconds: (performance.now() - start) / 1000 }
}

const runNative = async () => {
  const program = join(root, 'build', 'Release', process.platform === 'win32' ? 'nd_test.exe' : 'nd_test')
  if (!existsSync(program))
    return report('native', null, 0, { output: `${program} is missing`, code: 1, timedOut: false })
  const result = await timed(program, [])
  const counts = /^(\d+) passed, (\d+) failed, (\d+) skipped$/m.exec(result.output)
  const numbers = counts && { passed: +counts[1], failed: +counts[2], skipped: +counts[3] }
  report('native', numbers, result.seconds, result)
}

const runFile = async (file) => {
  const result = await timed(process.execPath, [join(root, 'build', 'test', file)])
  const number = (label) => Number(new RegExp(`^\\s*${label}:\\s+(\\d+)$`, 'm').exec(result.output)?.[1] ?? NaN)
  const [all, passed, skipped] = ['Total', 'Passed', 'Skipped'].map(number)
  const numbers = all > 0 ? { passed, failed: all - passed, skipped } : null
  report(file.replace('.test.js', ''), numbers, result.seconds, result)
}

if (!flags.includes('--no-build'))
  await runOrExit(process.execPath, [join(root, 'tools', 'build.mjs'), 'native', 'lib', 'test'])

const wanted = (name) => names.length === 0 || names.some((part) => name.includes(part))
if (wanted('native')) await runNative()
const files = readdirSync(join(root, 'build', 'test')).filter((file) => file.endsWith('.test.js'))
for (const file of files.sort()) if (wanted(file)) await runFile(file)
if (total.passed + total.failed === 0) {
  console.error(`No test has such a name: ${names.join(', ')}`)
  process.exit(2)
}
if (total.skipped) console.log(`${total.skipped} skipped`)
console.log(`${total.passed} passed, ${total.failed} failed`)
process.exitCode = total.failed ? 1 : 0
