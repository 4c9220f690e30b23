import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { equalizeChunks, parsePromptWeights, tokenizePrompt } from '#lib/prompt.js'
import { ClipTokenizer } from '#lib/tokenizer/clip-tokenizer.js'

const test = suite('prompt')
const clip = ClipTokenizer.clip()
const [bos, eos, comma, cat, dog] = [49406, 49407, 267, 2368, 1929]

const parsed = (prompt: string): [string, number][] =>
  parsePromptWeights(prompt).map((part) =>
    part === 'BREAK' ? ['BREAK', -1] : [part.text, Number(part.weight.toFixed(6))]
  )

const weighted = (prompt: string) => tokenizePrompt(clip, prompt, { weights: true })
const chunk = (prompt: { ids: Int32Array; length: number }, i: number): number[] => [
  ...prompt.ids.subarray(i * prompt.length, (i + 1) * prompt.length)
]

test('the weight syntax, with the examples that AUTOMATIC1111 documents', () => {
  assert.equal(parsed('normal text'), [['normal text', 1]])
  assert.equal(parsed('an (important) word'), [
    ['an ', 1],
    ['important', 1.1],
    [' word', 1]
  ])
  assert.equal(parsed('(unbalanced'), [['unbalanced', 1.1]])
  assert.equal(parsed('\\(literal\\]'), [['(literal]', 1]])
  assert.equal(parsed('(unnecessary)(parens)'), [['unnecessaryparens', 1.1]])
  assert.equal(parsed('a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).'), [
    ['a ', 1],
    ['house', 1.573],
    [' ', 1.1],
    ['on', 1],
    [' a ', 1.1],
    ['hill', 0.55],
    [', sun, ', 1.1],
    ['sky', 1.4641],
    ['.', 1.1]
  ])
})

test('nesting, escapes, stray brackets and colons', () => {
  assert.equal(parsed('((a))'), [['a', 1.21]])
  assert.equal(parsed('[a]'), [['a', 0.909091]])
  assert.equal(parsed('[[a] b'), [
    ['a', 0.826446],
    [' b', 0.909091]
  ])
  assert.equal(parsed('a)b]c'), [['a)b]c', 1]])
  assert.equal(parsed('time 12:30, ratio 3:4)'), [['time 12:30, ratio 3:4)', 1]])
  assert.equal(parsed('(a: 1.5 )'), [['a', 1.5]])
  assert.equal(parsed('(a:-1)'), [['a', -1]])
  assert.equal(parsed('(a:0)'), [['a', 0]])
  assert.equal(parsed('[a:1.5]'), [['a:1.5', 0.909091]])
  assert.equal(parsed('a\\\\b \\c'), [['a\\b c', 1]])
  assert.equal(parsed(''), [['', 1]])
  assert.equal(parsed('()'), [['', 1]])
  assert.throws(() => parsePromptWeights('(a:1.2.3)'), /a number for a prompt weight but received "1.2.3"/)
})

test('BREAK stands alone as a word', () => {
  assert.equal(parsed('a BREAK b'), [
    ['a', 1],
    ['BREAK', -1],
    ['b', 1]
  ])
  assert.equal(parsed('BREAKFAST, a BREAKb, break'), [['BREAKFAST, a BREAKb, break', 1]])
  assert.equal(parsed('(a BREAK b:1.5)'), [
    ['a', 1.5],
    ['BREAK', -1],
    ['b', 1.5]
  ])
})

test('off by default: brackets are text, the rest is cut with a warning', () => {
  const plain = tokenizePrompt(clip, '(cat:1.3)')
  assert.equal(plain.ids, Int32Array.from(clip.encode('(cat:1.3)').ids))
  assert.is(plain.weighted, false)
  assert.is(plain.warning, null)
  const long = tokenizePrompt(clip, 'cat '.repeat(75) + 'and a dog')
  assert.is(long.chunks, 1)
  assert.is(long.ids[76], eos)
  assert.match(long.warning!, '"and a dog"')
  assert.throws(() => tokenizePrompt(clip, null as unknown as string), /Expected a string for prompt/)
})

test('weights lie over their tokens', () => {
  const { ids, weights, chunks, length, weighted: any } = weighted('(cat:1.5) dog')
  assert.equal([chunks, length, any], [1, 77, true])
  assert.equal([...ids.subarray(0, 5)], [bos, cat, dog, eos, eos])
  assert.equal([...weights.subarray(0, 5)], [1, 1.5, 1, 1, 1])
  assert.is(weighted('cat').weighted, false)
})

test('75 tokens fill a chunk, 76 begin the next', () => {
  const full = weighted('cat '.repeat(75))
  assert.is(full.chunks, 1)
  assert.equal(chunk(full, 0), [bos, ...Array(75).fill(cat), eos])
  const more = weighted('cat '.repeat(76))
  assert.is(more.chunks, 2)
  assert.equal(chunk(more, 0), chunk(full, 0))
  assert.equal(chunk(more, 1), [bos, cat, ...Array(75).fill(eos)])
  assert.is(more.warning, null)
})

test('a chunk ends at the last comma of its last 20 tokens', () => {
  const near = weighted('cat '.repeat(60) + ',' + ' dog'.repeat(20))
  assert.equal(chunk(near, 0), [bos, ...Array(60).fill(cat), comma, ...Array(15).fill(eos)])
  assert.equal(chunk(near, 1).slice(0, 23), [bos, ...Array(20).fill(dog), eos, eos])
  const weightedTail = weighted('cat '.repeat(60) + ', (' + ' dog'.repeat(20) + ':1.5)')
  assert.equal([...weightedTail.weights.subarray(77, 99)], [1, ...Array(20).fill(1.5), 1])
  // 75 − 54 = 21 back: too far.
  const far = weighted('cat '.repeat(54) + ',' + ' dog'.repeat(30))
  assert.equal(chunk(far, 0), [bos, ...Array(54).fill(cat), comma, ...Array(20).fill(dog), eos])
  const reach = weighted('cat '.repeat(55) + ',' + ' dog'.repeat(30))
  assert.equal(chunk(reach, 0), [bos, ...Array(55).fill(cat), comma, ...Array(20).fill(eos)])
  // A comma as the 76th token does not move anything; it begins the next chunk.
  const after = weighted('cat '.repeat(75) + ', dog')
  assert.equal(chunk(after, 1).slice(0, 4), [bos, comma, dog, eos])
})

test('BREAK fills its chunk up', () => {
  const two = weighted('cat BREAK (dog:1.2)')
  assert.is(two.chunks, 2)
  assert.equal(chunk(two, 0), [bos, cat, ...Array(75).fill(eos)])
  assert.equal(chunk(two, 1), [bos, dog, ...Array(75).fill(eos)])
  assert.is(weighted('cat BREAK').chunks, 1)
  assert.is(weighted('BREAK cat').chunks, 2)
})

test('prompts are made equally long with empty chunks', () => {
  const [long, empty] = equalizeChunks(clip, [weighted('cat '.repeat(200)), weighted('')])
  assert.equal([long!.chunks, empty!.chunks], [3, 3])
  for (let i = 0; i < 3; i++) assert.equal(chunk(empty!, i), [bos, ...Array(76).fill(eos)])
  assert.is(empty!.weights.length, 231)
  assert.ok(empty!.weights.every((w) => w === 1))
  assert.equal(equalizeChunks(clip, [long!])[0], long)
})

test.run()
