/** A number with a fixed number of digits. */
export const fixed = (n, digits = 2) => n.toFixed(digits)

/** Prints rows as a Markdown table: the first column to the left, numbers to the right. */
export const table = (head, rows) => {
  const all = [head, ...rows].map((row) => row.map(String))
  const widths = head.map((_, i) => Math.max(...all.map((row) => row[i].length)))
  const line = (row) =>
    '| ' + row.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join(' | ') + ' |'
  console.log([line(all[0]), line(widths.map((w) => '-'.repeat(w))), ...all.slice(1).map(line)].join('\n') + '\n')
}
