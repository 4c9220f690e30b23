// The roofline of one run as SVG: every operation of a model by its arithmetic intensity (FLOP per byte that must
// cross the memory bus) and its speed, below what bandwidth and arithmetic allow (Williams, Waterman & Patterson 2009).
import { leastBytes, parseOperation } from './operations.mjs'

const width = 860
const height = 540
const box = { left: 70, right: width - 24, top: 64, bottom: height - 56 }
const colours = { conv2d: '#2563eb', linear: '#059669', geglu: '#b45309', attention: '#dc2626' }
const titles = { conv2d: 'convolution', linear: 'linear', geglu: 'linear with GEGLU', attention: 'attention' }

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const decades = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i))
const short = (value) => (value >= 1 ? String(value) : value.toPrecision(1))

/**
 * `operations` as pipe.profile() gives them; `peak` in GFLOP/s and `bandwidth` in GB/s, measured.
 * Operations count the FLOP of the definition: Winograd's convolutions and Strassen's linear layers do fewer, and may lie above the line.
 */
export const roofline = ({ operations, peak, bandwidth, title, subtitle }) => {
  const all = operations.flatMap((o) => {
    const shape = parseOperation(o.operation)
    if (!shape || !o.flops || !o.seconds) return []
    const intensity = o.flops / o.calls / leastBytes(shape)
    return [{ name: o.operation, kind: shape.kind, seconds: o.seconds, intensity, speed: o.flops / o.seconds / 1e9 }]
  })
  const total = all.reduce((sum, o) => sum + o.seconds, 0)
  const points = all.filter((o) => o.seconds > total / 2000).sort((a, b) => b.seconds - a.seconds)

  const xs = [0, 4]
  const fastest = Math.max(peak, ...points.map((o) => o.speed))
  const ys = [Math.floor(Math.log10(Math.min(...points.map((o) => o.speed)))), Math.log10(fastest * 1.5)]
  const x = (v) => box.left + ((Math.log10(v) - xs[0]) / (xs[1] - xs[0])) * (box.right - box.left)
  const y = (v) => box.bottom - ((Math.log10(v) - ys[0]) / (ys[1] - ys[0])) * (box.bottom - box.top)
  const at = (a, b) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`
  const text = (px, py, words, more = '') =>
    `<text x="${px.toFixed(1)}" y="${py.toFixed(1)}" ${more}>${escaped(words)}</text>`

  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#1f2937">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(box.left, 26, title, 'font-size="17" font-weight="600"'),
    text(box.left, 45, subtitle, 'fill="#6b7280"')
  ]
  for (const v of decades(...xs)) {
    parts.push(`<path d="M${x(v).toFixed(1)} ${box.top}V${box.bottom}" stroke="#e5e7eb"/>`)
    parts.push(text(x(v), box.bottom + 18, short(v), 'text-anchor="middle"'))
  }
  for (const v of decades(ys[0], Math.floor(ys[1])).flatMap((d) => [d, 2 * d, 5 * d])) {
    if (Math.log10(v) > ys[1]) continue
    parts.push(`<path d="M${box.left} ${y(v).toFixed(1)}H${box.right}" stroke="#e5e7eb"/>`)
    parts.push(text(box.left - 8, y(v) + 4, short(v), 'text-anchor="end"'))
  }
  const ridge = peak / bandwidth
  const lowest = Math.max(1, 10 ** ys[0] / bandwidth)
  parts.push(
    `<polyline points="${at(lowest, lowest * bandwidth)} ${at(ridge, peak)} ${at(10 ** xs[1], peak)}" fill="none" stroke="#111827" stroke-width="2"/>`,
    text(
      x(10 ** xs[1]) - 4,
      y(peak) - 7,
      `${peak.toFixed(0)} GFLOP/s, measured`,
      'text-anchor="end" font-weight="600"'
    ),
    text(
      x(1.6 * lowest) + 16,
      y(1.6 * lowest * bandwidth) + 4,
      `${bandwidth.toFixed(1)} GB/s, measured`,
      'font-weight="600"'
    )
  )
  for (const p of points) {
    const radius = Math.max(2.5, 26 * Math.sqrt(p.seconds / total))
    parts.push(
      `<circle cx="${x(p.intensity).toFixed(1)}" cy="${y(p.speed).toFixed(1)}" r="${radius.toFixed(1)}" fill="${colours[p.kind]}" fill-opacity="0.45" stroke="${colours[p.kind]}"><title>${escaped(p.name)}: ${p.speed.toFixed(1)} GFLOP/s, ${((100 * p.seconds) / total).toFixed(1)} % of the time</title></circle>`
    )
  }
  Object.entries(titles).forEach(([kind, words], i) => {
    const share = all.filter((o) => o.kind === kind).reduce((sum, o) => sum + o.seconds, 0) / total
    const py = box.bottom - 84 + 20 * i
    parts.push(`<circle cx="${box.right - 244}" cy="${py - 4}" r="6" fill="${colours[kind]}" fill-opacity="0.6"/>`)
    parts.push(text(box.right - 232, py, `${words}, ${(100 * share).toFixed(0)} % of the time`))
  })
  parts.push(
    text((box.left + box.right) / 2, height - 14, 'FLOP per byte of operands and result', 'text-anchor="middle"'),
    `<text transform="translate(20 ${(box.top + box.bottom) / 2}) rotate(-90)" text-anchor="middle">GFLOP/s</text>`,
    '</svg>'
  )
  return parts.join('\n') + '\n'
}
