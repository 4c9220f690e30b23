/** Added tokens (special ones and those of textual inversion): found in the text before any word is split. */

/** One entry, with the meaning that Hugging Face's tokenizer files give to the fields. */
export interface AddedToken {
  readonly content: string
  readonly id: number
  /** Looked for in the normalised text (so in any case of letters), else in the text as it came. */
  readonly normalized: boolean
  /** Takes the white space on its left (right) side with it. */
  readonly leftStrip: boolean
  readonly rightStrip: boolean
  /** Only where no letter or digit touches it. */
  readonly singleWord: boolean
  /** A textual inversion of several vectors: the ids that follow `id`. */
  readonly following?: readonly number[]
  /** Whether decode() may leave it out; default true. */
  readonly special?: boolean
}

const escape = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
const wordCharacter = /[\p{L}\p{N}\p{M}_]/u

/** Cuts text at added tokens: leftmost first, the longest of those that start together. */
export class AddedTokenSplitter {
  private readonly pattern: RegExp | undefined
  private readonly tokens = new Map<string, AddedToken>()

  /** @param content what a token looks like in the texts that will be split (normalised, or as it is) */
  constructor(tokens: readonly AddedToken[], content: (token: AddedToken) => string = (token) => token.content) {
    for (const token of tokens) {
      const text = content(token)
      if (text !== '') this.tokens.set(text, token)
    }
    const alternatives = [...this.tokens.keys()].sort((a, b) => b.length - a.length).map(escape)
    if (alternatives.length) this.pattern = new RegExp(alternatives.join('|'), 'gu')
  }

  split(text: string): (string | AddedToken)[] {
    if (!this.pattern) return text === '' ? [] : [text]
    const pieces: (string | AddedToken)[] = []
    let from = 0
    for (const match of text.matchAll(this.pattern)) {
      const token = this.tokens.get(match[0])!
      let start = match.index
      let end = start + match[0].length
      if (start < from) continue // inside what the last token stripped
      if (token.singleWord && this.touchesWord(text, start, end)) continue
      if (token.leftStrip) while (start > from && /\s/u.test(text[start - 1]!)) start--
      if (token.rightStrip) while (end < text.length && /\s/u.test(text[end]!)) end++
      if (start > from) pieces.push(text.slice(from, start))
      pieces.push(token)
      from = end
    }
    if (from < text.length) pieces.push(text.slice(from))
    return pieces
  }

  private touchesWord(text: string, start: number, end: number): boolean {
    const left = [...text.slice(Math.max(0, start - 2), start)].at(-1) ?? ''
    const right = [...text.slice(end, end + 2)][0] ?? ''
    return wordCharacter.test(left) || wordCharacter.test(right)
  }
}
