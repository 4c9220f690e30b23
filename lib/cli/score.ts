import { ClipModel } from '../index.js'

export interface ScoreOptions {
  model: string
  device: string
  threads?: number
  json?: boolean
}

/** How well a picture goes with texts, best first: cosine · 100, and which of the texts it is. */
export const printScores = async (image: string, texts: readonly string[], o: ScoreOptions): Promise<void> => {
  const clip = await ClipModel.fromPretrained(o.model, {
    device: o.device,
    ...(o.threads === undefined ? {} : { threads: o.threads })
  })
  try {
    const { similarity, probabilities } = await clip.score(image, texts)
    const rows = texts
      .map((text, i) => ({ text, score: 100 * similarity[0]![i]!, probability: probabilities[0]![i]! }))
      .sort((a, b) => b.score - a.score)
    const lines = rows.map(
      ({ text, score, probability }) =>
        `${score.toFixed(1).padStart(6)}  ${(100 * probability).toFixed(1).padStart(5)} %  ${text}`
    )
    process.stdout.write(`${o.json ? JSON.stringify(rows, null, 2) : lines.join('\n')}\n`)
  } finally {
    await clip.dispose()
  }
}
