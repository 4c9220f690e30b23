/** The options of `node-diffusion worker`; the worker itself is loaded when it is asked for. */
import { Command } from 'commander'
import { countArgument, repeated } from './arguments.js'
import type { WorkerOptions } from './worker.js'

export const workerCommand = (signal: AbortSignal): Command =>
  new Command('worker')
    .description('paint the jobs that `serve --redis` puts into a queue; any number of workers, on any machines')
    .option('--redis <url>', 'the Redis of the queue, redis://host:port (also NODE_DIFFUSION_REDIS)')
    .option('--queue <name>', "the queue's name, as the server's", 'paint')
    .option(
      '-m, --model <name=source>',
      'a model, called as the server calls it; again for more (default: postcard)',
      repeated
    )
    .option('--keep-models <number>', 'models in memory at once', countArgument, 1)
    .option('--lock-seconds <number>', 'a worker that is silent for so long counts as dead', countArgument, 30)
    .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
    .option('--threads <number>', 'CPU threads (default: the physical cores)', countArgument)
    .action(async (options: WorkerOptions) => (await import('./worker.js')).work(options, signal))
