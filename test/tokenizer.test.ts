import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ClipTokenizer } from '#lib/tokenizer/clip-tokenizer.js'
import { fromSymbols, toSymbols, vocabularySymbols } from '#lib/tokenizer/byte-symbols.js'
import { postcard, reference, root } from './support/paths.js'

const test = suite('tokenizer')
const folder = mkdtempSync(join(tmpdir(), 'nd-tokenizer-'))
test.after(() => rmSync(folder, { recursive: true, force: true }))

const cases = JSON.parse(readFileSync(reference('tokens.json'), 'utf8')) as {
  text: string
  ids: number[]
  untruncated: number[]
}[]
const whole = { padding: false, truncation: false }

/** CLIP's vocabulary and merges as files hold them. */
const clipFiles = (() => {
  const merges = readFileSync(join(root, 'lib/tokenizer/clip-merges.txt'), 'utf8').split('\n').slice(1).filter(Boolean)
  const tokens = [
    ...vocabularySymbols,
    ...vocabularySymbols.map((s) => s + '</w>'),
    ...merges.map((m) => m.replace(' ', '')),
    '<|startoftext|>',
    '<|endoftext|>'
  ]
  return { vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) as Record<string, number>, merges }
})()

const writeFolder = (name: string, files: Record<string, unknown>): string => {
  const path = join(folder, name)
  mkdirSync(path)
  for (const [file, content] of Object.entries(files))
    writeFileSync(join(path, file), typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

const tokenizerJson = (changes: { model?: object } & Record<string, unknown> = {}): object => {
  const { vocab, merges } = clipFiles
  const special = (content: string) => ({ id: vocab[content], content, normalized: true, special: true })
  return {
    added_tokens: [special('<|startoftext|>'), special('<|endoftext|>')],
    normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Replace' }, { type: 'Lowercase' }] },
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Split' }, { type: 'ByteLevel' }] },
    ...changes,
    model: { type: 'BPE', end_of_word_suffix: '</w>', vocab, merges, ...changes.model }
  }
}

const passesReference = (tokenizer: ClipTokenizer): void => {
  for (const { text, ids, untruncated } of cases) {
    const encoding = tokenizer.encode(text)
    assert.equal(encoding.ids, ids, JSON.stringify(text.slice(0, 60)))
    assert.equal(tokenizer.encode(text, whole).ids, untruncated)
    assert.is(encoding.truncated === null, untruncated.length <= 77)
  }
}

test('the built-in vocabulary gives every id of tokens.json', () => {
  const clip = ClipTokenizer.clip()
  assert.is(clip.vocabSize, 49408)
  assert.equal([clip.bosTokenId, clip.eosTokenId, clip.padTokenId, clip.modelMaxLength], [49406, 49407, 49407, 77])
  assert.ok(cases.length >= 27)
  passesReference(clip)
})

test('vocab.json with merges.txt gives the same', () => {
  const { vocab, merges } = clipFiles
  passesReference(
    ClipTokenizer.fromFolder(
      writeFolder('split', { 'vocab.json': vocab, 'merges.txt': `#version: 0.2\n${merges.join('\n')}\n` })
    )
  )
})

test('tokenizer.json gives the same, merges as lines or as pairs', () => {
  passesReference(ClipTokenizer.fromFolder(writeFolder('json', { 'tokenizer.json': tokenizerJson() })))
  const pairs = clipFiles.merges.map((merge) => merge.split(' '))
  passesReference(
    ClipTokenizer.fromFolder(writeFolder('pairs', { 'tokenizer.json': tokenizerJson({ model: { merges: pairs } }) }))
  )
})

// Ids from tokenizers 0.23.2 set up as CLIPTokenizerFast is.
const more: [string, number[]][] = [
  ['<|STARTOFTEXT|>Hi<|EndOfText|>', [49406, 1883, 49407]],
  ['<|startoftext|', [27, 347, 993, 6659, 4160, 347]],
  ['a\u0085b\ufeffc\u180ed', [320, 321, 171, 119, 379, 322, 157, 254, 492, 323]],
  [
    '\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3',
    [138, 123, 138, 112, 138, 123, 139, 481, 139, 225, 138, 109, 139, 481]
  ],
  ["I'LL WE'VE 'Twas it''s ''D", [328, 1342, 649, 1200, 713, 739, 585, 8445, 338, 8445, 323]],
  ['A\u030angstro\u0308m \u1e9e \u212b', [23176, 10352, 807, 7255, 332, 127, 509, 127, 354]],
  ['x\u001cy\u007f\u0080', [343, 472, 344, 221, 126, 478]],
  ['\u2177 \u0663\u096a 12\u00bd', [158, 227, 371, 149, 352, 7410, 359, 272, 273, 33613]],
  ['👩🏽‍🚀 🏳️‍🌈 🫠', [18800, 8514, 4244, 13542, 32610, 558, 104, 510]],
  ['ＳＴＡＲ ﬆ', [171, 121, 241, 171, 121, 242, 171, 121, 223, 171, 121, 496, 171, 105, 484]],
  ['don\u2019t', [847, 728, 503, 339]],
  ['\u1100\u1161\u11a8 \uac01', [21122, 479, 21122, 479]],
  ['\u13f8 \u13a0 \u1c90', [157, 237, 372, 166, 255, 364, 24829, 494]],
  ['\u0130\u0131I', [328, 16384, 18562, 328]]
]

test('marks in any case, white space, controls, scripts and contractions as the reference has them', () => {
  for (const [text, ids] of more) assert.equal(ClipTokenizer.clip().tokenize(text), ids, JSON.stringify(text))
})

test("SD 2's pad token '!' pads with id 0 and is found in the text", () => {
  const { vocab, merges } = clipFiles
  const files = { 'vocab.json': vocab, 'merges.txt': merges.join('\n') }
  const older = writeFolder('older', {
    ...files,
    'tokenizer_config.json': { pad_token: '<|endoftext|>', model_max_length: 77 },
    'special_tokens_map.json': { pad_token: '!', bos_token: { content: '<|startoftext|>', normalized: true } }
  })
  const newer = writeFolder('newer', {
    ...files,
    'tokenizer_config.json': {
      added_tokens_decoder: {
        0: { content: '!', normalized: false, special: true },
        49406: { content: '<|startoftext|>', normalized: true, special: true },
        49407: { content: '<|endoftext|>', normalized: true, special: true }
      },
      pad_token: '!',
      model_max_length: 12
    }
  })
  for (const path of [older, newer]) {
    const tokenizer = ClipTokenizer.fromFolder(path)
    assert.is(tokenizer.padTokenId, 0)
    assert.equal(tokenizer.tokenize('hello!!! world!'), [3306, 0, 0, 0, 1002, 0])
    assert.equal(tokenizer.tokenize('a ! b <|ENDOFTEXT|>'), [320, 0, 321, 49407])
    assert.is(tokenizer.vocabSize, 49408)
  }
  assert.equal(ClipTokenizer.fromFolder(newer).encode('hello').ids, [49406, 3306, 49407, 0, 0, 0, 0, 0, 0, 0, 0, 0])
})

test('added tokens of a saved tokenizer are one id each', () => {
  const { vocab, merges } = clipFiles
  const path = writeFolder('added', {
    'vocab.json': vocab,
    'merges.txt': merges.join('\n'),
    'added_tokens.json': { '<my-style>': 49408 }
  })
  const tokenizer = ClipTokenizer.fromFolder(path)
  assert.equal(tokenizer.tokenize('a <my-style> cat'), [320, 49408, 2368])
  assert.is(tokenizer.vocabSize, 49409)
  assert.is(tokenizer.decode([320, 49408, 2368]), 'a <my-style>cat')
})

test('the bundled model’s tokenizer', () => {
  const tokenizer = ClipTokenizer.fromFolder(join(postcard, 'tokenizer'))
  assert.equal([tokenizer.bosTokenId, tokenizer.eosTokenId, tokenizer.vocabSize], [845, 846, 847])
  const text = 'a red house on a beach at sunset'
  assert.is(tokenizer.decode(tokenizer.encode(text).ids, { skipSpecialTokens: true }), text)
})

test('padding, truncation and the text that is cut', () => {
  const clip = ClipTokenizer.clip()
  const { ids, truncated } = clip.encode('a photo of a cat, with 3 dogs', { maxLength: 7 })
  assert.equal(ids, [49406, 320, 1125, 539, 320, 2368, 49407])
  assert.is(truncated, ', with 3 dogs')
  assert.equal(clip.encode('cat', { maxLength: 5 }), { ids: [49406, 2368, 49407, 49407, 49407], truncated: null })
  assert.equal(clip.encode('cat', { maxLength: 5, padding: false }).ids, [49406, 2368, 49407])
  assert.throws(
    () => clip.encode('cat', { maxLength: 1 }),
    /Expected an integer of at least 2 for maxLength but received 1/
  )
  assert.throws(() => clip.encode(5 as unknown as string), /Expected a string for text/)
})

test('decode: bytes that are no UTF-8, special tokens, unknown ids', () => {
  const clip = ClipTokenizer.clip()
  assert.is(clip.decode(clip.tokenize('日本語 😀 café')), '日本語 😀 café')
  assert.is(clip.decode(clip.tokenize('😀').slice(0, 1)).codePointAt(0) !== undefined, true)
  assert.is(clip.decode([49406, 2368, 49407]), '<|startoftext|>cat <|endoftext|>')
  assert.throws(() => clip.decode([49408]), /token ids of 0..49407/)
  assert.is(fromSymbols(toSymbols('\0 \xff é 漢')), '\0 \xff é 漢')
})

test('a word of 200,000 letters is no trap', () => {
  const started = performance.now()
  const ids = ClipTokenizer.clip().tokenize('ab'.repeat(100_000))
  assert.ok(ids.length > 1000)
  assert.ok(performance.now() - started < 30_000)
})

test('folders that are broken or of another kind are refused', () => {
  const code = (name: string, files: Record<string, unknown>): string => {
    try {
      ClipTokenizer.fromFolder(writeFolder(name, files))
    } catch (error) {
      assert.ok((error as Error).message.length > 20)
      return (error as { code: string }).code
    }
    return 'none'
  }
  const { vocab, merges } = clipFiles
  assert.throws(() => ClipTokenizer.fromFolder(join(folder, 'nowhere')), /no tokenizer folder/)
  assert.is(code('empty', {}), 'ERR_ND_MODEL_NOT_FOUND')
  assert.is(code('no-merges', { 'vocab.json': vocab }), 'ERR_ND_MODEL_NOT_FOUND')
  assert.is(code('bad-json', { 'vocab.json': '{', 'merges.txt': 'a b' }), 'ERR_ND_MODEL_FORMAT')
  assert.is(code('bad-ids', { 'vocab.json': { a: 'x' }, 'merges.txt': '' }), 'ERR_ND_MODEL_FORMAT')
  assert.is(code('bad-merge', { 'vocab.json': vocab, 'merges.txt': '#version\na b c\n' }), 'ERR_ND_MODEL_FORMAT')
  assert.is(code('foreign', { 'vocab.json': vocab, 'merges.txt': '漢 字' }), 'ERR_ND_MODEL_FORMAT')
  assert.is(code('no-special', { 'vocab.json': { a: 0 }, 'merges.txt': '' }), 'ERR_ND_MODEL_FORMAT')
  assert.is(code('unigram', { 'tokenizer.json': tokenizerJson({ model: { type: 'Unigram' } }) }), 'ERR_ND_UNSUPPORTED')
  assert.is(code('gpt2', { 'tokenizer.json': tokenizerJson({ normalizer: null }) }), 'ERR_ND_UNSUPPORTED')
  assert.is(
    code('length', {
      'vocab.json': vocab,
      'merges.txt': merges.join('\n'),
      'tokenizer_config.json': { model_max_length: 'x' }
    }),
    'ERR_ND_MODEL_FORMAT'
  )
})

test.run()
