/** Largest difference, as a share of the reference's largest value: the measure of design.md's bar. */
export const relativeError = (actual: ArrayLike<number>, expected: ArrayLike<number>): number => {
  if (actual.length !== expected.length) throw new Error(`length ${actual.length} instead of ${expected.length}`)
  let difference = 0
  let largest = 0
  for (let i = 0; i < expected.length; i++) {
    const d = Math.abs(actual[i]! - expected[i]!)
    if (!(d <= difference)) difference = d // NaN sticks
    largest = Math.max(largest, Math.abs(expected[i]!))
  }
  return largest === 0 ? difference : difference / largest
}

/** Mean difference of RGB bytes and a picture of 0..1, in 1/255. */
export const pictureError = (data: ArrayLike<number>, expected: ArrayLike<number>): number => {
  if (data.length !== expected.length) throw new Error(`${data.length} values instead of ${expected.length}`)
  let sum = 0
  for (let i = 0; i < data.length; i++) sum += Math.abs(data[i]! - expected[i]! * 255)
  return sum / data.length
}
