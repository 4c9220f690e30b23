/** What is fuzzed of TypeScript's side: each target has inputs to begin with, and runs one; DiffusionErrors are right answers. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from './crc32.mjs'

const root = new URL('../../', import.meta.url)
const lib = (name) => import(new URL(`dist/${name}.js`, root))
const read = (path) => readFileSync(new URL(path, root))
const must = (condition, what) => {
  if (!condition) throw new Error(`broken: ${what}`)
}

/** Right lengths and checksums of a PNG file's chunks, as far as they can be told. */
const mendPng = (bytes) => {
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = bytes.readUInt32BE(at)
    if (at + 12 + length > bytes.length) break
    bytes.writeUInt32BE(crc32(bytes.subarray(at + 4, at + 8 + length)), at + 8 + length)
    at += 12 + length
  }
  return bytes
}

const png = async () => {
  const { DiffusionImage, readPngText, writePngText } = await lib('index')
  const image = new DiffusionImage({
    data: new Uint8Array(12),
    width: 2,
    height: 2,
    parameters: 'a\nSteps: 1, Seed: 2'
  })
  const plain = await image.toBuffer('png')
  const international = writePngText(plain, 'comment', 'ein Text: ☃')
  const { deflateSync } = await import('node:zlib')
  const packed = (type, head) => {
    const data = Buffer.concat([Buffer.from(head, 'latin1'), deflateSync(Buffer.from('Text '.repeat(20)))])
    const chunk = Buffer.alloc(12 + data.length)
    chunk.writeUInt32BE(data.length, 0)
    chunk.write(type, 4, 'latin1')
    data.copy(chunk, 8)
    return mendPng(Buffer.concat([plain.subarray(0, 33), chunk, plain.subarray(33)]))
  }
  return {
    mend: mendPng,
    words: ['tEXt', 'zTXt', 'iTXt', 'IEND', 'IHDR', 'parameters'],
    seeds: () => [plain, international, packed('zTXt', 'packed\0\0'), packed('iTXt', 'packed\0\x01\0en\0\0')],
    run(bytes) {
      const texts = readPngText(bytes)
      for (const text of Object.values(texts)) must(typeof text === 'string', 'a text that is none')
      const again = readPngText(writePngText(bytes, 'parameters', 'new: ☃'))
      must(again.parameters === 'new: ☃', 'what was written is not read')
      for (const [name, text] of Object.entries(texts))
        must(name === 'parameters' || again[name] === text, `${name} is gone`)
    }
  }
}

const infotext = async () => {
  const { formatParameters, parseParameters } = await lib('index')
  const seeds = [
    'a house\nNegative prompt: dark\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: x',
    'Steps: 1, Seed: 99999999999999999999, Hires prompt: "a, \\"b\\": c\\n", Lora hashes: "a: 1, b: 2", Version: v1.10.0',
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
  ]
  return {
    words: ['Steps: ', 'Seed: ', 'Size: 8x8', 'Negative prompt: ', ', ', ': "'],
    seeds: () => seeds.map((text) => Buffer.from(text)),
    run(bytes) {
      // A hundred times as long as what was made: what takes more than its length shows.
      for (const text of [bytes.toString('utf8'), bytes.toString('latin1').repeat(100)]) {
        const parameters = parseParameters(text)
        must(typeof parameters.prompt === 'string', 'no prompt')
        formatParameters(parameters)
      }
    }
  }
}

/** Every config.json and its kin that the tests have, by the class that reads it. */
const config = async () => {
  const { parseConfigJson } = await lib('json')
  const parsers = {
    UNet2DConditionModel: (await lib('models/unet')).parseUNetConfig,
    AutoencoderKL: (await lib('models/vae')).parseVaeConfig,
    AutoencoderTiny: (await lib('models/taesd')).parseTinyVaeConfig,
    ControlNetModel: (await lib('models/controlnet')).parseControlNetConfig,
    T2IAdapter: (await lib('models/t2i-adapter')).parseT2iAdapterConfig,
    UNet2DModel: (await lib('models/unet2d')).parseUNet2dConfig,
    LDMBertModel: (await lib('models/ldm-bert')).parseLdmBertConfig,
    clip_vision_model: (await lib('models/clip-vision')).parseClipVisionConfig,
    clip_text_model: await lib('models/clip-text').then(
      ({ parseClipTextConfig }) =>
        (json, source) =>
          parseClipTextConfig(json, 'CLIPTextModel', source)
    )
  }
  const files = ['models', 'test/reference/models'].flatMap((folder) =>
    readdirSync(new URL(folder, root), { recursive: true })
      .filter((file) => /(^|[/\\])config\.json$/.test(file))
      .map((file) => `${folder}/${file}`)
  )
  return {
    json: true,
    words: ['Infinity', '-Infinity'],
    seeds: () => files.map(read),
    run(bytes) {
      let json
      try {
        json = parseConfigJson(bytes.toString('utf8'))
      } catch (error) {
        if (error instanceof SyntaxError) return // its callers say which file
        throw error
      }
      const name = json?._class_name ?? json?.model_type
      const parse = Object.hasOwn(parsers, name) ? parsers[name] : parsers.UNet2DConditionModel
      const parsed = parse(json, 'a file')
      must(typeof parsed === 'object', 'no config')
    }
  }
}

