// The pages in Debian's Chromium: ann opens content and shares it, cy is refused before and let in after, and scripts of
// content at the same origin try to reach the pages.
// Arguments: the browser's program, a folder for its profile, the server, guids of a report and of hostile content.
import { chromium } from 'playwright-core';

const [program, , server, guid, hostile] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath: program,
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
});
const errors = [];
const person = async (name) => {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.on('pageerror', (error) => errors.push(`${error}`));
  await page.goto(`${server}/connect/`);
  await page.fill('[name=username]', name);
  await page.fill('[name=password]', `secret of ${name}`);
  await Promise.all([page.waitForURL(`${server}/connect/`), page.click('button')]);
  return { context, page };
};

const cy = await person('cy');
const before = (await cy.page.goto(`${server}/content/${guid}/`)).status();

const ann = await person('ann');
const listed = (await ann.page.locator(`a[href$="${guid}"]`).innerText());
await ann.page.fill('[data-filter]', 'nothing is called so');
await ann.page.locator('[data-empty]').waitFor();
await ann.page.fill('[data-filter]', 'bold');
await ann.page.click(`a[href$="${guid}"]`);
const inside = ann.page.frameLocator('iframe.stage');
const framed = await inside.locator('h1').innerText();
const parent = await ann.page.frames()[1].evaluate(() => {
  try {
    return window.parent.document.title;
  } catch (error) {
    return error.name;
  }
});
await ann.page.click('text=Access');
await ann.page.fill('[name=who]', 'cy');
await Promise.all([ann.page.waitForNavigation(), ann.page.click('button[value=add]')]);
await ann.page.locator('td', { hasText: 'cy' }).first().waitFor();
let after = 0;
for (let tries = 0; tries < 50 && after !== 200; tries += 1) {
  after = (await cy.page.goto(`${server}/content/${guid}/`)).status();
}

// What content's scripts can do, they do from here.
await ann.page.goto(`${server}/content/${hostile}/`);
const scripts = await ann.page.evaluate(async (url) => {
  const fetched = (await fetch(url)).status;
  const posted = (await fetch(url, { method: 'POST', body: new URLSearchParams({ do: 'create' }) })).status;
  const frame = document.createElement('iframe');
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  frame.src = url;
  document.body.append(frame);
  await loaded;
  let framed;
  try {
    framed = frame.contentDocument?.body?.innerHTML ?? 'nothing';
  } catch {
    framed = 'nothing';
  }
  return { fetched, framed, posted };
}, `${server}/connect/account`);
const [opened] = await Promise.all([
  ann.context.waitForEvent('page'),
  ann.page.evaluate((url) => { window.other = window.open(url); }, `${server}/connect/account`),
]);
await opened.waitForLoadState();
scripts.opened = await ann.page.evaluate(() => {
  try {
    return window.other.document.body.innerHTML.includes('API keys');
  } catch {
    return false;
  }
});
console.log(JSON.stringify({ before, after, listed, framed, parent, scripts, errors }));
await browser.close();
