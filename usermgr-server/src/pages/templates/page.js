'use strict';
// Improves pages that work without it.
for (const button of document.querySelectorAll('button[data-wait]')) {
  const text = button.textContent;
  const until = Date.now() + Number(button.dataset.wait) * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? button.dataset.waitText.replace('{seconds}', left) : text;
    if (left > 0) setTimeout(tick, 500);
  };
  tick();
}
for (const input of document.querySelectorAll('input[data-show]')) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'quiet show';
  button.setAttribute('aria-controls', input.id);
  const say = () => {
    button.textContent = input.type === 'password' ? input.dataset.show : input.dataset.hide;
  };
  button.addEventListener('click', () => {
    input.type = input.type === 'password' ? 'text' : 'password';
    say();
  });
  // A browser offers to keep a password, not a text.
  input.form.addEventListener('submit', () => { input.type = 'password'; });
  say();
  const box = document.createElement('div');
  box.className = 'with-button';
  input.replaceWith(box);
  box.append(input, button);
}
for (const code of document.querySelectorAll('code[data-copy]')) {
  if (!navigator.clipboard) break;
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'quiet copy';
  button.textContent = code.dataset.copy;
  button.addEventListener('click', () => {
    navigator.clipboard.writeText(code.textContent).then(() => { button.textContent = code.dataset.copied; });
  });
  code.after(' ', button);
}
const summary = document.querySelector('.summary[autofocus]');
if (summary) summary.focus();
