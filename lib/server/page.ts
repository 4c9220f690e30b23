/** The web page at `/`: files without a build step, read once. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { packageRoot } from '../binding.js'
import { samplerLabels, scheduleTypeNames } from '../schedulers/labels.js'
import type { Painter } from './painter.js'

const types = { html: 'text/html', css: 'text/css', js: 'text/javascript' } as const
const files = ['index.html', 'style.css', 'main.js', 'api.js', 'gallery.js', 'mask.js'] as const

/** Addresses that need no key: the page asks for one itself. */
export const pageUrls: readonly string[] = ['/', ...files.map((file) => `/page/${file}`)]

export const pageRoutes = (app: FastifyInstance, painter: Painter): void => {
  app.register((scope, _, done) => {
    for (const file of files) {
      const body = readFileSync(join(packageRoot, 'dist', 'server', 'page', file))
      const type = `${types[file.split('.')[1] as keyof typeof types]}; charset=utf-8`
      scope.get(file === 'index.html' ? '/' : `/page/${file}`, { schema: { hide: true } }, (_request, reply) =>
        reply
          .type(type)
          .header('cache-control', 'no-cache')
          .header(
            'content-security-policy',
            "default-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:; frame-ancestors 'none'"
          )
          .header('x-content-type-options', 'nosniff')
          .send(body)
      )
    }
    scope.get('/api/info', { schema: { tags: ['jobs'], summary: 'What the page offers: models, schedulers' } }, () => ({
      models: painter.models.entries.map(({ name }) => name),
      samplers: samplerLabels.map(({ label }) => label),
      schedules: scheduleTypeNames
    }))
    done()
  })
}
