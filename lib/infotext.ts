/** The `parameters` text that AUTOMATIC1111 writes into pictures, and that other tools read. */

export interface GenerationParameters {
  prompt: string
  negativePrompt?: string
  steps?: number
  /** AUTOMATIC1111's name, such as "DPM++ 2M". */
  sampler?: string
  /** Such as "Karras". */
  scheduleType?: string
  cfgScale?: number
  /** A decimal number where it is beyond 2⁵³. */
  seed?: number | bigint | string
  width?: number
  height?: number
  model?: string
  version?: string
  /** Any other fields, under the names that the text has ("Clip skip", "Denoising strength"). */
  other?: Record<string, string>
}

const quote = (value: string): string => (/[,\n:]/.test(value) ? JSON.stringify(value) : value)

const unquote = (value: string): string => {
  if (!/^".*"$/s.test(value)) return value
  try {
    const text: unknown = JSON.parse(value)
    return typeof text === 'string' ? text : value
  } catch {
    return value // not one of ours: as it came
  }
}

/** Prompt, negative prompt on lines of their own, then one line of `Name: value` pairs. */
export const formatParameters = (p: GenerationParameters): string => {
  const fields: [string, string | number | bigint | undefined][] = [
    ['Steps', p.steps],
    ['Sampler', p.sampler],
    ['Schedule type', p.scheduleType],
    ['CFG scale', p.cfgScale],
    ['Seed', p.seed],
    ['Size', p.width !== undefined && p.height !== undefined ? `${p.width}x${p.height}` : undefined],
    ['Model', p.model],
    ...Object.entries(p.other ?? {}),
    ['Version', p.version]
  ]
  const line = fields
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${quote(String(value))}`]))
    .join(', ')
  return [
    p.prompt,
    ...(p.negativePrompt ? [`Negative prompt: ${p.negativePrompt}`] : []),
    ...(line ? [line] : [])
  ].join('\n')
}

/** The end of a quoted value that begins at `start` and is followed by a comma or the end; −1 where there is none. */
const quoteEnd = (line: string, start: number): number => {
  for (let i = start + 1; i < line.length; i++)
    if (line[i] === '\\') i++
    else if (line[i] === '"') return i > start + 1 && (i + 1 === line.length || line[i + 1] === ',') ? i + 1 : -1
  return -1
}
const isWord = (c: string | undefined): boolean => c !== undefined && /\w/.test(c)

/**
 * The `Name: value` pairs of a line, values quoted or up to the next comma; what is between them is left out. In a time that grows with
 * the line: it may come from anywhere, and be long.
 */
const fieldsOf = (line: string): [name: string, value: string][] => {
  const fields: [string, string][] = []
  let at = 0
  for (let colon = line.indexOf(':'); colon >= 0; colon = line.indexOf(':', Math.max(at, colon + 1))) {
    // The name: the letters, digits, spaces, - and / before the colon, from a letter or digit on.
    let start = colon
    while (start > at && /[\w \-/]/.test(line[start - 1]!)) start--
    while (start < colon && !isWord(line[start])) start++
    if (colon - start < 2) continue
    let value = colon + 1
    while (value < line.length && /\s/.test(line[value]!)) value++
    const closed = line[value] === '"' ? quoteEnd(line, value) : -1
    const comma = line.indexOf(',', value)
    const end = closed >= 0 ? closed : comma >= 0 ? comma : line.length
    fields.push([line.slice(start, colon), line.slice(value, end).trim()])
    at = end + 1
  }
  return fields
}

/** The reverse of formatParameters(), for AUTOMATIC1111's own texts too: unknown fields are in `other`. */
export const parseParameters = (text: string): GenerationParameters => {
  const lines = text.trim().split('\n')
  const last = lines.pop() ?? ''
  // A last line with fewer than three fields belongs to the prompt, unless it is plainly ours.
  let found = fieldsOf(last)
  if (found.length < 3 && !/^Steps: \d+/.test(last)) {
    lines.push(last)
    found = []
  }
  const prompt: string[] = []
  const negative: string[] = []
  let inNegative = false
  for (const line of lines) {
    if (line.startsWith('Negative prompt:')) inNegative = true
    ;(inNegative ? negative : prompt).push(line.startsWith('Negative prompt:') ? line.slice(16).trim() : line)
  }
  const fields = new Map(found.map(([name, value]) => [name, unquote(value)]))
  const result: GenerationParameters = { prompt: prompt.join('\n').trim() }
  if (inNegative) result.negativePrompt = negative.join('\n').trim()
  const take = (name: string, use: (value: string) => boolean | void): void => {
    const value = fields.get(name)
    if (value !== undefined && use(value) !== false) fields.delete(name)
  }
  const number = (key: 'steps' | 'cfgScale') => (value: string) => {
    if (value === '' || !Number.isFinite(Number(value))) return false
    result[key] = Number(value)
    return true
  }
  take('Steps', number('steps'))
  take('CFG scale', number('cfgScale'))
  take('Sampler', (value) => void (result.sampler = value))
  take('Schedule type', (value) => void (result.scheduleType = value))
  take('Model', (value) => void (result.model = value))
  take('Version', (value) => void (result.version = value))
  take('Seed', (value) => void (result.seed = Number.isSafeInteger(Number(value)) ? Number(value) : value))
  take('Size', (value) => {
    const size = /^(\d+)x(\d+)$/.exec(value)
    if (!size) return false
    result.width = Number(size[1])
    result.height = Number(size[2])
    return true
  })
  if (fields.size) result.other = Object.fromEntries(fields)
  return result
}
