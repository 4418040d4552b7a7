// Drives one tab of Debian's Chromium as told on standard input: a JSON object a line, answered by one a line.
//
//   {"do": "open", "url"}             the page with its session connected
//   {"do": "fill", "name", "n"}       sets both inputs, answers {greeting} when the app has taken both
//   {"do": "upload", "file"}          answers {upload_info}
//   {"do": "download"}                answers {name, text}
//   {"do": "who"}                     answers {pid}: the process behind the websocket
//   {"do": "wait-for-other", "pid"}   answers {pid, greeting, loads} once another process has drawn everything
//   {"do": "cookies"}                 answers {cookies}
//   {"do": "visit", "url", "wait"}    any page, until `wait`: domcontentloaded, or load
//   {"do": "until", "code"}           answers {value} once this expression is true there
//   {"do": "value", "code"}           answers {value} of this expression
//   {"do": "click", "id"}             a button
//   {"do": "see", "text"}             waits until a part of the page, also within frames of its own, has this text (a
//                                     regular expression); answers {text} of that part
//   {"do": "press", "name"}           a button
//   {"do": "choose", "file"}          in the first field for files
//   {"do": "slide", "steps"}          the first slider, by the keyboard
//   {"do": "trouble"}                 answers {failed, sockets}: what the server did not give, and paths of websockets
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
let failed = [];
let sockets = [];
let origin;
const note = (url, why) => { if (url.startsWith(origin)) failed.push(`${why} ${url.slice(origin.length)}`); };
page.on('response', (response) => { if (response.status() >= 400) note(response.url(), response.status()); });
page.on('requestfailed', (request) => {
  // What a page breaks off itself is no failure.
  if (request.failure()?.errorText !== 'net::ERR_ABORTED') note(request.url(), request.failure()?.errorText);
});
page.on('websocket', (socket) => {
  sockets.push(new URL(socket.url()).pathname);
  socket.on('socketerror', (error) => failed.push(`${error} ${socket.url()}`));
});

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
  async visit({ url, wait }) {
    origin = new URL(url).origin;
    await page.goto(url, { waitUntil: wait ?? 'domcontentloaded' });
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
  async see({ text }) {
    const until = Date.now() + PATIENCE;
    while (Date.now() < until) {
      for (const frame of page.frames()) {
        const found = frame.getByText(new RegExp(text)).filter({ visible: true }).last();
        const seen = await found.textContent({ timeout: 100 }).catch(() => undefined);
        if (seen !== undefined) return { text: seen.trim() };
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`no part of the page has: ${text}; ${failed.join(', ')}`);
  },
  async press({ name }) {
    await page.getByRole('button', { name }).first().click();
    return {};
  },
  async choose({ file }) {
    await page.setInputFiles('input[type=file]', file);
    return {};
  },
  async slide({ steps }) {
    const slider = page.getByRole('slider').first();
    await slider.focus();
    for (let step = 0; step < steps; step += 1) await slider.press('ArrowRight');
    return {};
  },
  async trouble() {
    return { failed, sockets };
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
