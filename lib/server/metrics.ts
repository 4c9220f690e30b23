/** Prometheus' text format (version 0.0.4), counted here: a handful of numbers does not need a client library. */
import type { PaintJob } from './painter.js'

const buckets = [0.5, 1, 2, 5, 10, 30, 60, 120, 300]

export class Metrics {
  private readonly ends = new Map<string, number>()
  private readonly seconds = new Map<string, { counts: number[]; sum: number; count: number }>()
  private pictures = 0
  private refused = 0

  ended(job: PaintJob): void {
    const key = `task="${job.task}",state="${job.state}"`
    this.ends.set(key, (this.ends.get(key) ?? 0) + 1)
    if (job.state !== 'done' || job.started === undefined || job.ended === undefined) return
    const seconds = (job.ended - job.started) / 1000
    const entry = this.seconds.get(job.task) ?? { counts: buckets.map(() => 0), sum: 0, count: 0 }
    buckets.forEach((bound, i) => (entry.counts[i]! += seconds <= bound ? 1 : 0))
    entry.sum += seconds
    entry.count++
    this.seconds.set(job.task, entry)
    this.pictures += job.result?.result.images.length ?? 0
  }

  refusedOne(): void {
    this.refused++
  }

  text({ queued, running, workers }: { queued: number; running: number; workers?: number }): string {
    const lines: string[] = []
    const metric = (
      name: string,
      kind: string,
      help: string,
      rows: readonly [labels: string, value: number][]
    ): void => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`)
      for (const [labels, value] of rows) lines.push(`${name}${labels} ${value}`)
    }
    metric(
      'node_diffusion_jobs_total',
      'counter',
      'Jobs that ended',
      [...this.ends].map(([k, v]) => [`{${k}}`, v])
    )
    metric('node_diffusion_images_total', 'counter', 'Pictures painted', [['', this.pictures]])
    metric('node_diffusion_refused_total', 'counter', 'Requests refused because the queue was full', [
      ['', this.refused]
    ])
    metric('node_diffusion_jobs_queued', 'gauge', 'Jobs that wait', [['', queued]])
    metric('node_diffusion_jobs_running', 'gauge', 'Jobs that run', [['', running]])
    if (workers !== undefined) metric('node_diffusion_workers', 'gauge', 'Workers of the queue', [['', workers]])
    metric('process_resident_memory_bytes', 'gauge', 'Resident memory', [['', process.memoryUsage.rss()]])
    const rows: [string, string, number][] = [...this.seconds].flatMap(([task, { counts, sum, count }]) => [
      ...buckets.map((bound, i): [string, string, number] => ['_bucket', `{task="${task}",le="${bound}"}`, counts[i]!]),
      ['_bucket', `{task="${task}",le="+Inf"}`, count],
      ['_sum', `{task="${task}"}`, sum],
      ['_count', `{task="${task}"}`, count]
    ])
    const name = 'node_diffusion_job_seconds'
    lines.push(`# HELP ${name} Seconds from start to end of a job`, `# TYPE ${name} histogram`)
    for (const [suffix, labels, value] of rows) lines.push(`${name}${suffix}${labels} ${value}`)
    return lines.join('\n') + '\n'
  }
}
