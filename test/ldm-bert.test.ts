/** Latent diffusion with a BERT-like text encoder: tokens, states, pictures of the references. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { BertTokenizer, Pipeline } from 'node-diffusion'
import { bertWords } from '#lib/tokenizer/bert-tokenizer.js'
import { family, optionsOf } from './support/cases.js'
import { pictureError, relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { copyOf, removeCopies } from './support/model-folders.js'
import { editJson } from './support/picture-models.js'
import { reference } from './support/paths.js'

const test = suite('ldm-bert')
const folder = reference('models', 'tiny-ldm-bert')
const prompt = 'a red house on a beach at sunset'
const { cases, tensors } = family('ldm-bert')
let pipe: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(folder)
})
test.after(async () => {
  await pipe.dispose()
  await removeCopies()
})

test('token ids and states are the references', async () => {
  const ids = [prompt, ''].map((text) => pipe.tokenizer.encode(text).ids)
  assert.equal(ids.flat(), [...tensors.get('text.ids').data].map(Number))
  const { lastHiddenState, hiddenStates, pooled } = await pipe.textEncoder.encode(ids)
  const error = relativeError(lastHiddenState.data, tensors.floats('text.last'))
  assert.ok(error < 1e-5, `text.last: ${error}`)
  assert.is(hiddenStates.length, 4)
  assert.is(pooled, undefined)
})

test('the picture is the reference', async () => {
  assert.is(cases.length, 1)
  const { images } = await pipe.txt2img(optionsOf(cases[0]!))
  assert.ok(pictureError(images[0]!.data, tensors.floats('txt2img.output')) < 0.5)
})

test('guidance: off at 1, which is the default, and on below', async () => {
  const options = { prompt, steps: 2, seed: 3, outputType: 'latent' } as const
  const plain = (await pipe.txt2img(options)).latents.data
  assert.equal((await pipe.txt2img({ ...options, guidanceScale: 1 })).latents.data, plain)
  const half = (await pipe.txt2img({ ...options, guidanceScale: 0.5 })).latents.data
  assert.ok(relativeError(half, plain) > 1e-4)
  // At 0 the prompt does not count: the picture is the one of no text, of which "" is the negative prompt's default.
  const none = (await pipe.txt2img({ ...options, guidanceScale: 0 })).latents.data
  const empty = (await pipe.txt2img({ ...options, prompt: '' })).latents.data
  assert.ok(relativeError(none, empty) < 1e-5)
})

test('what the family has not is refused by name', async () => {
  assert.equal(pipe.tasks, ['txt2img'])
  await fails(() => pipe.img2img({ prompt, image: Buffer.alloc(1) }), 'ERR_ND_UNSUPPORTED', /img2img.*txt2img/)
  await fails(() => pipe.txt2img({ prompt, clipSkip: 1 }), 'ERR_ND_UNSUPPORTED', /clipSkip/)
  await fails(() => pipe.txt2img({ prompt, promptWeighting: true }), 'ERR_ND_UNSUPPORTED', /promptWeighting/)
  await fails(() => pipe.txt2img({ prompt, prompt2: 'x' }), 'ERR_ND_INVALID_ARGUMENT', /prompt2/)
  const vq = await copyOf('ldm-bert')
  editJson(join(vq, 'model_index.json'), (json) => ((json.vqvae as string[])[1] = 'VQModel'))
  await fails(() => Pipeline.fromPretrained(vq), 'ERR_ND_UNSUPPORTED', /vqvae.*VQModel/)
  const relu = await copyOf('ldm-bert')
  editJson(join(relu, 'bert', 'config.json'), (json) => (json.activation_function = 'relu'))
  await fails(() => Pipeline.fromPretrained(relu), 'ERR_ND_UNSUPPORTED', /activation_function/)
})

test('long prompts are cut at 77 tokens, and it is said', async () => {
  const { warnings } = await pipe.txt2img({ prompt: `${'red '.repeat(75)}blue cat`, steps: 1, width: 32, height: 32 })
  assert.match(warnings.join(), /77 tokens.*"blue cat"/)
})

const options = { lowerCase: true, stripAccents: true, splitChinese: true }

test('words: case, accents, punctuation, Chinese, controls', () => {
  const words = (text: string, changes: Partial<typeof options> = {}): string =>
    bertWords(text, { ...options, ...changes }).join('|')
  assert.is(words('Héllo,  WORLD!'), 'hello|,|world|!')
  assert.is(words('ÀÉÎÕÜ'), 'aeiou')
  assert.is(words('ΑΣ'), 'ασ')
  assert.is(words('$5.00^2`~'), '$|5|.|00|^|2|`|~')
  assert.is(words('\u201Cquoted\u201D \u2014 dash'), '\u201C|quoted|\u201D|\u2014|dash')
  assert.is(words('ab中文cd'), 'ab|中|文|cd')
  assert.is(words('ab中文cd', { splitChinese: false }), 'ab中文cd')
  assert.is(words('a\u0000b\u200Bc\ufffdd\u00A0e\tf\ng'), 'abcd|e|f|g')
  assert.is(words('Été', { lowerCase: false, stripAccents: false }), 'Été')
  assert.is(words('Été', { lowerCase: false }), 'Ete')
  assert.is(words('Été', { stripAccents: false }), 'été')
  assert.is(words(''), '')
})

const vocabulary = [
  '[PAD]',
  '[UNK]',
  '[CLS]',
  '[SEP]',
  '[MASK]',
  'un',
  '##aff',
  '##able',
  'aff',
  '##a',
  'red',
  ',',
  '中'
]
const parts = {
  vocabulary: new Map(vocabulary.map((token, id) => [token, id])),
  addedTokens: [
    { content: '[MASK]', id: 4, normalized: false, leftStrip: false, rightStrip: false, singleWord: false }
  ],
  clsToken: '[CLS]',
  sepToken: '[SEP]',
  padToken: '[PAD]',
  unknownToken: '[UNK]',
  modelMaxLength: 8,
  ...options
}

test('pieces: longest first, unknown words whole, special tokens as they are', () => {
  const tokenizer = new BertTokenizer(parts)
  const tokens = (text: string): string =>
    tokenizer
      .tokenize(text)
      .map((id) => vocabulary[id]!)
      .join(' ')
  assert.is(tokens('Unaffable, aff'), 'un ##aff ##able , aff')
  assert.is(tokens('unaffablex red'), '[UNK] red')
  assert.is(tokens('red[MASK]red'), 'red [MASK] red')
  assert.is(tokens('[mask]'), '[UNK] [UNK] [UNK]')
  assert.is(tokens(`un${'a'.repeat(98)}`), `un ${'##a '.repeat(98)}`.trim())
  assert.is(tokens(`un${'a'.repeat(99)}`), '[UNK]')
  assert.equal(tokenizer.encode('red').ids, [2, 10, 3, 0, 0, 0, 0, 0])
  assert.equal(tokenizer.encode('red', { padding: false }).ids, [2, 10, 3])
  const cut = tokenizer.encode('red red red red red red unaffable')
  assert.equal(cut.ids, [2, 10, 10, 10, 10, 10, 10, 3])
  assert.is(cut.truncated, 'unaffable')
  assert.is(tokenizer.decode(tokenizer.encode('unaffable, red').ids), '[CLS] unaffable , red [SEP] [PAD]')
})

test('tokenizer.json says the same as vocab.txt', async () => {
  const copy = join(await copyOf('ldm-bert'), 'tokenizer')
  const both = ['A red house, Ünknown!', 'sea 中 [SEP] night', '']
  const expected = both.map((text) => pipe.tokenizer.encode(text).ids)
  const vocab = Object.fromEntries(
    readFileSync(join(copy, 'vocab.txt'), 'utf8')
      .split('\n')
      .map((token, id) => [token, id])
  )
  const json = {
    added_tokens: [],
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 100,
      vocab
    }
  }
  writeFileSync(join(copy, 'tokenizer.json'), JSON.stringify(json))
  rmSync(join(copy, 'vocab.txt'))
  assert.equal(
    both.map((text) => BertTokenizer.fromFolder(copy, 77).encode(text).ids),
    expected
  )
  writeFileSync(join(copy, 'tokenizer.json'), JSON.stringify({ ...json, normalizer: { type: 'NFC' } }))
  await fails(async () => BertTokenizer.fromFolder(copy), 'ERR_ND_UNSUPPORTED', /BertNormalizer.*NFC/)
  rmSync(join(copy, 'tokenizer.json'))
  await fails(async () => BertTokenizer.fromFolder(copy), 'ERR_ND_MODEL_NOT_FOUND', /vocab\.txt/)
})

test.run()