const scheduler = async () => {
  const { createScheduler, parseConfigJson, schedulerClasses } = await lib('schedulers/index')
  const names = [...schedulerClasses.keys()]
  const common = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: 'scaled_linear', num_train_timesteps: 1000 }
  const more = {
    ...{ prediction_type: 'v_prediction', timestep_spacing: 'leading', steps_offset: 1, use_karras_sigmas: true },
    ...{ rescale_betas_zero_snr: true, lambda_min_clipped: -5.1, solver_order: 2, algorithm_type: 'sde-dpmsolver++' }
  }
  return {
    json: true,
    words: names,
    seeds: () => [
      ...names.map((name) => Buffer.from(JSON.stringify({ _class_name: name, ...common }))),
      ...names.map((name) => Buffer.from(JSON.stringify({ _class_name: name, ...common, ...more })))
    ],
    run(bytes) {
      let json
      try {
        json = parseConfigJson(bytes.toString('utf8'))
      } catch (error) {
        if (error instanceof SyntaxError) return
        throw error
      }
      const plan = createScheduler(json).plan(3)
      must(Array.isArray(plan.rows ?? plan) || typeof plan === 'object', 'no plan')
    }
  }
}

/** A tokenizer's folder in one input: its files, each after a line of its name. */
const tokenizer = async () => {
  const { ClipTokenizer } = await lib('index')
  const folder = mkdtempSync(join(tmpdir(), 'nd-fuzz-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const base = 'test/reference/models/tiny-sd15/tokenizer/'
  const names = ['tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'merges.txt', 'vocab.json']
  const merges = ['#version: 0.2', 'a b</w>', 't h', 'th e</w>'].join('\n')
  const symbols = [
    'a',
    'b',
    't',
    'h',
    'e',
    'a</w>',
    'b</w>',
    'e</w>',
    'ab</w>',
    'th',
    'the</w>',
    '<|startoftext|>',
    '<|endoftext|>'
  ]
  const vocabulary = JSON.stringify(Object.fromEntries(symbols.map((symbol, id) => [symbol, id])))
  const part = (name, text) => `====${name}\n${text}\n`
  const small = Buffer.from(
    part('tokenizer_config.json', read(`${base}tokenizer_config.json`)) +
      part('special_tokens_map.json', read(`${base}special_tokens_map.json`)) +
      part('added_tokens.json', '{"<cat>": 13}') +
      part('merges.txt', merges) +
      part('vocab.json', vocabulary)
  )
  const fast = Buffer.from(
    part(
      'tokenizer.json',
      JSON.stringify({
        added_tokens: [{ id: 12, content: '<|endoftext|>', special: true, normalized: false }],
        model: {
          type: 'BPE',
          vocab: JSON.parse(vocabulary),
          merges: merges.split('\n').slice(1),
          end_of_word_suffix: '</w>'
        }
      })
    ) + part('tokenizer_config.json', read(`${base}tokenizer_config.json`))
  )
  const allowed = new Set([...names, 'tokenizer.json'])
  return {
    words: ['====vocab.json\n', '====merges.txt\n', '"content"', '"lstrip": true', '<|endoftext|>', '</w>'],
    seeds: () => [small, fast],
    run(bytes) {
      for (const name of allowed) rmSync(join(folder, name), { force: true })
      for (const text of bytes.toString('latin1').split('====').slice(1)) {
        const name = text.slice(0, text.indexOf('\n'))
        if (allowed.has(name)) writeFileSync(join(folder, name), Buffer.from(text.slice(name.length + 1), 'latin1'))
      }
      const read = ClipTokenizer.fromFolder(folder)
      const { ids } = read.encode("the ab <cat> it's 42 ünï 🎈")
      must(
        [...ids].every((id) => Number.isInteger(id) && id >= 0),
        'an id that is none'
      )
      read.decode(ids)
    }
  }
}

const prompt = async () => {
  const { ClipTokenizer, parsePromptWeights } = await lib('index')
  const { parseLoraTags } = await lib('adapters/prompt-tags')
  const clip = ClipTokenizer.clip()
  const seeds = [
    '(a house:1.3) [dark] ((x)) \\(y\\) BREAK b AND c',
    'a <lora:name:0.8> <lora:b:1:0.5> [a:b:0.5] (((((',
    "ﬁ İ ß 'S it's 12 🎈"
  ]
  return {
    words: ['(', ')', '[', ']', ':1.3)', '<lora:', '\\', 'BREAK'],
    seeds: () => seeds.map((text) => Buffer.from(text)),
    run(bytes) {
      const text = bytes.toString('utf8')
      for (const part of parsePromptWeights(text))
        must(part === 'BREAK' || !Number.isNaN(part.weight), `weight ${part.weight}`)
      parseLoraTags(text)
      parsePromptWeights(text.repeat(50).slice(0, 32000))
      const { ids } = clip.encode(text)
      must(ids.length > 0 && ids.length <= 77, `${ids.length} ids`)
    }
  }
}

export const targets = { png, infotext, config, scheduler, tokenizer, prompt }
