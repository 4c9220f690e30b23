/** Shifts of rectified flow's σ for the resolution (Esser et al. 2024; FLUX's dynamic shifting). */
export const timeShift = (type: 'exponential' | 'linear', mu: number, sigma: number): number => {
  const m = type === 'exponential' ? Math.exp(mu) : mu
  return m / (m + (1 / sigma - 1))
}

/** Stretched so that the last σ is `terminal`. */
export const stretchToTerminal = (sigmas: readonly number[], terminal: number): number[] => {
  const scale = (1 - sigmas[sigmas.length - 1]!) / (1 - terminal)
  return sigmas.map((s) => 1 - (1 - s) / scale)
}
