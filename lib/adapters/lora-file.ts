/**
 * LoRA files and their relatives, as they are found: kohya's and LyCORIS' names, diffusers' and PEFT's, old and new. Names and
 * shapes alone decide how each tensor changes the model; the native engine reads the values.
 */
import { modelFormat, unsupported } from '../errors.js'
import type { CheckpointHeader } from '../models/single-file/checkpoint.js'
import type { ModuleMatch, ModuleNames } from './module-names.js'

/** engine/adapter.h WeightChange, field by field. */
export interface WeightChange {
  readonly component: 'unet' | 'textEncoder'
  readonly index: number
  /** Canonical name of the changed tensor. */
  readonly tensor: string
  readonly kind: 'lowRank' | 'hadamard' | 'kronecker' | 'difference'
  /** Role → tensor of the file. */
  readonly parts: readonly (readonly [role: string, stored: string])[]
  /** Of the change, where the file has no alpha. */
  readonly scale: number
  /** What alpha is divided by. */
  readonly rank: number
  /** DoRA's magnitude as PEFT means it. */
  readonly peft: boolean
}

type Role = string
/** Ends of names. A role that begins with "!" is known but not supported. */
const fields: readonly (readonly [RegExp, (match: RegExpExecArray) => Role])[] = [
  [/\.lora_(down|up|mid)\.weight$/, (m) => m[1]!],
  [/\.lora_A(?:\.[^.]+)?\.weight$/, () => 'down'],
  [/\.lora_B(?:\.[^.]+)?\.weight$/, () => 'up'],
  [/\.lora_B(?:\.[^.]+)?\.bias$/, () => 'upBias'],
  [/\.lora(?:_linear_layer)?\.(down|up)\.weight$/, (m) => m[1]!],
  [/(?<=_lora)\.(down|up)\.weight$/, (m) => m[1]!],
  [/\.lora_magnitude_vector(?:\.[^.]+?)?(?:\.weight)?$/, () => 'peftMagnitude'],
  [/\.dora_scale$/, () => 'magnitude'],
  [/(?:\.lora(?:_linear_layer)?(?:\.down\.weight)?|(?<=_lora)(?:\.down\.weight)?)?\.alpha$/, () => 'alpha'],
  [/\.hada_w([12])_([ab])$/, (m) => `hada:w${m[1]}${m[2]}`],
  [/\.hada_(t[12])$/, (m) => `hada:${m[1]}`],
  [/\.lokr_(w[12])(?:_([ab]))?$/, (m) => `lokr:${m[1]}${m[2] ?? ''}`],
  [/\.lokr_t2$/, () => 'lokr:t2'],
  [/\.(?:diff|w_norm)$/, () => 'diff'],
  [/\.(?:diff_b|b_norm)$/, () => 'biasDiff'],
  [
    /\.(oft_\w+|ia3_\w+|on_input|(?:a|b)[12]\.weight|lora_embedding_[AB].*|boft_\w+|bias_(?:indices|values|size))$/,
    (m) => `!${m[1]}`
  ]
]

interface Group {
  /** The module's name in the file. */
  readonly name: string
  readonly roles: Map<Role, string>
}

const group = (path: string, names: readonly string[]): Group[] => {
  const groups = new Map<string, Group>()
  for (const stored of names) {
    const found = fields.map(([pattern, role]) => ({ match: pattern.exec(stored), role })).find((f) => f.match)
    if (!found)
      throw modelFormat(
        `${path}: expected tensors of a LoRA, LoHa, LoKr or DoRA (lora_down, lora_A, hada_w1_a, lokr_w1, …) but received ${stored}`
      )
    const match = found.match!
    const role = found.role(match)
    if (role.startsWith('!'))
      throw unsupported(
        `${path}: tensor ${stored} belongs to a kind of adapter (${role.slice(1)}) that is not supported, only LoRA, LoCon, LoHa, LoKr, DoRA and full differences`
      )
    const name = stored.slice(0, match.index)
    let entry = groups.get(name)
    if (!entry) groups.set(name, (entry = { name, roles: new Map() }))
    if (entry.roles.has(role))
      throw modelFormat(
        `${path}: expected one ${role} tensor for ${name} but received ${entry.roles.get(role)} and ${stored}`
      )
    entry.roles.set(role, stored)
  }
  return [...groups.values()]
}

