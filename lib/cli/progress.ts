import cliProgress from 'cli-progress'

/** Shows how far a picture is, on stderr, so that stdout stays for results. */
export interface Progress {
  start(label: string, total: number): void
  update(value: number): void
  stop(): void
}

const quiet: Progress = { start() {}, update() {}, stop() {} }

const bar = (): Progress => {
  let current: cliProgress.SingleBar | undefined
  return {
    start(label, total) {
      current = new cliProgress.SingleBar(
        {
          format: `${label} {bar} {value}/{total} steps, {eta_formatted} left`,
          stream: process.stderr,
          hideCursor: true
        },
        cliProgress.Presets.shades_classic
      )
      current.start(total, 0)
    },
    update: (value) => current?.update(value),
    stop() {
      current?.stop()
      current = undefined
    }
  }
}

/** Where there is no terminal (a log file): a line for every tenth of the way. */
const lines = (): Progress => {
  let label = ''
  let total = 1
  let shown = 0
  return {
    start(newLabel, newTotal) {
      label = newLabel
      total = newTotal
      shown = 0
    },
    update(value) {
      const tenth = Math.floor((value * 10) / total)
      if (tenth === shown) return
      shown = tenth
      process.stderr.write(`${label} ${value}/${total} steps\n`)
    },
    stop() {}
  }
}

export const makeProgress = (isQuiet: boolean): Progress => (isQuiet ? quiet : process.stderr.isTTY ? bar() : lines())
