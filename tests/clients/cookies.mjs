// Reads one Set-Cookie value from standard input as tough-cookie does for the URL given as argument, and prints the
// Cookie value it sends there again.
import { readFileSync } from 'node:fs';
import { CookieJar } from 'tough-cookie';

const url = process.argv[2];
const jar = new CookieJar();
jar.setCookieSync(readFileSync(0, 'utf8').trim(), url);
console.log(jar.getCookieStringSync(url));