/** PEFT's settings as diffusers stores them: "unet.lora_alpha", "unet.alpha_pattern", "unet.use_rslora", … */
class PeftSettings {
  private readonly settings: Readonly<Record<string, unknown>>
  constructor(path: string, metadata: Readonly<Record<string, string>>) {
    const text = metadata.lora_adapter_metadata
    try {
      this.settings = text === undefined ? {} : (JSON.parse(text) as Record<string, unknown>)
    } catch (error) {
      throw modelFormat(`${path}: expected JSON for lora_adapter_metadata but ${(error as Error).message}`)
    }
  }

  /** The factor of a module's change, without an alpha tensor. */
  scale(match: ModuleMatch, rank: number): number {
    const root = match.part.component === 'unet' ? 'unet' : match.part.slot === 1 ? 'text_encoder_2' : 'text_encoder'
    const setting = (key: string): unknown => this.settings[`${root}.${key}`]
    const pattern = (setting('alpha_pattern') ?? {}) as Record<string, unknown>
    const own = Object.entries(pattern).find(([key]) => match.module === key || match.module.endsWith(`.${key}`))
    const alpha = own ? own[1] : setting('lora_alpha')
    if (typeof alpha !== 'number') return 1
    return alpha / (setting('use_rslora') === true ? Math.sqrt(rank) : rank)
  }
}

/** LyCORIS' kinds: how their roles begin, and which of them, in alphabetical order, are all that is needed. */
const factored: readonly (readonly [prefix: string, kind: WeightChange['kind'], complete: RegExp])[] = [
  ['hada:', 'hadamard', /w1a w1b w2a w2b/],
  ['lokr:', 'kronecker', /(?:w1|w1a w1b) (?:w2|w2a w2b)$/]
]

/** What a header tells of the model that an adapter is for, for messages; empty where it tells nothing. */
export const familyOf = (header: Pick<CheckpointHeader, 'tensors'>): string => {
  const names = header.tensors.map((t) => t.name)
  const some = (pattern: RegExp): boolean => names.some((name) => pattern.test(name))
  if (some(/double_blocks|single_transformer_blocks|single_blocks/)) return 'FLUX'
  if (some(/joint_blocks|joint_transformer_blocks/)) return 'Stable Diffusion 3'
  if (some(/^transformer\./)) return 'a transformer model (not a UNet)'
  const widths: Record<number, string> = {
    768: 'Stable Diffusion 1',
    1024: 'Stable Diffusion 2',
    2048: 'SDXL',
    1280: "SDXL's refiner"
  }
  for (const { name, shape } of header.tensors)
    if (/attn2[._](?:processor\.)?to_[kv]/.test(name) && /(lora_down|lora_A.*|down)\.weight$/.test(name)) {
      const family = widths[shape[1] ?? 0]
      if (family) return family
    }
  return some(/^(lora_te2_|text_encoder_2\.)/) ? 'SDXL' : ''
}

/** @throws ERR_ND_MODEL_FORMAT, ERR_ND_UNSUPPORTED, naming the tensor */
export const readLoraChanges = (path: string, header: CheckpointHeader, modules: ModuleNames): WeightChange[] => {
  const shapes = new Map(header.tensors.map((t) => [t.name, t.shape]))
  const settings = new PeftSettings(path, header.metadata)
  const family = familyOf(header)
  const resolved = group(path, [...shapes.keys()]).map((g) => {
    const match = modules.find(g.name)
    if (!match)
      throw modelFormat(
        `${path}: tensor ${[...g.roles.values()][0]} names no module of this model; is the adapter for another family` +
          `${family ? ` (it looks like one for ${family})` : ''}?`
      )
    return { ...g, match }
  })
  if (resolved.length === 0) throw modelFormat(`${path}: expected tensors of an adapter but the file has none`)

  // A file may hold both layouts' names of one module: diffusers' win.
  const chosen = new Map<string, (typeof resolved)[number]>()
  for (const g of resolved) {
    const key = `${g.match.part.component}${g.match.part.slot} ${g.match.module}`
    const other = chosen.get(key)
    if (other && other.match.original === g.match.original)
      throw modelFormat(`${path}: expected one change of ${g.match.module} but received ${other.name} and ${g.name}`)
    if (!other || other.match.original) chosen.set(key, g)
  }
  return [...chosen.values()].flatMap((g) => changesOf(path, g, g.match, shapes, settings))
}

