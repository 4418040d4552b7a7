// Copies lines, follows logs, asks before what cannot be undone. Pages work without.
'use strict';
for (const button of document.querySelectorAll('[data-copy]')) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector('code').textContent);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
}
for (const button of document.querySelectorAll('[data-ask]')) {
  button.addEventListener('click', (event) => { if (!confirm(button.dataset.ask)) event.preventDefault(); });
}
const filter = document.querySelector('[data-filter]');
if (filter) {
  const rows = [...document.querySelectorAll('[data-row]')];
  const empty = document.querySelector('[data-empty]');
  filter.addEventListener('input', () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.row.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    if (empty) empty.hidden = shown > 0;
  });
}
const log = document.querySelector('[data-log]');
if (log) {
  let last = Number(log.dataset.last);
  const more = async () => {
    let wait = 1000;
    try {
      const answer = await fetch(`${log.dataset.log}?after=${last}`, { headers: { 'X-Bowline-Token': document.body.dataset.token } });
      if (!answer.ok) return;
      const told = await answer.json();
      const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
      for (const line of told.lines) log.append(`${line}\n`);
      last = told.last;
      if (atEnd) log.scrollTop = log.scrollHeight;
      if (told.is_over) { location.reload(); return; }
    } catch { wait = 5000; }
    setTimeout(more, wait);
  };
  log.scrollTop = log.scrollHeight;
  if (log.dataset.live === 'true') setTimeout(more, 1000);
}
