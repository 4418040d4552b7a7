// Looks at pages as a phone shows them, in Debian's Chromium: nothing wider than the screen or cut off, a label for whatever can
// be used, one heading of the first level and the others in order, and text that can be read in the light and in the dark.
// Prints what is wrong, a line each. Arguments: the browser's program, the server, a JSON list of pages (who looks and a path,
// and perhaps what to press there first), and perhaps a folder for pictures of them all.
import { mkdirSync } from 'node:fs';
import { generateKeyPairSync } from 'node:crypto';
import { chromium } from 'playwright-core';

const [program, server, list, pictures] = process.argv.slice(2);
const PHONE = { width: 390, height: 844 };
const DESK = { width: 1280, height: 900 };
if (pictures) mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({
  executablePath: program,
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
});

// In the page. What is wrong with it.
const shape = () => {
  const problems = [];
  const name = (element) => {
    const text = (element.textContent || '').trim().replace(/\s+/g, ' ').slice(0, 40);
    return `<${element.tagName.toLowerCase()}${element.className ? ` class="${element.className}"` : ''}> ${text}`;
  };
  const isShown = (element) => element.checkVisibility() && !element.closest('.skip, .unseen, thead') && element.tagName !== 'OPTION';
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) problems.push(`it scrolls sideways: ${root.scrollWidth} px`);
  for (const element of document.body.querySelectorAll('*')) {
    // Tables of a description scroll in their own box, as lines of code do.
    if (!isShown(element) || element.closest('svg, .prose table, pre *')) continue;
    const box = element.getBoundingClientRect();
    if (box.right > innerWidth + 0.5 || box.left < -0.5) problems.push(`outside of the screen: ${name(element)}`);
    // A field has its text on one line; lines of code scroll in their own box.
    if (['INPUT', 'SELECT', 'TEXTAREA', 'PRE', 'IFRAME'].includes(element.tagName)) continue;
    if (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== 'inline') {
      problems.push(`wider than its box: ${name(element)}`);
    }
  }
  for (const element of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
    const says = element.getAttribute('aria-label') || [...element.labels ?? []].map((label) => label.textContent).join('');
    if (!says.trim()) problems.push(`without a label: ${element.outerHTML.slice(0, 80)}`);
  }
  for (const element of document.querySelectorAll('button, a, iframe, summary')) {
    const says = element.textContent || element.getAttribute('aria-label') || element.title;
    if (!says.trim()) problems.push(`says nothing: ${element.outerHTML.slice(0, 80)}`);
  }
  const levels = [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) problems.push(`headings of the first level: ${levels}`);
  levels.forEach((level, n) => {
    if (level > (levels[n - 1] ?? 0) + 1) problems.push(`headings out of order: ${levels}`);
  });
  if (document.querySelectorAll('main').length !== 1) problems.push('not one main part');
  const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
  if (new Set(ids).size !== ids.length) problems.push(`an id twice: ${ids}`);
  return problems;
};

// In the page. Text whose colour is too near to what is behind it (WCAG 2.2 §1.4.3).
const contrast = () => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const light = ({ r, g, b }) => {
    const [x, y, z] = [r, g, b].map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? { r: 18, g: 18, b: 18 } : { r: 255, g: 255, b: 255 };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.a > 0.99) return colour;
    }
    return canvas;
  };
  const problems = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('.unseen, .skip, svg, script, style, option')) continue;
    const style = getComputedStyle(element);
    const [text, back] = [light(parse(style.color)), light(behind(element))];
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
    if (ratio < (isLarge ? 3 : 4.5)) {
      problems.add(`hard to read (${ratio.toFixed(1)}): ${walker.currentNode.data.trim().slice(0, 40)}`);
    }
  }
  return [...problems];
};

const problems = [];
const people = new Map();
const person = async (who) => {
  if (people.has(who)) return people.get(who);
  const context = await browser.newContext({ viewport: PHONE, colorScheme: 'light' });
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  page.on('pageerror', (error) => problems.push(`${page.url()}: ${error}`));
  if (who) {
    await page.goto(`${server}/connect/`);
    await page.fill('[name=username]', who);
    await page.fill('[name=password]', `secret of ${who}`);
    await Promise.all([page.waitForURL(`${server}/connect/`), page.click('button')]);
  }
  people.set(who, page);
  return page;
};

let count = 0;
const look = async (page, title) => {
  count += 1;
  const told = [...await page.evaluate(shape), ...await page.evaluate(contrast)];
  await page.emulateMedia({ colorScheme: 'dark' });
  told.push(...(await page.evaluate(contrast)).map((problem) => `in the dark: ${problem}`));
  problems.push(...told.map((problem) => `${title}: ${problem}`));
  if (pictures) {
    const file = `${pictures}/${String(count).padStart(2, '0')}-${title.replace(/[^a-z0-9]+/gi, '-').slice(0, 50)}`;
    const picture = (of) => page.screenshot({ path: `${file}-${of}.png`, fullPage: true });
    await page.emulateMedia({ colorScheme: 'light' });
    await picture('phone');
    await page.setViewportSize(DESK);
    await picture('light');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture('dark');
    await page.setViewportSize(PHONE);
  }
  await page.emulateMedia({ colorScheme: 'light' });
};

for (const { who, path, name, fill, press, status } of JSON.parse(list)) {
  const page = await person(who);
  const title = `${who || 'nobody'} at ${name ?? path}`;
  let answer = await page.goto(`${server}${path}`);
  for (const [field, text] of Object.entries(fill ?? {})) await page.fill(field, text);
  if (press) [answer] = await Promise.all([page.waitForNavigation(), page.click(press)]);
  if (answer.status() !== (status ?? 200)) problems.push(`${title}: status ${answer.status()}`);
  await look(page, title);
}

// R asks to publish as somebody.
const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
const asked = await fetch(`${server}/__api__/tokens`, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ token: `T${'ab'.repeat(16)}`, public_key: key, user_id: 0 }),
});
const ann = await person('ann');
await ann.goto((await asked.json()).token_claim_url);
await look(ann, 'ann at a claim of R');
await Promise.all([ann.waitForNavigation(), ann.click('button:has-text("Allow")')]);
await look(ann, 'ann after a claim of R');
await ann.goto(`${server}/connect/account`);
await look(ann, 'ann at her account with R');

console.log(JSON.stringify({ count, problems }));
await browser.close();