const changesOf = (
  path: string,
  { name, roles }: Group,
  match: ModuleMatch,
  shapes: ReadonlyMap<string, readonly number[]>,
  settings: PeftSettings
): WeightChange[] => {
  const missing = (what: string): Error =>
    modelFormat(`${path}: expected ${what} for ${name} but received only ${[...roles.values()].join(', ')}`)
  const base = { component: match.part.component, index: match.part.index, rank: 1, scale: 1, peft: false }
  const tensor = (field: 'weight' | 'bias', stored: string): string => {
    const canonical = `${match.module}.${field}`
    if (match.part.tensors.has(canonical)) return canonical
    throw modelFormat(`${path}: tensor ${stored} changes ${canonical}, which this model does not have`)
  }
  const changes: WeightChange[] = []
  const difference = (field: 'weight' | 'bias', stored: string): void =>
    void changes.push({ ...base, tensor: tensor(field, stored), kind: 'difference', parts: [['diff', stored]] })

  const magnitude = roles.get('magnitude') ?? roles.get('peftMagnitude')
  type Part = readonly [role: string, stored: string]
  const optional = (role: string, stored: string | undefined): Part[] => (stored === undefined ? [] : [[role, stored]])
  /** What alpha/rank is, from the tensor that has the rank as its rows; 1 where there is no such tensor. */
  const scaling = (ranked: string | undefined): { rank: number; scale: number; alpha: Part[] } => {
    const rank = ranked === undefined ? undefined : (shapes.get(ranked)?.[0] ?? 0)
    if (rank === undefined) return { rank: 1, scale: 1, alpha: [] }
    if (rank < 1) throw modelFormat(`${path}: expected a rank of at least 1 for tensor ${ranked} but received ${rank}`)
    return { rank, scale: settings.scale(match, rank), alpha: optional('alpha', roles.get('alpha')) }
  }
  const factors = (kind: WeightChange['kind'], parts: readonly Part[], ranked: string | undefined): void => {
    const { rank, scale, alpha } = scaling(ranked)
    changes.push({
      ...base,
      tensor: tensor('weight', parts[0]![1]),
      kind,
      parts: [...parts, ...alpha, ...optional('magnitude', magnitude)],
      rank,
      scale,
      peft: roles.has('peftMagnitude')
    })
  }

  const kinds = [
    ...(roles.has('down') || roles.has('up') || roles.has('mid') ? ['LoRA'] : []),
    ...factored.filter(([prefix]) => [...roles.keys()].some((r) => r.startsWith(prefix))).map(([prefix]) => prefix),
    ...(roles.has('diff') ? ['diff'] : [])
  ]
  if (kinds.length > 1)
    throw modelFormat(`${path}: expected one kind of change for ${name} but received ${[...roles.values()].join(', ')}`)
  if (kinds[0] === 'LoRA') {
    const [down, up, mid] = [roles.get('down'), roles.get('up'), roles.get('mid')]
    if (down === undefined || up === undefined) throw missing('both matrices of a LoRA (down and up, or A and B)')
    factors('lowRank', [['up', up], ['down', down], ...optional('mid', mid)], down)
    const bias = roles.get('upBias')
    if (bias !== undefined) {
      const { rank, scale, alpha } = scaling(down)
      changes.push({
        ...base,
        tensor: tensor('bias', bias),
        kind: 'difference',
        parts: [['diff', bias], ...alpha],
        rank,
        scale
      })
    }
  }
  for (const [prefix, kind, complete] of factored) {
    if (kinds[0] !== prefix) continue
    const parts = [...roles]
      .filter(([r]) => r.startsWith(prefix))
      .map(([r, s]) => [r.slice(prefix.length), s] as [string, string])
      .sort()
    if (!complete.test(parts.map(([r]) => r).join(' '))) throw missing('all factors')
    const stored = new Map(parts)
    factors(kind, parts, stored.get('w1b') ?? stored.get('w2b'))
  }
  if (roles.has('diff')) difference('weight', roles.get('diff')!)
  if (roles.has('biasDiff')) difference('bias', roles.get('biasDiff')!)
  if (changes.length === 0) throw missing('matrices')
  return changes
}
