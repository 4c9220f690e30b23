// node examples/batch.mjs prompts.csv|prompts.json [folder]: a picture for every row. Columns are options of txt2img (prompt, negativePrompt, seed,
// steps, guidanceScale, width, height, scheduler …) and `file`. What is there already is left alone, so that an interrupted batch goes on.
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Pipeline } from 'node-diffusion'

const [table, folder = 'out'] = process.argv.slice(2)
if (!table) throw new Error('Expected the path of a .csv or .json file')

/** Lines of RFC 4180: quoted fields may have commas, line ends and doubled quotes. */
const parseCsv = (text) => {
  const rows = [[]]
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain)
    if (end !== ',' && end !== '') rows.push([])
    if (end === '') break
  }
  const [names, ...values] = rows.filter((row) => row.some((field) => field !== ''))
  return values.map((row) =>
    Object.fromEntries(names.map((name, i) => [name, row[i] ?? '']).filter(([, v]) => v !== ''))
  )
}

const numbers = new Set(['seed', 'steps', 'guidanceScale', 'width', 'height', 'clipSkip', 'eta'])
const text = readFileSync(table, 'utf8').replace(/^\ufeff/, '')
const rows = table.endsWith('.json') ? JSON.parse(text) : parseCsv(text)
mkdirSync(folder, { recursive: true })
const pipe = await Pipeline.fromPretrained(process.env.MODEL ?? 'postcard')
let failed = 0
for (const [i, { file = `${String(i + 1).padStart(4, '0')}.png`, ...row }] of rows.entries()) {
  const path = join(folder, file)
  if (existsSync(path)) continue
  const options = Object.fromEntries(Object.entries(row).map(([k, v]) => [k, numbers.has(k) ? Number(v) : v]))
  try {
    const { images, timings } = await pipe.txt2img({ seed: i, ...options })
    await images[0].save(path) // whole or not at all
    console.log(`${path}  ${timings.total.toFixed(2)} s  ${row.prompt}`)
  } catch (error) {
    failed++
    console.error(`row ${i + 1}: ${error.message}`)
  }
}
await pipe.dispose()
process.exitCode = failed ? 1 : 0
