// A person claims a token in Debian's Chromium; before, a script of another page of the same server tries to.
// Arguments: the browser's program, a folder for its profile, the server, the token's address, a user name, a password.
// Prints a JSON object: what the script got, and what the person saw.
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [program, folder, server, address, username, password] = process.argv.slice(2);
const context = await chromium.launchPersistentContext(join(folder, 'profile'), {
  executablePath: program,
  headless: true,
  // The certificate is the test's own; that names and chains are right is tested without a browser.
  ignoreHTTPSErrors: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
});
context.setDefaultTimeout(20_000);
const page = context.pages()[0] ?? (await context.newPage());

// Nobody has logged in yet, so this leads to the page where one does, and back.
await page.goto(address);
await page.fill('[name=username]', username);
await page.fill('[name=password]', password);
await page.click('button');
await page.waitForURL(address);
await page.goto(`${server}/__ping__`);
const fetched = await page.evaluate(async (address) => {
  const answer = await fetch(address, { credentials: 'include' });
  return { status: answer.status, sealed: (await answer.text()).includes('name="seal"') };
}, address);
const [opened] = await Promise.all([
  context.waitForEvent('page'),
  page.evaluate((address) => { window.other = window.open(address); }, address),
]);
await opened.waitForLoadState();
const read = await page.evaluate(() => {
  try {
    return window.other.document.body.innerHTML;
  } catch (error) {
    return error.name;
  }
});
await opened.close();
const framed = await page.evaluate(async (address) => {
  const frame = document.createElement('iframe');
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  frame.src = address;
  document.body.append(frame);
  await loaded;
  try {
    return frame.contentDocument?.body?.innerHTML ?? 'nothing';
  } catch (error) {
    return error.name;
  }
}, address);

await page.goto(address);
const asked = await page.locator('h1').innerText();
await Promise.all([page.waitForNavigation(), page.click('button')]);
const done = await page.locator('h1').innerText();
console.log(JSON.stringify({ fetched, read, framed, asked, done }));
await context.close();
