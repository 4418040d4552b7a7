// Drives one tab of Debian's Chromium as told on standard input: a JSON object a line, answered by one a line.
//
//   {"do": "open", "url"}             the page with its session connected
//   {"do": "fill", "name", "n"}       sets both inputs, answers {greeting} when the app has taken both
//   {"do": "upload", "file"}          answers {upload_info}
//   {"do": "download"}                answers {name, text}
//   {"do": "who"}                     answers {pid}: the process behind the websocket
//   {"do": "wait-for-other", "pid"}   answers {pid, greeting, loads} once another process has drawn everything
//   {"do": "cookies"}                 answers {cookies}
//   {"do": "visit", "url"}            the page, whatever it is
//   {"do": "until", "code"}           answers {value} once this expression is true there
//   {"do": "value", "code"}           answers {value} of this expression
//   {"do": "click", "id"}             a button
//
// Arguments: the browser's program, a folder for its profile and downloads. Ends when standard input does.
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [program, folder] = process.argv.slice(2);
const PATIENCE = 20_000;

const context = await chromium.launchPersistentContext(join(folder, 'profile'), {
  executablePath: program,
  headless: true,
  // The certificate is the test's own; that names and chains are right is tested without a browser.
  ignoreHTTPSErrors: true,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
context.setDefaultTimeout(PATIENCE);
const page = context.pages()[0] ?? (await context.newPage());
let loads = 0;
page.on('load', () => { loads += 1; });

const text = (id) => page.locator(`#${id}`).innerText();
const until = (what, argument) => page.waitForFunction(what, argument, { polling: 25 });
const pidOf = (served) => Number(/\(pid (\d+)\)/.exec(served)?.[1]);

const deeds = {
  async open({ url }) {
    await page.goto(url, { waitUntil: 'load' });
    await until(() => /\(pid \d+\)/.test(document.querySelector('#served_by')?.textContent ?? ''));
    return {};
  },
  async fill({ name, n }) {
    await page.fill('#name', name);
    // The slider is moved as its own widget does it, so that widget and app agree.
    await page.evaluate((n) => window.jQuery('#n').data('ionRangeSlider').update({ from: n }), n);
    const expected = `Hello, ${name}: n = ${n}`;
    await until((t) => document.querySelector('#greeting').textContent.trim() === t, expected);
    return { greeting: (await text('greeting')).trim() };
  },
  async upload({ file }) {
    await page.setInputFiles('#file', file);
    await until(() => /sha256 [0-9a-f]{64}/.test(document.querySelector('#upload_info').textContent));
    return { upload_info: (await text('upload_info')).trim() };
  },
  async download() {
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#data')]);
    return { name: download.suggestedFilename(), text: readFileSync(await download.path(), 'utf8') };
  },
  async who() {
    return { pid: pidOf(await text('served_by')) };
  },
  async 'wait-for-other'({ pid }) {
    await until((pid) => {
      const drawn = (id) => {
        const element = document.getElementById(id);
        return !element.classList.contains('recalculating') && element.textContent.trim() !== '';
      };
      const now = /\(pid (\d+)\)/.exec(document.getElementById('served_by').textContent)?.[1];
      const isLive = !document.getElementById('shiny-disconnected-overlay') && window.Shiny.shinyapp.isConnected();
      return isLive && now && Number(now) !== pid && drawn('greeting');
    }, pid);
    return { pid: pidOf(await text('served_by')), greeting: (await text('greeting')).trim(), loads };
  },
  async visit({ url }) {
    await page.goto(url, { waitUntil: 'load' });
    return { loads };
  },
  async until({ code }) {
    const handle = await until((code) => { try { return window.eval(code); } catch { return false; } }, code);
    return { value: await handle.jsonValue() };
  },
  async value({ code }) {
    return { value: await page.evaluate((code) => window.eval(code), code) };
  },
  async click({ id }) {
    await page.click(`#${id}`);
    return {};
  },
  async cookies() {
    return { cookies: await context.cookies() };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  let answer;
  try {
    answer = await deeds[told.do](told);
  } catch (error) {
    answer = { error: `${error}\n${await page.content().catch(() => '')}`.slice(0, 4000) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context.close();
