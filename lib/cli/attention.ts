/** `--attention`: which word was read where, as a sheet. */
import { heatOverlay } from '../attention-maps.js'
import { contactSheet } from '../contact-sheet.js'
import type { DiffusionImage } from '../image.js'
import type { GenerationResult } from '../index.js'

/** The first picture, then for each word of the prompt its map over it. Undefined where nothing was recorded. */
export const attentionSheet = async (result: GenerationResult): Promise<DiffusionImage | undefined> => {
  const [image, maps] = [result.images[0], result.attentionMaps?.[0]]
  if (!image || !maps) return undefined
  const overlays = maps.words.map(({ map }) => heatOverlay(image, map))
  return contactSheet([image, ...overlays], { labels: ['picture', ...maps.words.map(({ text }) => text)] })
}
