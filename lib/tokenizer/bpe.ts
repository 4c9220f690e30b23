/**
 * Byte-pair encoding with an end-of-word mark (Sennrich et al., "Neural Machine Translation of Rare Words with Subword
 * Units", 2016): the last symbol of a word carries `</w>`, then the adjacent pair of lowest rank is joined (the
 * leftmost of equals) until no pair has a rank.
 */

export const endOfWord = '</w>'
const cacheLimit = 10_000

interface Candidate {
  rank: number
  position: number
  /** The pair when it was pushed: it may have changed since. */
  pair: string
}

const before = (a: Candidate, b: Candidate): boolean =>
  a.rank < b.rank || (a.rank === b.rank && a.position < b.position)

/** A binary heap, so that a word of n symbols costs n log n: prompts come from strangers. */
class CandidateHeap {
  private readonly items: Candidate[] = []

  push(item: Candidate): void {
    const { items } = this
    let i = items.push(item) - 1
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(item, items[parent]!)) break
      items[i] = items[parent]!
      i = parent
    }
    items[i] = item
  }

  pop(): Candidate | undefined {
    const { items } = this
    const top = items[0]
    const last = items.pop()
    if (last === undefined || items.length === 0) return top
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= items.length) break
      if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++
      if (!before(items[child]!, last)) break
      items[i] = items[child]!
      i = child
    }
    items[i] = last
    return top
  }
}

export class BytePairEncoder {
  private readonly cache = new Map<string, readonly number[]>()

  /**
   * @param vocabulary id of each token
   * @param ranks rank of each pair, keyed "left right" as in merges.txt
   * @param unknownId of symbols that the vocabulary lacks
   */
  constructor(
    private readonly vocabulary: ReadonlyMap<string, number>,
    private readonly ranks: ReadonlyMap<string, number>,
    private readonly unknownId: number
  ) {}

  /** Ids of one word, given in byte symbols. */
  encode(word: string): readonly number[] {
    const known = this.cache.get(word)
    if (known) return known
    const ids = this.merge(word)
    if (this.cache.size >= cacheLimit) this.cache.clear()
    this.cache.set(word, ids)
    return ids
  }

  private merge(word: string): number[] {
    // A doubly linked list over the symbols' first positions; a symbol joined to its left neighbour becomes ''.
    const symbols = [...word]
    const count = symbols.length
    symbols[count - 1] += endOfWord
    // A symbol outside the vocabulary is the unknown token and joins nothing.
    const next = symbols.map((_, i) => i + 1)
    const previous = symbols.map((_, i) => i - 1)
    const heap = new CandidateHeap()
    const consider = (position: number): void => {
      const right = next[position]
      if (position < 0 || right === undefined || right >= count) return
      const pair = `${symbols[position]} ${symbols[right]}`
      const rank = this.ranks.get(pair)
      if (rank !== undefined) heap.push({ rank, position, pair })
    }
    for (let i = 0; i + 1 < count; i++) consider(i)

    for (let top = heap.pop(); top; top = heap.pop()) {
      const { position, pair } = top
      const right = next[position]!
      if (right >= count || `${symbols[position]} ${symbols[right]}` !== pair) continue
      symbols[position] = symbols[position]! + symbols[right]!
      symbols[right] = ''
      const after = next[right]!
      next[position] = after
      if (after < count) previous[after] = position
      next[right] = count
      consider(previous[position]!)
      consider(position)
    }
    return symbols.filter((s) => s !== '').map((s) => this.vocabulary.get(s) ?? this.unknownId)
  }
}
