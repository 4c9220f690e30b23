/**
 * Byte-level BPE writes every byte as one printable character: printable Latin-1 bytes as themselves, the others as
 * U+0100, U+0101, … in order (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).
 */

const isPrintable = (byte: number): boolean =>
  (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174

/** Symbol of each byte. */
export const byteSymbols: readonly string[] = (() => {
  let shifted = 0
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 256 + shifted++))
})()

/** The symbols in vocabulary order: printable bytes first. */
export const vocabularySymbols: readonly string[] = [
  ...byteSymbols.filter((_, byte) => isPrintable(byte)),
  ...byteSymbols.filter((_, byte) => !isPrintable(byte))
]

const symbolBytes = new Map(byteSymbols.map((symbol, byte) => [symbol, byte]))

/** UTF-8 bytes of `text`, each as its symbol. */
export const toSymbols = (text: string): string => {
  let symbols = ''
  for (const byte of Buffer.from(text, 'utf8')) symbols += byteSymbols[byte]
  return symbols
}

/** Text of a run of symbols; bytes that are not UTF-8 become U+FFFD, characters that are no symbol stay as they are. */
export const fromSymbols = (symbols: string): string => {
  const bytes: number[] = []
  for (const symbol of symbols) {
    const byte = symbolBytes.get(symbol)
    if (byte === undefined) bytes.push(...Buffer.from(symbol, 'utf8'))
    else bytes.push(byte)
  }
  return Buffer.from(bytes).toString('utf8')
}
