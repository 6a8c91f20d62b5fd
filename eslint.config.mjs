// Type-aware lint: a promise that nobody awaits is the bug that costs a failover.
import tseslint from 'typescript-eslint';

const nodeBuiltins = ['node:*', 'fs', 'path', 'net', 'http', 'child_process', 'crypto', 'os'];

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', '.parts/', '.runs/', 'vendor/'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/require-await': 'off',
      'no-console': 'error',
      eqeqeq: 'error',
    },
  },
  {
    // Workflow code runs in Temporal's deterministic sandbox: decisions only, no I/O.
    files: ['workflows/**/*.ts'],
    rules: {
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          paths: nodeBuiltins.slice(1),
          patterns: [
            { group: ['node:*'], message: 'Workflow code must not reach the outside world.' },
            {
              group: ['../activities/*', '../envoy/*', '../cells/*', '../prediction/*', '../blueprints/*'],
              allowTypeImports: true,
              message: 'Workflows take types from the other parts, never code.',
            },
            { group: ['zod', 'pino', 'kafkajs', 'pg', 'kysely'], message: 'Too heavy for the workflow sandbox.' },
          ],
        },
      ],
    },
  },
  { files: ['cli/**/*.ts', 'lab/**/*.ts', 'local/**/*.ts'], rules: { 'no-console': 'off' } },
  { files: ['test/**/*.ts'], rules: { '@typescript-eslint/no-unused-expressions': 'off' } },
  { files: ['**/*.cjs', '**/*.mjs'], extends: [tseslint.configs.disableTypeChecked] },
);
