/** The programs in the documentation: fenced blocks that import the package. Other blocks are fragments. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { root } from './paths.js'

export interface DocProgram {
  /** 'docs/img2img.md:3', the line of the fence. */
  readonly at: string
  readonly code: string
}

export const documents = (): string[] => [
  'README.md',
  'CONTRIBUTING.md',
  ...readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .sort()
    .map((file) => join('docs', file))
]

export const docPrograms = (): DocProgram[] =>
  documents().flatMap((document) => {
    const text = readFileSync(join(root, document), 'utf8')
    return (
      [...text.matchAll(/^```(js|ts)\n([\s\S]*?)^```/gm)]
        // docs/design.md lists the whole API in one block.
        .filter(
          ([, , code]) => document !== join('docs', 'design.md') && /from 'node-diffusion(\/server)?'/.test(code!)
        )
        .map((match) => ({
          at: `${document}:${text.slice(0, match.index).split('\n').length}`,
          code: javaScript(match[2]!)
        }))
    )
  })

const javaScript = (code: string): string =>
  ts.transpileModule(code, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
  }).outputText

/** The same program with steps and sizes that take seconds. */
export const small = (code: string): string =>
  code
    .replace(/\b([sS]teps: )\d+/g, (_, name: string) => `${name}4`)
    .replace(/(?<![\w-])(512|768|1024|2048)\b/g, '64')
    .replace(/(?<![\w-])256\b/g, '32')
    .replace(/(?<![\w-])128\b/g, '16')
