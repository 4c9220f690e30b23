/**
 * Parses a config's JSON. Python writes Infinity and NaN into it (lambda_min_clipped of a scheduler is −Infinity in real
 * files), which JSON.parse refuses: outside strings these words become numbers.
 */
export const parseConfigJson = (text: string): Record<string, unknown> => {
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g, (token) =>
    token.startsWith('"') ? token : `{"__number":"${token}"}`
  )
  return JSON.parse(marked, (_, value: unknown) => {
    const word = (value as { __number?: unknown } | null)?.__number
    return typeof word === 'string' ? Number(word) : value
  }) as Record<string, unknown>
}
