/** The options of `node-diffusion serve`; the server itself is loaded when it is asked for. */
import { Command } from 'commander'
import { countArgument, integerArgument, repeated } from './arguments.js'
import type { ServeOptions } from './serve.js'

export const serveCommand = (signal: AbortSignal): Command =>
  new Command('serve')
    .description("serve models over HTTP: OpenAI's images API, AUTOMATIC1111's API, jobs with server-sent events")
    .option(
      '-m, --model <name=source>',
      'a model, and what clients call it; again for more (default: postcard)',
      repeated
    )
    .option('-p, --port <number>', 'port', integerArgument, 7860)
    .option('--host <address>', 'address to listen on; 0.0.0.0 is every interface', '127.0.0.1')
    .option(
      '--api-key <key>',
      'a key that clients must send; again for more (also NODE_DIFFUSION_API_KEYS, with commas)',
      repeated
    )
    .option('--cors <origin>', 'an origin that browsers may call from, or *; again for more', repeated)
    .option('--max-queued <number>', 'jobs that may wait; more are refused with 429', countArgument, 64)
    .option('--keep-models <number>', 'models in memory at once', countArgument, 1)
    .option(
      '--redis <url>',
      'jobs wait in this Redis, and `node-diffusion worker` paints them (also NODE_DIFFUSION_REDIS)'
    )
    .option('--queue <name>', "the queue's name in Redis", 'paint')
    .option('--outputs <folder>', 'where pictures wait for clients that ask for addresses')
    .option('--device <name>', "'auto', 'cpu' or 'cuda'", 'auto')
    .option('--threads <number>', 'CPU threads (default: the physical cores)', countArgument)
    .option('--log', 'a line of JSON for each request')
    .action(async (options: ServeOptions) => (await import('./serve.js')).serve(options, signal))
