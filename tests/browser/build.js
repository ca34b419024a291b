// Makes src/admin/page/fanfare.js out of fanfare.src.js: the same module without comments and long names, so that
// what browsers load stays under 5 KB. The result is in the repository, for the hub embeds it; module.test.js
// fails when it is not what this makes.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { minify } from 'terser';

export const PAGE = new URL('../../src/admin/page/', import.meta.url);

export async function build() {
  const source = await readFile(new URL('fanfare.src.js', PAGE), 'utf8');
  const { code } = await minify(source, {
    module: true,
    ecma: 2022,
    compress: { passes: 2 },
    // Lines of readable length: a diff of the result should still say something.
    format: { comments: 'some', max_line_len: 110 },
  });
  return code + '\n';
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const code = await build();
  await writeFile(new URL('fanfare.js', PAGE), code);
  console.log(`fanfare.js: ${Buffer.byteLength(code)} bytes`);
}
