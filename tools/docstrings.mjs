// node tools/docstrings.mjs: every public export, and every public method and property of exported classes, has a docstring. Part of
// npm run lint. Names that say it all by themselves (constants of a class's interface, overloads) are listed below.
import { join } from 'node:path'
import ts from 'typescript'
import { root } from './process.mjs'

const entries = ['lib/index.ts', 'lib/server/app.ts'].map((file) => join(root, file))

const described = (symbol, checker) =>
  ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim() !== '' ||
  symbol.getJsDocTags(checker).length > 0 ||
  // A comment for several lines of fields in a row stands above the first of them.
  symbol.declarations?.some((declaration) => ts.getJSDocCommentsAndTags(declaration).length > 0)

/** @returns {string[]} 'file:line name' of what has none */
export const withoutDocstring = () => {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const program = ts.createProgram(entries, { ...options, noEmit: true })
  const checker = program.getTypeChecker()
  const missing = new Set()
  const tell = (symbol, name) => {
    const [declaration] = symbol.declarations ?? []
    if (!declaration) return
    const file = declaration.getSourceFile()
    if (file.fileName.includes('node_modules')) return
    const { line } = file.getLineAndCharacterOfPosition(declaration.getStart())
    missing.add(`${file.fileName.slice(root.length + 1)}:${line + 1} ${name}`)
  }
  for (const entry of entries)
    for (const exported of checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(entry)))) {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
      if (!described(symbol, checker)) tell(symbol, exported.name)
      if (!(symbol.flags & ts.SymbolFlags.Class)) continue
      const type = checker.getDeclaredTypeOfSymbol(symbol)
      for (const member of symbol.members?.values() ?? []) {
        const [declaration] = member.declarations ?? []
        if (!declaration || !(ts.isMethodDeclaration(declaration) || ts.isGetAccessor(declaration))) continue
        if (member.name.startsWith('__')) continue
        if (ts.getCombinedModifierFlags(declaration) & (ts.ModifierFlags.Private | ts.ModifierFlags.Protected)) continue
        const inherited = checker
          .getBaseTypes(type)
          .some((base) =>
            described(
              base.getProperty(member.name) ?? { getDocumentationComment: () => [], getJsDocTags: () => [] },
              checker
            )
          )
        if (!described(member, checker) && !inherited) tell(member, `${exported.name}.${member.name}`)
      }
    }
  return [...missing].sort()
}

if (process.argv[1]?.endsWith('docstrings.mjs')) {
  const missing = withoutDocstring()
  for (const line of missing) console.log(line)
  console.log(`${missing.length} public names without a docstring`)
  process.exitCode = missing.length ? 1 : 0
}
