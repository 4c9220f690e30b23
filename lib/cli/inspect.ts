import { inspect, type Inspection } from '../index.js'

const asText = (i: Inspection): string => {
  const isas = i.isas.map(({ name, description, compiled, supported, bfloat16 }) => {
    const state = !compiled
      ? 'not in this build'
      : supported
        ? `available${bfloat16 ? ", also in dtype 'bfloat16'" : ''}`
        : 'not on this machine'
    return `  ${name.padEnd(8)} ${description}: ${state}`
  })
  const gibibytes = (i.cpu.memory / 2 ** 30).toFixed(1)
  return [
    `node-diffusion ${i.version}, Node.js ${i.node}, ${i.platform}`,
    `CPU      ${i.cpu.model}, ${i.cpu.threads} threads, ${gibibytes} GiB`,
    `backend  ${i.backend}`,
    'instruction sets, best first (NODE_DIFFUSION_CPU forces one):',
    ...isas,
    ...(i.cuda ?? []).map(
      (g) =>
        `CUDA     cuda:${g.index} ${g.name}, compute capability ${g.computeCapability}, ${(g.memory / 2 ** 30).toFixed(1)} GiB` +
        (g.reason ? `: ${g.reason}` : '')
    ),
    ...(i.cuda ? [] : [`CUDA     none: ${i.cudaReason}`])
  ].join('\n')
}

/** What the machine offers, for people or (as JSON) for programs. */
export const printInspection = (json: boolean): void => {
  const inspection = inspect()
  process.stdout.write(`${json ? JSON.stringify(inspection, null, 2) : asText(inspection)}\n`)
}
