/**
 * Perturbed-attention guidance by its definition: a perturbed layer against the middle block computed here, and the guidance
 * against networks that are called one by one.
 */
import { DDIMScheduler, Generator, Pipeline, type Tensor } from 'node-diffusion'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { relativeError } from './support/compare.js'
import { fails } from './support/fails.js'
import { reference } from './support/paths.js'
import { TestFile } from './support/safetensors.js'

const test = suite('perturbed attention')
let pipe: Pipeline
let xl: Pipeline
test.before(async () => {
  pipe = await Pipeline.fromPretrained(reference('models', 'tiny-sd15'))
  xl = await Pipeline.fromPretrained(reference('models', 'tiny-sdxl'))
})
test.after(async () => {
  await pipe.dispose()
  await xl.dispose()
})

type Matrix = number[][]
const weights = new TestFile(reference('models', 'tiny-sd15', 'unet', 'diffusion_pytorch_model.safetensors'))
const vector = (name: string): number[] => Array.from(weights.floats(name))
const has = (name: string): boolean => weights.names.includes(name)
const silu = (v: number): number => v / (1 + Math.exp(-v))
const times = (row: number[], name: string): number[] => {
  const w = vector(`${name}.weight`)
  const n = w.length / row.length
  const bias = has(`${name}.bias`) ? vector(`${name}.bias`) : Array<number>(n).fill(0)
  return bias.map((b, i) => row.reduce((sum, v, k) => sum + v * w[i * row.length + k]!, b))
}
const plus = (a: Matrix, b: Matrix): Matrix => a.map((row, i) => row.map((v, k) => v + b[i]![k]!))
const linear = (x: Matrix, name: string): Matrix => {
  const w = vector(`${name}.weight`)
  const width = x[0]!.length
  const n = w.length / width
  const bias = has(`${name}.bias`) ? vector(`${name}.bias`) : Array<number>(n).fill(0)
  return x.map((row) => bias.map((b, i) => row.reduce((sum, v, k) => sum + v * w[i * width + k]!, b)))
}
const normalised = (values: number[], epsilon: number): number[] => {
  const mean = values.reduce((a, b) => a + b) / values.length
  const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length
  return values.map((v) => (v - mean) / Math.sqrt(variance + epsilon))
}
const scaled = (row: number[], name: string): number[] => {
  const [gamma, beta] = [vector(`${name}.weight`), vector(`${name}.bias`)]
  return row.map((v, i) => v * gamma[i]! + beta[i]!)
}
const layerNorm = (x: Matrix, name: string): Matrix => x.map((row) => scaled(normalised(row, 1e-5), name))
/** x: a row of channels per pixel. */
const groupNorm = (x: Matrix, name: string, groups: number, epsilon: number): Matrix => {
  const each = x[0]!.length / groups
  const out = x.map((row) => row.slice())
  for (let g = 0; g < groups; g++) {
    const flat = normalised(
      x.flatMap((row) => row.slice(g * each, (g + 1) * each)),
      epsilon
    )
    flat.forEach((v, i) => (out[Math.floor(i / each)]![g * each + (i % each)] = v))
  }
  return out.map((row) => scaled(row, name))
}
const conv3 = (x: Matrix, side: number, name: string): Matrix => {
  const [w, bias] = [vector(`${name}.weight`), vector(`${name}.bias`)]
  const channels = x[0]!.length
  return x.map((_, p) => {
    const [py, px] = [Math.floor(p / side), p % side]
    return bias.map((b, n) => {
      let sum = b
      for (let dy = -1; dy <= 1; dy++)
        for (let dx = -1; dx <= 1; dx++) {
          if (py + dy < 0 || py + dy >= side || px + dx < 0 || px + dx >= side) continue
          const row = x[(py + dy) * side + px + dx]!
          for (let c = 0; c < channels; c++) sum += row[c]! * w[((n * channels + c) * 3 + dy + 1) * 3 + dx + 1]!
        }
      return sum
    })
  })
}
const attention = (q: Matrix, k: Matrix, v: Matrix, heads: number): Matrix => {
  const d = q[0]!.length / heads
  return q.map((row) =>
    row.map((_, column) => {
      const from = Math.floor(column / d) * d
      const scores = k.map((key) => {
        let dot = 0
        for (let i = from; i < from + d; i++) dot += row[i]! * key[i]!
        return Math.exp(dot / Math.sqrt(d))
      })
      const total = scores.reduce((a, b) => a + b)
      return scores.reduce((sum, s, i) => sum + (s / total) * v[i]![column]!, 0)
    })
  )
}
const erf = (x: number): number => {
  // The series: arguments are small here.
  let [sum, term] = [0, x]
  for (let n = 0; n < 60; n++) {
    sum += term / (2 * n + 1)
    term *= (-x * x) / (n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}
const gelu = (v: number): number => 0.5 * v * (1 + erf(v / Math.SQRT2))

/** diffusers' UNetMidBlock2DCrossAttn with one transformer block, in float64. */
const middle = (
  x: Matrix,
  side: number,
  time: number[],
  text: Matrix,
  groups: number,
  heads: number,
  perturbed: boolean
): Matrix => {
  const resnet = (h: Matrix, name: string): Matrix => {
    const shift = times(time.map(silu), `${name}.time_emb_proj`)
    const activated = (t: Matrix, norm: string): Matrix =>
      groupNorm(t, `${name}.${norm}`, groups, 1e-5).map((row) => row.map(silu))
    const first = conv3(activated(h, 'norm1'), side, `${name}.conv1`).map((row) => row.map((v, i) => v + shift[i]!))
    return plus(h, conv3(activated(first, 'norm2'), side, `${name}.conv2`))
  }
  const at = 'mid_block.attentions.0'
  const block = `${at}.transformer_blocks.0`
  const transformer = (input: Matrix): Matrix => {
    let h = linear(groupNorm(input, `${at}.norm`, groups, 1e-6), `${at}.proj_in`)
    const own = layerNorm(h, `${block}.norm1`)
    const [q, k, v] = ['q', 'k', 'v'].map((which) => linear(own, `${block}.attn1.to_${which}`)) as [
      Matrix,
      Matrix,
      Matrix
    ]
    h = plus(h, linear(perturbed ? v : attention(q, k, v, heads), `${block}.attn1.to_out.0`))
    const query = linear(layerNorm(h, `${block}.norm2`), `${block}.attn2.to_q`)
    const [key, value] = [linear(text, `${block}.attn2.to_k`), linear(text, `${block}.attn2.to_v`)]
    h = plus(h, linear(attention(query, key, value, heads), `${block}.attn2.to_out.0`))
    const wide = linear(layerNorm(h, `${block}.norm3`), `${block}.ff.net.0.proj`)
    const half = wide[0]!.length / 2
    const gated = wide.map((row) => row.slice(0, half).map((u, i) => u * gelu(row[half + i]!)))
    h = plus(h, linear(gated, `${block}.ff.net.2`))
    return plus(input, linear(h, `${at}.proj_out`))
  }
  return resnet(transformer(resnet(x, 'mid_block.resnets.0')), 'mid_block.resnets.1')
}

const rowsOf = ({ data, shape }: Tensor): Matrix => {
  const [, channels, height, width] = shape as [number, number, number, number]
  const pixels = height * width
  return Array.from({ length: pixels }, (_, p) => Array.from({ length: channels }, (_, c) => data[c * pixels + p]!))
}

test('the middle block with and without attention', async () => {
  const random = new Generator(5)
  const sample = random.randn([1, 4, 10, 10])
  const context = random.randn([1, 7, 32])
  const config = pipe.unet.config as { normGroups: number; midHeads: number }
  for (const perturbed of [false, true]) {
    const { blocks } = await pipe.unet.predict({
      sample,
      timestep: 501,
      context,
      blocks: true,
      ...(perturbed ? { pagAppliedLayers: ['mid'] } : {})
    })
    const names = Object.keys(blocks!)
    const deepest = blocks![names[names.indexOf('mid') - 1]!]!
    const text = Array.from({ length: 7 }, (_, i) => Array.from(context.data.subarray(i * 32, (i + 1) * 32)))
    const time = Array.from(blocks!['time_embedding']!.data)
    const side = deepest.shape[3]!
    const expected = middle(rowsOf(deepest), side, time, text, config.normGroups, config.midHeads, perturbed)
    const actual = rowsOf(blocks!['mid']!)
    assert.ok(relativeError(actual.flat(), expected.flat()) < 1e-5, `perturbed ${perturbed}`)
  }
})

/** One DDIM step from given noise: what the guided prediction m is, for the networks to be called one by one. */
const size = { width: 64, height: 72 }
for (const [name, model] of [
  ['SD', () => pipe],
  ['SDXL', () => xl]
] as const)
  for (const guidanceScale of [1, 6])
    test(`${name}: guidance ${guidanceScale} and perturbed attention add up`, async () => {
      const p = model()
      const layers = ['mid', 'up_blocks.*attentions.1']
      const pag = { pagScale: 2.5, pagAdaptiveScale: 0.002, pagAppliedLayers: layers }
      const steps: { timestep: number; m: Tensor }[] = []
      const base = {
        prompt: ['a red house', 'a cat'],
        negativePrompt: 'dark',
        seed: 3,
        steps: 2,
        guidanceScale,
        ...size
      }
      const latents = new Generator(9).randn([2, 4, 72 / p.vae.factor, 64 / p.vae.factor])
      await p.txt2img({
        ...base,
        ...pag,
        latents,
        scheduler: new DDIMScheduler(),
        outputType: 'latent',
        stepLatents: true,
        onStep: (e) => void steps.push({ timestep: e.timestep, m: e.predictedNoise! })
      })
      const { timestep, m } = steps[0]!

      // The same by hand.
      const encode = async (texts: string[]) => {
        const ids = (k: 1 | 2) => texts.map((t) => Array.from((k === 1 ? p.tokenizer : p.tokenizer2!).encode(t).ids))
        const first = await p.textEncoder.encode(ids(1))
        if (!p.textEncoder2) return { context: first.lastHiddenState }
        const second = await p.textEncoder2.encode(ids(2))
        const [a, b] = [first.hiddenStates.at(-2)!, second.hiddenStates.at(-2)!]
        const [n, length] = a.shape as [number, number]
        const wide = a.shape[2]! + b.shape[2]!
        const data = new Float32Array(n * length * wide)
        for (let r = 0; r < n * length; r++) {
          data.set(a.data.subarray(r * a.shape[2]!, (r + 1) * a.shape[2]!), r * wide)
          data.set(b.data.subarray(r * b.shape[2]!, (r + 1) * b.shape[2]!), r * wide + a.shape[2]!)
        }
        const times = Float32Array.from([72, 64, 0, 0, 72, 64, 72, 64, 0, 0, 72, 64])
        return {
          context: { data, shape: [n, length, wide] },
          added: { textEmbeds: second.projected!, timeIds: { data: times, shape: [2, 6] } }
        }
      }
      const run = async (texts: string[], pagAppliedLayers?: string[]): Promise<Float32Array> => {
        const request = { sample: latents, timestep, ...(await encode(texts)) }
        return (await p.unet.predict(pagAppliedLayers ? { ...request, pagAppliedLayers } : request)).sample.data
      }
      const prompts = ['a red house', 'a cat']
      const [without, text, perturbed] = [await run(['dark', 'dark']), await run(prompts), await run(prompts, layers)]
      assert.ok(relativeError(perturbed, text) > 1e-3, 'the layers matter')
      const scale = Math.max(0, 2.5 - 0.002 * (1000 - timestep))
      assert.ok(scale > 0 && scale < 2.5)
      const expected = text.map((t, i) => {
        const plain = guidanceScale > 1 ? without[i]! + guidanceScale * (t - without[i]!) : t
        return plain + scale * (t - perturbed[i]!)
      })
      assert.ok(relativeError(m.data, expected) < 2e-5, String(relativeError(m.data, expected)))
    })

const paint = (options: object): Promise<Float32Array> =>
  pipe
    .txt2img({ prompt: 'a red house', steps: 2, seed: 3, ...size, outputType: 'latent', ...options })
    .then(({ latents }) => latents.data)

test('scale 0 is without, also where it adapts down to it', async () => {
  const plain = await paint({})
  assert.equal(await paint({ pagScale: 0, pagAppliedLayers: 'down' }), plain)
  assert.equal(await paint({ pagScale: 3, pagAppliedLayers: [] }), plain)
  const gone = await paint({ pagScale: 0.001, pagAdaptiveScale: 1, guidanceScale: 7.5, scheduler: 'DDIM' })
  assert.ok(relativeError(gone, await paint({ guidanceScale: 7.5, scheduler: 'DDIM' })) < 2e-5)
})

test('every task with a prompt has it, and guidanceRescale measures the branch with the prompt', async () => {
  const { images } = await pipe.txt2img({ prompt: 'a cat', steps: 2, seed: 1, ...size })
  const mask = { data: new Uint8Array(64 * 72 * 3).fill(255), width: 64, height: 72, channels: 3 as const }
  const common = { prompt: 'a red house', image: images[0]!, steps: 4, seed: 2, outputType: 'latent' as const, ...size }
  for (const run of [
    (o: object) => pipe.img2img({ ...common, ...o }),
    (o: object) => pipe.inpaint({ ...common, mask, ...o }),
    (o: object) => pipe.txt2img({ prompt: 'x', steps: 2, seed: 4, guidanceRescale: 0.7, ...size, ...o })
  ]) {
    const [without, pag] = [await run({}), await run({ pagScale: 3 })]
    assert.ok(relativeError(pag.latents.data, without.latents.data) > 1e-4)
  }
})

test('what is wrong is refused', async () => {
  const bad = 'ERR_ND_INVALID_ARGUMENT'
  await fails(() => paint({ pagScale: -1 }), bad, /pagScale/)
  await fails(() => paint({ pagScale: 3, pagAppliedLayers: 'blocks.17' }), bad, /blocks\.17/)
  await fails(() => paint({ pagScale: 3, pagAppliedLayers: ['('] }), bad, /regular expressions/)
  await fails(() => paint({ pagScale: 3, pagAppliedLayers: [4] }), bad, /pagAppliedLayers/)
  const mid = { data: new Uint8Array(64 * 64 * 3), width: 64, height: 64, channels: 3 }
  await fails(() => pipe.edit({ prompt: 'x', image: mid, pagScale: 3 } as never), 'ERR_ND_UNSUPPORTED', /edit/)
})

test.run()
