// What the names of the profile's operations say: "conv2d 3x3 s1 320->320 @ 2x64x64", "linear 8192x320x1280" …

/** The numbers of an operation's shape, or null for one that is neither product, convolution nor attention. */
export const parseOperation = (name) => {
  let m = /^conv2d (\d+)x\d+ s(\d+) (\d+)->(\d+) @ (\d+)x(\d+)x(\d+)( up)?$/.exec(name)
  if (m) {
    const [kernel, stride, channels, features, batch, height, width] = m.slice(1, 8).map(Number)
    return { kind: 'conv2d', kernel, stride, channels, features, batch, height, width, up: Boolean(m[8]) }
  }
  m = /^(linear|geglu) (\d+)x(\d+)x(\d+)$/.exec(name)
  if (m) return { kind: m[1], rows: Number(m[2]), features: Number(m[3]), depth: Number(m[4]) }
  m = /^attention h(\d+) d(\d+) @ (\d+)x(\d+)x(\d+)$/.exec(name)
  if (!m) return null
  const [heads, width, batch, queries, keys] = m.slice(1, 6).map(Number)
  return { kind: 'attention', heads, width, batch, queries, keys }
}

/** Bytes that must cross the memory bus at least: every operand once, fp32 activations and 16-bit weights. */
export const leastBytes = (o) => {
  if (o.kind === 'conv2d') {
    const pixels = o.batch * o.height * o.width
    const inputs = o.up ? pixels / 4 : pixels * o.stride ** 2
    return 4 * (inputs * o.channels + pixels * o.features) + 2 * o.features * o.channels * o.kernel ** 2
  }
  if (o.kind === 'attention') return 4 * o.batch * o.heads * o.width * 2 * (o.queries + o.keys)
  const results = o.kind === 'geglu' ? o.features / 2 : o.features
  return 4 * o.rows * (o.depth + results) + 2 * o.features * o.depth
}
