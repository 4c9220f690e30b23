import js from '@eslint/js'
import tseslint from 'typescript-eslint'

export default tseslint.config(
  { ignores: ['dist/', 'build*/', 'node_modules/', 'prebuilds/', 'bench/out/', 'models/', '.cache/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: {
      parserOptions: { project: ['tsconfig.json', 'test/tsconfig.json'], tsconfigRootDir: import.meta.dirname }
    },
    rules: {
      '@typescript-eslint/no-base-to-string': 'off', // error messages show values of any kind
      '@typescript-eslint/no-non-null-assertion': 'off', // indexed access is checked; `!` says "in range"
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      'no-control-regex': 'off', // formats have control characters
      eqeqeq: 'error',
      'no-console': 'error'
    }
  },
  { files: ['lib/cli/**/*.ts', 'test/**/*.ts'], rules: { 'no-console': 'off' } },
  {
    // Tests read untyped JSON and call with wrong types on purpose.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/require-await': 'off'
    }
  },
  {
    files: ['**/*.mjs', '**/*.js', '**/*.cjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        performance: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
        AbortController: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        setInterval: 'readonly',
        structuredClone: 'readonly'
      }
    },
    rules: { 'no-control-regex': 'off' }
  },
  {
    // The web page runs in a browser.
    files: ['lib/server/page/*.js'],
    languageOptions: {
      globals: Object.fromEntries(
        [
          ...[
            'document',
            'localStorage',
            'indexedDB',
            'matchMedia',
            'fetch',
            'prompt',
            'btoa',
            'Image',
            'TextDecoderStream'
          ],
          ...['AbortController', 'HTMLSelectElement']
        ].map((name) => [name, 'readonly'])
      )
    }
  }
)
