/** SentencePiece's unigram language model (Kudo 2018): of all ways to cut a text into pieces, the likeliest. */

export interface Piece {
  readonly text: string
  /** Log probability. */
  readonly score: number
}

/** How far below the least likely piece an unknown character lies. */
const unknownPenalty = 10

export class UnigramModel {
  private readonly ids = new Map<string, number>()
  private readonly longest: number
  private readonly unknownScore: number

  /** @param pieces by id; those of `special` ids are never found in a text */
  constructor(
    private readonly pieces: readonly Piece[],
    private readonly unknownId: number,
    special: ReadonlySet<number>
  ) {
    let longest = 1
    let least = Infinity
    pieces.forEach(({ text, score }, id) => {
      least = Math.min(least, score)
      if (special.has(id) || text === '') return
      this.ids.set(text, id)
      longest = Math.max(longest, [...text].length)
    })
    this.longest = longest
    this.unknownScore = least - unknownPenalty
  }

  /** Viterbi's algorithm over the characters; neighbouring unknown characters become one unknown token. */
  encode(text: string): number[] {
    const characters = [...text]
    const best: { score: number; from: number; id: number }[] = [{ score: 0, from: 0, id: -1 }]
    for (let to = 1; to <= characters.length; to++) best.push({ score: -Infinity, from: to - 1, id: this.unknownId })
    for (let from = 0; from < characters.length; from++) {
      const start = best[from]!.score
      const offer = (to: number, score: number, id: number): void => {
        if (start + score > best[to]!.score) best[to] = { score: start + score, from, id }
      }
      let single = false
      let piece = ''
      for (let to = from + 1; to <= characters.length && to - from <= this.longest; to++) {
        piece += characters[to - 1]!
        const id = this.ids.get(piece)
        if (id === undefined) continue
        single ||= to === from + 1
        offer(to, this.pieces[id]!.score, id)
      }
      if (!single) offer(from + 1, this.unknownScore, this.unknownId)
    }
    const ids: number[] = []
    for (let at = characters.length; at > 0; at = best[at]!.from) {
      const { id } = best[at]!
      if (id !== this.unknownId || ids.at(-1) !== this.unknownId) ids.push(id)
    }
    return ids.reverse()
  }
}
