/** AUTOMATIC1111's tags in prompts: `<lora:name:0.8>`. */
import { invalidArgument, unsupported } from '../errors.js'

export interface LoraTag {
  readonly name: string
  /** Of the UNet. */
  readonly strength: number
  readonly textEncoderStrength: number
}

const tag = /<(\w+):([^>]+)>/gu

const number = (text: string, whole: string): number => {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value)) throw invalidArgument('the strength of a LoRA', 'a number', whole)
  return value
}

/**
 * The prompt without its tags, and what they ask for: `<lora:name>` (strength 1), `<lora:name:0.8>`,
 * `<lora:name:0.5:0.8>` (text encoder, then UNet), `<lora:name:te=0.5:unet=0.8>`; `lyco` is `lora`.
 * @throws DiffusionError ERR_ND_INVALID_ARGUMENT for a strength that is no number, ERR_ND_UNSUPPORTED for hypernetworks
 */
export const parseLoraTags = (prompt: string): { prompt: string; tags: LoraTag[] } => {
  const tags: LoraTag[] = []
  const text = prompt.replace(tag, (whole: string, kind: string, rest: string) => {
    if (kind === 'hypernet') throw unsupported(`${whole}: hypernetworks are not supported, only LoRAs`)
    if (kind !== 'lora' && kind !== 'lyco') return whole
    const positional: string[] = []
    const named = new Map<string, string>()
    for (const part of rest.split(':')) {
      const pair = /^(\w+)=(.*)$/.exec(part)
      if (pair && positional.length) named.set(pair[1]!, pair[2]!)
      else positional.push(part)
    }
    const unknown = [...named.keys()].find((key) => key !== 'te' && key !== 'unet')
    if (unknown !== undefined) throw unsupported(`${whole}: ${unknown}= is not supported, only te= and unet=`)
    if (positional.length > 3) throw invalidArgument('a LoRA tag', '<lora:name:strength>', whole)
    const te = named.get('te') ?? positional[1]
    const textEncoderStrength = te === undefined ? 1 : number(te, whole)
    const unet = named.get('unet') ?? positional[2]
    tags.push({
      name: positional[0]!,
      strength: unet === undefined ? textEncoderStrength : number(unet, whole),
      textEncoderStrength
    })
    return ''
  })
  return { prompt: text, tags }
}

/** The tag that asks for this. */
export const loraTag = ({ name, strength, textEncoderStrength }: LoraTag): string =>
  strength === textEncoderStrength ? `<lora:${name}:${strength}>` : `<lora:${name}:${textEncoderStrength}:${strength}>`
